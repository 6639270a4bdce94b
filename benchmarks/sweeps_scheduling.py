"""A thousand workers: costs of Dask's real scheduler for each task, measured here, and a simulation with them.

What is measured, with one scheduler and two workers as processes on loopback: seconds of an empty task of a sweep from
hand-over to answer, many at once; the scheduler's own CPU time in it; and seconds of asking who is there, with two
workers and with many more, which share one process.

What is simulated: the rounds of `icd_lib.execute.cluster`. Points are begun on one worker of each machine, one at a
time, then solved on all workers, and then measured one at a time again, with verdict and pages; nothing is solved
meanwhile. Every task passes the scheduler one after the other and takes it all of the seconds that an empty task took
on the whole way, which is more than it needs; who is there is asked, and then not for a second, and nothing else is
done meanwhile. Workers are equally fast and none dies; nothing else limits them (disk, network, memory), so that what
it tells is an upper bound. What counts is the share of the workers' time in which they solve or time something, and
`ideal`, which no scheduler could exceed, the same with hand-overs that cost nothing.
"""

import heapq
import subprocess
import sys
import time
from pathlib import Path

import psutil

from icd_lib.execute.cluster import ASKED_EVERY_S, ROUND, connected, local_cluster, workers_of
from icd_lib.execute.point import Job
from icd_lib.sweeps.plan import sweep_of

WORKERS = (10, 100, 1000, 3000)
WORKERS_A_MACHINE = 8
POINTS_A_WORKER = 8
MORE = 100  # workers of one process, to see what each costs who asks
_MORE = """
import asyncio, sys
from distributed import Worker
async def main(address, count):
    workers = [Worker(address, nthreads=1, memory_limit=0, dashboard=False, name=f"more-{i}") for i in range(count)]
    await asyncio.gather(*workers)
    await asyncio.Event().wait()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
# (name, seconds of begin, solve, and measure with report, what they stand for)
CASES = (
    ("seconds of bert", (130.0, 110.0, 350.0), "stages of `bert` as first estimated: 130, 110 and 350 s"),
    ("mostly solving", (30.0, 3600.0, 60.0), "30 s to begin, an hour to solve, 60 s to measure"),
    ("tiny points", (8.0, 14.0, 13.0), "8, 14 and 13 s, as the tiny points above"),
)


def nothing(job: Job, part: str, begun_on: str | None) -> str:
    """What an empty task gives."""
    return part


def measure_scheduler(scratch: Path, tasks: int, workers: int = 2) -> dict:
    """Seconds a task takes of the whole way, and of the scheduler alone; and of asking who is there."""
    point = sweep_of({"base": "mock", "grid": {"seed": [0]}}, "one").points[0]
    job = Job(point, scratch, str(scratch))
    before = set(psutil.Process().children())
    with local_cluster(workers) as file, connected(file) as client:
        scheduler = min(set(psutil.Process().children()) - before, key=lambda process: process.create_time())
        client.wait_for_workers(workers, timeout=60)
        client.gather([_hand_over(client, job, place) for place in range(100)])  # connections and imports
        used, began = _cpu_s(scheduler), time.perf_counter()
        client.gather([_hand_over(client, job, place) for place in range(tasks)])
        seconds, used = time.perf_counter() - began, _cpu_s(scheduler) - used
        few = _asking_s(client)
        more = subprocess.Popen([sys.executable, "-c", _MORE, client.scheduler.address, str(MORE)])
        try:
            client.wait_for_workers(workers + MORE, timeout=120)
            many = _asking_s(client)
        finally:
            more.kill()
            more.wait()
    return {
        "tasks": tasks,
        "workers": workers,
        "task_s": seconds / tasks,
        "scheduler_s": used / tasks,
        "ask_s": few,
        "ask_s_a_worker": max(0.0, many - few) / MORE,
        "more_workers": MORE,
    }


def _asking_s(client) -> float:
    """The shortest of thirty: whatever else the machine does comes on top."""
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        workers_of(client)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _hand_over(client, job: Job, place: int):
    return client.submit(nothing, job, "solve", None, key=f"empty-{place}-{time.monotonic_ns()}", pure=False)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def simulate_all(costs: dict) -> dict:
    """Every case with every number of workers."""
    cases = []
    for name, parts, words in CASES:
        sizes = []
        for workers in WORKERS:
            asked = costs["ask_s"] + workers * costs["ask_s_a_worker"]  # and then not for `ASKED_EVERY_S`
            real = simulate(workers, parts, costs["task_s"] * (1 + asked / ASKED_EVERY_S))
            ideal = simulate(workers, parts, 0.0)
            sizes.append({"workers": workers, "efficiency": real, "ideal": ideal})
        cases.append({"name": name, "words": words, "sizes": sizes})
    shortest = {str(workers): workers * costs["task_s"] for workers in WORKERS}
    made = {"workers_a_machine": WORKERS_A_MACHINE, "points_a_worker": POINTS_A_WORKER, "shortest_solve_s": shortest}
    return made | {"cases": cases}


def simulate(
    workers: int, parts: tuple[float, float, float], task_s: float, each: int = WORKERS_A_MACHINE, round_: int = ROUND
) -> float:
    """Share of the workers' time in which they solve or time something.

    task_s: seconds for which the scheduler is busy with a task; each: workers of a machine, of which one times.

    >>> simulate(10, (0.0, 60.0, 0.0), 0.0), simulate(8, (10.0, 0.0, 10.0), 0.0)
    (1.0, 0.125)
    """
    machines = -(-workers // each)
    points, now = POINTS_A_WORKER * workers, 0.0
    for start in range(0, points, round_ * workers):
        count = min(round_ * workers, points - start)
        for seconds, lanes in zip(parts, (machines, workers, machines), strict=True):
            now = _part(now, count, seconds, lanes, task_s)
    return points * sum(parts) / (workers * now)


def _part(now: float, count: int, seconds: float, lanes: int, task_s: float) -> float:
    """When `count` tasks have ended that `lanes` work on, each handed over by a scheduler that does one at a time."""
    free, scheduler, last = [now] * lanes, now, now
    for _ in range(count):
        begun = max(heapq.heappop(free), scheduler) + task_s
        scheduler = max(scheduler, begun - task_s) + task_s
        last = max(last, begun + seconds)
        heapq.heappush(free, begun + seconds)
    return last
