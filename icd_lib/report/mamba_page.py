"""Tables of docs/MAMBA.md from its reference run: `python -m icd_lib.report.mamba_page [--check]`."""

import sys
from collections.abc import Callable
from pathlib import Path

from icd_lib.experiment.arms import DENSE
from icd_lib.metric import Figure
from icd_lib.paths import project_root
from icd_lib.records.decoding import Decoding
from icd_lib.records.generation import DecodeArm
from icd_lib.report import decoding, generation
from icd_lib.report.decoder_page import NOT_RUN, deployed_table, exported_table
from icd_lib.report.losses import lost
from icd_lib.report.marked import with_marked
from icd_lib.report.readme import as_change, as_drop, latency_table, load_reference
from icd_lib.report.results import Results
from icd_lib.report.table import Table
from icd_lib.storage.atomic import atomic_write

REFERENCE, PAGE = "outputs/reference/mamba", "docs/MAMBA.md"


def tables(root: Path | None = None) -> dict[str, str]:
    """Marker of the page → Markdown; `NOT_RUN` without the run."""
    folder = (root or project_root()) / REFERENCE
    if not folder.is_dir():
        return dict.fromkeys(("run", "frontier", "decoding"), NOT_RUN)
    results = load_reference(folder)
    judged = f"{latency_table(results)}\n\n{losses_table(results)}"
    return {"run": judged, "frontier": attempts_table(results), "decoding": numbers(results)}


def losses_table(results: Results) -> str:
    """What each arm loses, judged once at the end."""
    lines = ["| arm | text | dense predicts | next-token accuracy lost | perplexity × |", "|---" * 5 + "|"]
    for arm in results.solves:
        for split, entry in results.lost(arm).items():
            own, near = lost(entry.own, entry.n_items), entry.perplexity_ratio
            assert own is not None and near is not None
            dense = results.measure.quality.dense[split].quality_pct
            lines.append(f"| {arm} | {split} | {dense:.2f} % | {as_drop(own)} | {near.value:.4f} |")
    return "\n".join(lines)


def attempts_table(results: Results) -> str:
    """How far each arm was taken, and what that loses where strengths are chosen."""
    lines = ["| arm | predicted latency | accuracy lost | perplexity × | KL to dense | taken |", "|---" * 6 + "|"]
    for mode in results.solves:
        whole = [entry for entry in results.attempts(mode) if not entry.is_draft]
        for entry in sorted(whole, key=lambda entry: -entry.strength):
            if (judged := entry.validation) is None or not judged.is_judged:
                continue
            found = f"{judged.drop_pp:+.3f} ± {judged.se_pp:.3f} pp | {judged.perplexity_ratio:.4f} | {judged.kl:.4f}"
            predicted, fate = f"{100 * entry.predicted_latency_rel:+.1f} %", "yes" if entry.accepted else "no"
            lines.append(f"| {mode} | {predicted} | {found} | {fate} |")
    return "\n".join(lines)


def numbers(results: Results) -> str:
    """Times and throughput of every arm, the result in OpenVINO, and the same tokens."""
    found = generation.decoding_of(results)
    if not isinstance(found, Decoding):
        return NOT_RUN
    parts = [
        changes_table(found, "per token", lambda arm: arm.step_vs_dense),
        changes_table(found, "to first token", lambda arm: arm.first_vs_dense),
        exported_table(found),
        deployed_table(found),
    ]
    throughput = decoding.throughput_table(results)
    parts += [throughput.to_markdown()] if isinstance(throughput, Table) else []
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in decoding.lines(results))])


def changes_table(found: Decoding, what: str, change: Callable[[DecodeArm], Figure]) -> str:
    """Every arm against dense in PyTorch on our kernels, by batch and prompt."""
    arms = list(dict.fromkeys(arm for shape in found.clock for arm in shape.arms if arm != DENSE))
    shapes = " | ".join(map(generation.shape_label, found.clock))
    lines = [f"| {what}, against dense in PyTorch | {shapes} |", "|---" * (len(found.clock) + 1) + "|"]
    for arm in arms:
        cells = (as_change(change(shape.arms[arm])) if arm in shape.arms else "–" for shape in found.clock)
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_numbers(text: str) -> str:
    """The page with its tables made anew; `ArtifactError` where the markers or the run are missing."""
    for marker, made in tables().items():
        text = with_marked(text, marker, made)
    return text


def main(arguments: list[str]) -> int:
    """Write the numbers, or with --check exit 1 when the page's differ from the reference run's."""
    path = project_root() / PAGE
    text = path.read_text(encoding="utf-8")
    made = with_numbers(text)
    if "--check" in arguments:
        print(f"{PAGE}: " + ("as in the reference run" if made == text else "differs from the reference run"))
        return int(made != text)
    atomic_write(path, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
