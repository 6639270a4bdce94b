"""The numbers of docs/DECODER.md from its reference run: `python -m icd_lib.report.decoder_page [--check]`."""

import sys
from pathlib import Path

from icd_lib.paths import project_root
from icd_lib.records.decoding import Decoding
from icd_lib.records.generation import EXPORTED_ARM, Generation
from icd_lib.report import generation, measure_tables, weights_figures
from icd_lib.report.marked import with_marked
from icd_lib.report.readme import as_change, as_drop, latency_table, load_reference, told
from icd_lib.report.table import Table
from icd_lib.storage.atomic import atomic_write

REFERENCE, PAGE = "outputs/reference/smollm2", "docs/DECODER.md"
NOT_RUN = "Not run yet."


def numbers(root: Path | None = None) -> str:
    """Markdown: prompts' latency, quality, the gates, and what was found of generating; `NOT_RUN` without the run."""
    folder = (root or project_root()) / REFERENCE
    if not folder.is_dir():
        return NOT_RUN
    results = load_reference(folder)
    tables = [
        measure_tables.quality(results),
        *(generation.cache_table(results, split) for split in ("unseen", "seen")),
        generation.lookup_table(results),
        generation.cloze_table(results),
    ]
    shown = [item.to_markdown() if isinstance(item, Table) else f"{item}." for item in tables]
    sentences = weights_figures.lines(results) + generation.lines(results)
    parts = ["Reading a prompt, in PyTorch:", latency_table(results), told(results)]
    found = generation.generation_of(results)
    if isinstance(found, Generation):
        parts += [exported_table(found), deployed_table(found)]
    parts += shown
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in sentences)])


def in_openvino(found: Generation | Decoding) -> str:
    """What the result's graph in OpenVINO is called: a folder that others load has a cache, and no state."""
    return "what is exported" if isinstance(found, Generation) else "iterative in OpenVINO"


def exported_table(found: Generation | Decoding) -> str:
    """Time per token of the result in OpenVINO, against dense in PyTorch and in every other runtime."""
    shapes = {f"{one.batch} × {one.context}": one.arms[EXPORTED_ARM] for one in found.clock if EXPORTED_ARM in one.arms}
    rows = {"dense in PyTorch, fp32": [arm.step_vs_dense for arm in shapes.values()]}
    for peer in next(iter(shapes.values())).step_vs if shapes else ():
        rows[f"dense, `{peer}`"] = [arm.step_vs[peer] for arm in shapes.values()]
    lines = [
        f"| {in_openvino(found)}, time per token against | {' | '.join(shapes)} |",
        "|---" * (len(shapes) + 1) + "|",
    ]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(as_change, row))} |" for name, row in rows.items())])


def deployed_table(found: Generation | Decoding) -> str:
    """What every runtime that decodes loses of next-token accuracy, and its perplexity."""
    lines = ["| where it decodes | text | accuracy lost | perplexity × | KL to dense |", "|---" * 5 + "|"]
    for point in found.deployed:
        name = f"**{in_openvino(found)}**" if point.arm == EXPORTED_ARM else f"dense, `{point.arm}`"
        ratio, near = point.perplexity_ratio, point.kl
        figures = f"{as_drop(point.drop_pp)} | {ratio.value:.4f} | {near.value:.4f}"
        lines.append(f"| {name} | {point.split} | {figures} |")
    return "\n".join(lines)


def with_numbers(text: str) -> str:
    """The page with its numbers made anew; `ArtifactError` where the markers or the run are missing."""
    return with_marked(text, "numbers", numbers())


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
