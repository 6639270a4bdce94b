"""The page of `benchmarks/gpu.py`, made from its JSON alone.

python benchmarks/gpu_readme.py DIR    write DIR/README.md again from DIR/gpu.json
"""

import sys
from pathlib import Path

from gpu_arms import WORDS

from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.json_text import read_text


def readme(found: dict) -> str:
    """The page for what gpu.json holds; a part that was not measured has no section, and is named at the end."""
    device = found["device"]
    parts = [
        f"# {found['title']}",
        f"**{'; '.join(found['badges'])}.** {device['name']}, L2 {device['l2_mib']:g} MiB, CUDA {device['cuda']}, "
        f"torch {device['torch']}, transformers {device['transformers']}. Written by `python benchmarks/gpu.py`; "
        "all figures are in `gpu.json` (counters in `ncu.json`, samples in `samples.json`, the board in `power.csv`).",
        f"Latency: {found['clock']}. Changes are fractions with a 95 % interval; dense again is the same model under a "
        "second name, and its interval should hold 0.",
    ]
    for name, case in found["cases"].items():
        parts += case_section(name, case)
    parts += ncu_section(found.get("ncu", {}))
    parts += energy_section(found["energy"]) if "energy" in found else []
    parts += scan_section(found["scan"]) if "scan" in found else []
    parts += ending("Left out for want of time", found["left_out"])
    parts += ending("Not measured here", found.get("not_measured", [])) + ending("Failed", found["failed"])
    return "\n\n".join(parts) + "\n"


def case_section(name: str, case: dict) -> list[str]:
    stored = case["dead_tiles_in_stored_order"]
    parts = [
        f"## {name}",
        f"{case['layers']} layers, {case['hidden']} wide, FFN {case['ffn_width']}; the mask keeps {case['ffn_kept']} "
        f"neurons of each layer ({percent(-case['ffn_removed'])}) at random places. Of {case['tiles']} tiles of "
        f"{case['tile']}, {min(stored)} to {max(stored)} are wholly dead in stored order and "
        f"{case['dead_tiles_once_compacted']} once the kept neurons are brought together.",
    ]
    for entry in case["runtimes"].values():
        rows = [[WORDS[arm], *timing_cells(timing)] for arm, timing in entry["arms"].items()]
        rows.append([WORDS["dense again"], "", "", interval(entry["aa_control"])])
        parts += [f"**{entry['label']}**", table(("arm", "median ms", "p95 ms", "against dense"), rows)]
        pairs = "; ".join(f"{pair} {interval(item)}" for pair, item in entry["pairs"].items())
        errors = ", ".join(f"{arm} {error:.1e}" for arm, error in entry["max_rel_error_vs_masked"].items())
        parts.append(f"{pairs}. Outputs against masked, relative: {errors}.{floor(entry)}")
    return parts


def timing_cells(timing: dict) -> list[str]:
    latency = timing["latency_ms"]
    return [f"{latency['value']:.4f}", f"{latency['p95']:.4f}", interval(timing["vs_dense"])]


def ncu_section(cases: dict) -> list[str]:
    parts = []
    for name, replays in cases.items():
        for replay, arms in replays.items():
            rows = []
            for arm, record in arms.items():
                cells = [
                    f"{record['metrics'][key]['value']:.1f}" for key in ("l2_hit_pct", "l2_read_mb", "dram_read_mb")
                ]
                rows.append([WORDS[arm], *cells, str(record["kernels"]), str(record["passes"])])
            head = ("arm", "L2 read hits %", "L2 reads MB", "DRAM reads MB", "kernels", "passes")
            parts += [f"**{name}, eager bf16, one warm call, {replay}**", table(head, rows)]
    if not parts:
        return []
    note = (
        "Read by ncu with caches and clocks left alone. With kernel replay a kernel that takes several passes finds in "
        "the cache what its own earlier pass left, which can favour an arm whose kernels' data fit into L2: read the "
        "DRAM bytes beside it. With application replay the program runs again for each pass, which settles it. Times "
        "under ncu are not shown."
    )
    return ["## L2 and DRAM", note, *parts]


def energy_section(energy: dict) -> list[str]:
    rows = []
    for arm, item in energy["j_per_token"].items():
        board = energy["board"][arm]
        low, high = item["ci95"]
        clocks = "–".join(f"{mhz:g}" for mhz in board["sm_mhz"] or ()) or "unknown"
        cells = [f"{1e6 * item['value']:.2f} [{1e6 * low:.2f}, {1e6 * high:.2f}]", str(item["n"])]
        reasons = board.get("event_reasons")
        rows.append([WORDS[arm], *cells, clocks, "not told" if reasons is None else ", ".join(reasons) or "none"])
    idle = energy["idle_w"]
    return [
        "## Energy",
        f"{energy['case']}, `{energy['runtime']}`: {energy['counter']}, {energy['windows']} interleaved windows of "
        f"{energy['window_s']:g} s per arm, the whole board, idle power included ({idle['before']['value']:.0f} W idle "
        f"before, {idle['after']['value']:.0f} W after).",
        table(("arm", "µJ per token", "windows", "SM MHz", "clock event reasons"), rows),
        f"Compacted against dense {interval(energy['compacted vs dense'])}; dense again against dense "
        f"{interval(energy['aa_control'])}.{floor(energy)}",
    ]


def scan_section(scan: dict) -> list[str]:
    rows = []
    for place, precisions in scan.get("kernel", {}).items():
        for precision, entry in precisions.items():
            error = entry["max_rel_error_vs_double"]
            rows.append(
                [f"scan, {place}, {precision}", *scan_cells(entry, "triton", "torch loop"), f"{error['triton']:.1e}"]
            )
    if "model" in scan:
        entry = scan["model"]
        cells = scan_cells(entry, "fast scan", "stock")
        rows.append([f"whole Mamba, prefill {entry['tokens']}, fp32", *cells, f"{entry['max_rel_error']:.1e}"])
    head = ("what", "ours ms", "plain torch ms", "change", "A/A", "relative error")
    return ["## Selective scan, 130M shape", table(head, rows)]


def scan_cells(entry: dict, arm: str, other: str) -> list[str]:
    medians = entry["median_ms"]
    return [
        f"{medians[arm]:.4f}",
        f"{medians[other]:.3f}",
        interval(entry[f"{arm} vs {other}"]),
        interval(entry["aa_control"]),
    ]


def floor(entry: dict) -> str:
    """What to make of an A/A control whose interval does not hold 0; nothing where it does.

    >>> floor({"aa_holds_zero": False, "aa_control": {"value": -0.003, "ci95": [-0.005, -0.001]}})
    ' The A/A interval does not hold 0: a change of 0.5 % or less is no finding here.'
    """
    if entry["aa_holds_zero"]:
        return ""
    largest = 100 * max(abs(bound) for bound in entry["aa_control"]["ci95"])
    return f" The A/A interval does not hold 0: a change of {largest:.1f} % or less is no finding here."


def ending(title: str, entries: list[dict]) -> list[str]:
    lines = [f"- {entry['step']}: {entry['reason']}" for entry in entries]
    return [f"## {title}", "\n".join(lines)] if lines else []


def interval(item: dict) -> str:
    """A change in percent with its interval.

    >>> interval({"value": -0.251, "ci95": [-0.26, -0.24]})
    '−25.1 % [−26.0, −24.0]'
    """
    low, high = (f"{100 * bound:+.1f}" for bound in item["ci95"])
    return f"{percent(item['value'])} [{low}, {high}]".replace("-", "−").replace("+", "")


def percent(fraction: float) -> str:
    return f"{100 * fraction:+.1f} %".replace("-", "−").replace("+", "")


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    folder = Path(sys.argv[1])
    atomic_write(folder / "README.md", readme(read_text(folder / "gpu.json")))


if __name__ == "__main__":
    main()
