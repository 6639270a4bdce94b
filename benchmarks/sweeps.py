"""What a sweep costs beside its points, what local workers are worth, ten thousand points, and where workers saturate.

    python benchmarks/sweeps.py                              # all parts; writes docs/figures/sweeps.json, SWEEPS.md
    python benchmarks/sweeps.py overhead --points 12
    python benchmarks/sweeps.py fanout --points 8 --repeats 2
    python benchmarks/sweeps.py many --count 10000 --minutes 6
    python benchmarks/sweeps.py scheduling --tasks 3000
    python benchmarks/sweeps.py many --count 200 --minutes 1 --out FOLDER    # into another folder, and no page

A part that is not named keeps the figures that the file has. `overhead`, `fanout` and what `scheduling` measures need a
machine that does nothing else; each says the load that it found.

overhead    `run_all.py` on tiny points of `mock`, one after the other: wall time against the sum of their stages'.
fanout      the solving part of such points on two local workers and on one; everything before it is done already.
many        `--count` points are planned; as many are run as fit `--minutes`; the rest get the recorded figures of those
            that were run, the locks that running them would have written and one run's verdict, and then the command
            is given again: every point is checked and kept, and the pages are drawn. Memory is that of the process
            and all its children, sampled, shared pages counted again in each.
scheduling  `sweeps_scheduling.py`: costs of the real scheduler for each task, and a simulation of many workers.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import yaml
from sweeps_scheduling import measure_scheduler, simulate_all

from icd_lib.errors import IcdError
from icd_lib.execute.cluster import Crew, connected, local_cluster
from icd_lib.execute.point import Job
from icd_lib.execute.sweep import Course
from icd_lib.measure.environment import fingerprint
from icd_lib.options.option import plain
from icd_lib.records.verdict import VERDICT
from icd_lib.report.marked import with_marked
from icd_lib.run.artifacts import Run, write_lock
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.sweeps.outcome import FILE as OUTCOMES
from icd_lib.sweeps.outcome import append_outcome, read_outcomes
from icd_lib.sweeps.plan import read_sweep

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "SWEEPS.md"
PARTS = ("overhead", "fanout", "many", "scheduling")
TINY = {
    "workload": {"rows": 256, "events": 2000, "burst": 20},
    "solver": {"refine_steps": 10},
    "calibration": {"pilots": 0},
    "measure": {"repeats": 3, "max_repeats": 3, "warmup": 0, "bootstrap": 100},
    "codesign": {"max_rounds": 1},
}
SHARES = 20  # levels of the first factor of `many`; seeds make the rest
SAMPLE_S = 0.2


def sweep_file(folder: Path, count: int, shares: int = 2) -> Path:
    """A sweep of `count` tiny points: shares of dead rows times seeds."""
    if count % shares:
        raise SystemExit(f"the number of points takes a multiple of {shares}, got {count}")
    grid = {
        "transform.dead_share": [round(0.2 + 0.6 * place / max(1, shares - 1), 4) for place in range(shares)],
        "seed": list(range(count // shares)),
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"base": "mock", "grid": grid, "overrides": TINY}))
    return path


def command(file: Path, out: Path, *more: str) -> list[str]:
    """`run_all.py` on a sweep file, in this process's Python, one point after the other."""
    given = ["--sweep", str(file), "--out", str(out), "--cluster", "none", "--yes", *more]
    return [sys.executable, str(ROOT / "run_all.py"), *given]


def stages_s(runs: Iterable[Path]) -> float:
    """Seconds of all stages of these runs, as their logs have them."""
    logs = [json.loads(line) for run in runs for line in (run / "run.log").read_text().splitlines()]
    return sum(entry["meta"].get("elapsed_s", 0.0) for entry in logs)


def overhead(scratch: Path, points: int) -> dict:
    """Wall time of the command against its stages, and what lies between them."""
    file = sweep_file(scratch, points)
    began = time.perf_counter()
    subprocess.run(command(file, scratch), check=True, stdout=subprocess.DEVNULL)
    wall, folder = time.perf_counter() - began, scratch / "tiny"
    ended = read_outcomes(folder)
    of_points, of_stages = sum(item.elapsed_s for item in ended.values()), stages_s(folder / name for name in ended)
    return {
        "points": points,
        "wall_s": wall,
        "stages_s": of_stages,
        "within_points_s": of_points - of_stages,
        "beside_points_s": wall - of_points,
        "overhead_rel": wall / of_stages - 1,
        "sweep_alone_rel": (wall - of_points) / of_points,
        "stage_s": of_stages / points / 8,
    }


def fanout(scratch: Path, points: int, repeats: int) -> dict:
    """Seconds of the solving part with one and with two workers, in turn, and how many cores were busy meanwhile."""
    planned = read_sweep(sweep_file(scratch, points))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeats):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            folder = scratch / f"{turn}-{workers}" / planned.name
            folder.mkdir(parents=True)
            (folder / "sweep.json").write_text("{}")
            jobs = [Job(point, folder, str(folder.parent)) for point in planned.points]
            course = Course(planned, folder, echo=lambda line: None)
            with local_cluster(workers) as file, connected(file) as client:
                client.wait_for_workers(workers, timeout=60)
                crew = Crew(client, course)
                crew.muster()
                left = crew.run(jobs, "begin")
                began, spent = time.perf_counter(), busy_s()
                solved = crew.run(left, "solve")
                seconds[workers].append(time.perf_counter() - began)
                busy[workers].append((busy_s() - spent) / seconds[workers][-1])
            if len(solved) < points:
                raise SystemExit(f"{points - len(solved)} points failed: {folder / OUTCOMES}")
    best = {workers: min(times) for workers, times in seconds.items()}
    return {
        "points": points,
        "seconds_one": seconds[1],
        "seconds_two": seconds[2],
        "busy_one": busy[1],
        "busy_two": busy[2],
        "speedup": best[1] / best[2],
        "method": f"shortest of {repeats} with one worker over shortest of {repeats} with two, in turn",
    }


def busy_s() -> float:
    """Seconds that the machine's cores have worked since it started, summed over them."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


def many(scratch: Path, count: int, minutes: float) -> dict:
    """Plan, run for some minutes, fill up, give the command again; seconds and peak memory of each."""
    file, folder = sweep_file(scratch, count, SHARES), scratch / "tiny"
    planning = watched(command(file, scratch, "--dry-run"))
    text = yaml.safe_load(file.read_text()) | {"budget_minutes": minutes}
    timed = scratch / "timed" / file.name
    timed.parent.mkdir()
    timed.write_text(yaml.safe_dump(text))
    running = watched(command(timed, scratch))
    done = [item for item in read_outcomes(folder).values() if item.is_done]
    bytes_each = sum(path.stat().st_size for item in done for path in (folder / item.point).rglob("*"))
    spent = sum(item.elapsed_s for item in done)
    filled = fill(folder, file, done)
    resuming = watched(command(file, scratch))
    kept = sum(item.is_done for item in read_outcomes(folder).values())
    if kept != count:
        raise SystemExit(f"{count - kept} of {count} points are not done: {folder / OUTCOMES}")
    return {
        "points": count,
        "plan": planning,
        "run": running | {"points": len(done), "seconds_a_point": spent / len(done)},
        "disk_mb_a_point": bytes_each / len(done) / 1e6,
        "stages_share": stages_s(folder / item.point for item in done) / spent,
        "filled": filled,
        "resume_and_draw": resuming,
        "page_mb": (folder / "index.html").stat().st_size / 1e6,
        "peak_mb": max(part["peak_mb"] for part in (planning, running, resuming)),
    }


def fill(folder: Path, file: Path, done: list) -> int:
    """Give every point that was not run the recorded end of one that was, and the files by which it is kept."""
    planned, own = read_sweep(file, yes=True), {item.point for item in done}
    verdict = (folder / done[0].point / VERDICT).read_bytes()
    (folder / OUTCOMES).unlink()
    for item in done:
        append_outcome(folder, item)
    others = [point for point in planned.points if point.name not in own]
    for place, point in enumerate(others):
        scenario = point.scenario()
        run = Run(scenario, folder / point.name, "both", str(folder.parent))
        write_lock(run)
        (run.dir / VERDICT).write_bytes(verdict)
        recorded = done[place % len(done)]
        append_outcome(folder, recorded.but(point=point.name, config_sha256=scenario.sha256))
    return len(others)


def watched(given: list[str]) -> dict:
    """Run a command; its seconds, and the most memory that it and its children held at once."""
    began, peak = time.perf_counter(), [0]
    process = subprocess.Popen(given, stdout=subprocess.DEVNULL)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak, stop))
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    stop.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(given[1:])} ended with {code}")
    return {"seconds": seconds, "peak_mb": peak[0] / 1e6}


def _watch(process: psutil.Process, peak: list[int], stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_S):
        with contextlib.suppress(psutil.Error):
            held = 0
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    held += one.memory_info().rss
            peak[0] = max(peak[0], held)


def scheduling(scratch: Path, tasks: int) -> dict:
    """What the real scheduler costs here, and a simulation with these costs."""
    costs = measure_scheduler(scratch, tasks)
    return {"measured": costs, "simulated": simulate_all(costs)}


def table(result: dict) -> str:
    """The figures for people; what was not run says so."""
    rows = [row for part in PARTS for row in (ROWS[part](result[part]) if part in result else [_NONE[part]])]
    lines = ["| | asked | here | how |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


_NONE = {part: (part, "", "not measured", f"`python benchmarks/sweeps.py {part}`") for part in PARTS}


def _overhead_rows(item: dict) -> list[tuple]:
    return [
        (
            "time beside the points' stages",
            "≤ 3 %",
            f"{100 * item['overhead_rel']:.1f} %",
            f"{item['points']} tiny points of `mock` in {item['wall_s']:.0f} s: "
            f"{item['within_points_s']:.1f} s between the stages of points, as in any run, and "
            f"{item['beside_points_s']:.1f} s for start, plan and pages"
            f"{_load(item)}",
        ),
        (
            "of it the sweep's own, beside its points",
            "≤ 3 %",
            f"{100 * item['sweep_alone_rel']:.1f} %",
            f"the same; ≤ 3 % from {item['beside_points_s'] / 0.03 / 60:.0f} minutes of points on (computed)",
        ),
    ]


def _fanout_rows(item: dict) -> list[tuple]:
    return [
        (
            "solving on two local workers against one",
            "≥ 1.7 ×",
            f"{item['speedup']:.2f} ×",
            f"{item['points']} tiny points of `mock`, {item['method']}{_busy(item)}{_load(item)}",
        )
    ]


def _busy(item: dict) -> str:
    if "busy_one" not in item:
        return ""
    one, two = (min(item[key]) for key in ("busy_one", "busy_two"))
    return f"; cores busy meanwhile: {one:.2f} with one, {two:.2f} with two"


def _many_rows(item: dict) -> list[tuple]:
    run, again = item["run"], item["resume_and_draw"]
    return [
        (
            f"memory of {item['points']:,} points",
            "≤ 2 GB",
            f"{item['peak_mb'] / 1e3:.2f} GB",
            f"peak of plan ({item['plan']['peak_mb']:,.0f} MB, {item['plan']['seconds']:.0f} s), run "
            f"({run['peak_mb']:,.0f} MB) and resume with pages ({again['peak_mb']:,.0f} MB, {again['seconds']:.0f} s); "
            f"{run['points']} points were run, {item['filled']:,} have the recorded figures of those",
        ),
        (
            "a tiny point",
            "",
            f"{run['seconds_a_point']:.1f} s, {item['disk_mb_a_point']:.1f} MB",
            f"{100 * item['stages_share']:.0f} % of it are its eight notebooks{_load(item)}",
        ),
    ]


def _scheduling_rows(item: dict) -> list[tuple]:
    costs = item["measured"]
    rows = [
        (
            "the scheduler, a task",
            "",
            f"{1e3 * costs['task_s']:.2f} ms",
            f"{costs['tasks']:,} empty tasks on {costs['workers']} workers; of it the scheduler's own CPU time "
            f"{1e3 * costs['scheduler_s']:.2f} ms{_load(item)}",
        )
    ]
    for case in item["simulated"]["cases"]:
        told = "; ".join(
            f"{entry['workers']:,}: {100 * entry['efficiency']:.1f} % of {100 * entry['ideal']:.1f} %"
            for entry in case["sizes"]
        )
        how = f"{case['words']}; with the scheduler's costs, of what it would be without them"
        rows.append((f"simulated: workers busy, {case['name']}", "", told, how))
    least = ", ".join(f"{int(key):,}: {value:.2g} s" for key, value in item["simulated"]["shortest_solve_s"].items())
    rows.append(
        ("computed: the scheduler is the limit for parts shorter than", "", least, "workers × seconds of a task")
    )
    asked = f"{1e3 * costs['ask_s']:.1f} ms + {1e6 * costs['ask_s_a_worker']:.0f} µs a worker"
    rows.append(
        ("asking who is there, a second after the last answer", "", asked, f"2 and {costs['more_workers'] + 2} workers")
    )
    return rows


def _load(item: dict) -> str:
    return f"; load {item['load']:.1f} on {item['cores']} cores when it began" if "load" in item else ""


ROWS = {"overhead": _overhead_rows, "fanout": _fanout_rows, "many": _many_rows, "scheduling": _scheduling_rows}


def main() -> int:
    """Run the parts that are named, keep each at once, write the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--points", type=int, default=8, help="of overhead and fanout")
    parser.add_argument("--repeats", type=int, default=2, help="of fanout")
    parser.add_argument("--count", type=int, default=10_000, help="points of many")
    parser.add_argument("--minutes", type=float, default=6.0, help="in which points of many are started")
    parser.add_argument("--tasks", type=int, default=3000, help="of scheduling")
    parser.add_argument("--out", type=Path, help="folder of sweeps.json (default: docs/figures, and docs/SWEEPS.md)")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts: {', '.join(PARTS)}")
    file = (args.out or ROOT / "docs" / "figures") / "sweeps.json"
    result = plain(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    make = {
        "overhead": lambda folder: overhead(folder, args.points),
        "fanout": lambda folder: fanout(folder, args.points, args.repeats),
        "many": lambda folder: many(folder, args.count, args.minutes),
        "scheduling": lambda folder: scheduling(folder, args.tasks),
    }
    try:
        for part in args.parts or PARTS:
            began = {"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0))}
            with tempfile.TemporaryDirectory(prefix="icd-sweeps-") as scratch:
                result[part] = make[part](Path(scratch)) | began
            result["environment"] = fingerprint()
            atomic_write(file, to_json(result))
            print(part, json.dumps(result[part]), flush=True)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.out is None:
        atomic_write(PAGE, with_marked(PAGE.read_text(encoding="utf-8"), "sweeps", table(result)))
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
