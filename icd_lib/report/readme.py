"""The README's numbers, from the committed reference run: `python -m icd_lib.report.readme [--check]`."""

import json
import sys

from icd_lib.artifacts import atomic_write
from icd_lib.errors import ArtifactError
from icd_lib.report.results import Results
from icd_lib.scenario import project_root

START, END = "<!-- numbers: start -->", "<!-- numbers: end -->"
REFERENCE = "outputs/reference/bert"


def numbers_table() -> str:
    """Markdown rows: what was compared, latency change with its interval, quality lost, from verdict.json."""
    folder = project_root() / REFERENCE
    verdict = json.loads((folder / "verdict.json").read_text())
    model = json.loads((folder / "setup" / "setup.json").read_text())
    rows = [
        ("iterative vs dense", verdict["vs_dense"]["shapes"]),
        ("iterative vs linear, same quality budget", verdict["same_quality"]["shapes"]),
        ("iterative vs oneshot, same quality budget", verdict["vs_oneshot"]["shapes"]),
        ("iterative vs the same mask in linear's layout", verdict["same_transform"]["shapes"]),
        ("A/A control (dense vs dense)", verdict["aa_control"]["shapes"]),
    ]
    shapes = list(rows[0][1])
    lines = [
        "| latency, relative change (95 % interval) | " + " | ".join(shapes) + " |",
        "|---" * (len(shapes) + 1) + "|",
        *(f"| {name} | " + " | ".join(as_change(found[shape]) for shape in shapes) + " |" for name, found in rows),
    ]
    drops = verdict["same_quality"]["quality_drop_pp"] | {"oneshot": verdict["vs_oneshot"].get("other_quality_drop_pp")}
    kept = [f"{arm} {as_drop(item)}" for arm, item in drops.items() if item]
    lines += [
        "",
        f"Quality lost against dense on test data: {'; '.join(kept)}.",
        f"Mean cosine to the dense embeddings (1 is unchanged): {_cosines(folder)}.",
        f"Gates: smoke {verdict['smoke']['status']}, strict {verdict['strict']['status']}. "
        f"Machine: {model['environment']['cpu']['model']}, {model['environment']['threads']['torch']} threads.",
    ]
    badges = Results.load(folder).badges_about("model", "layout", "timing")
    if badges:
        lines.append(f"Badges: {'; '.join(badges)}.")
    return "\n".join(lines)


def _cosines(folder) -> str:
    """Per arm: on test data, and on text of another domain than the calibration's."""
    quality = json.loads((folder / "measure" / "measure.json").read_text())["quality"]
    found = {arm: entry for arm, entry in quality.items() if isinstance(entry, dict) and "cosine" in entry}
    return "; ".join(
        f"{arm} {entry['cosine']:.3f}, on docstrings {entry['other_domain_cosine']:.3f}" for arm, entry in found.items()
    )


def as_change(item: dict) -> str:
    """A relative change in percent with its interval."""
    if item["kind"] == "not_measured":
        return f"not measured ({item['reason']})"
    low, high = item["ci95"]
    return f"{100 * item['value']:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})"


def as_drop(item: dict) -> str:
    """A loss in percentage points with its interval."""
    if item["kind"] == "not_measured":
        return f"not measured ({item['reason']})"
    low, high = item["ci95"]
    return f"{item['value']:+.3f} pp ({low:+.3f} … {high:+.3f})"


def with_numbers(text: str) -> str:
    """The README with its table made anew; `ArtifactError` when the markers are missing."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ArtifactError(f"README.md has no '{START}' … '{END}'; put the two markers back")
    return f"{before}{START}\n{numbers_table()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write the table, or with --check exit 1 when the README's differs from the reference run's."""
    path = project_root() / "README.md"
    text = path.read_text(encoding="utf-8")
    made = with_numbers(text)
    if "--check" in arguments:
        print("README numbers: " + ("as in the reference run" if made == text else "differ from the reference run"))
        return int(made != text)
    atomic_write(path, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
