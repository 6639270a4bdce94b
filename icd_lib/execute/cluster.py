"""A sweep's points on Dask workers: models are solved wherever there is one, what times the machine runs alone.

A point has four parts. `begin` (set-up, width curves) and `measure` time the machine: they go to a worker with the
resource `timing`, one at a time, and nothing else runs meanwhile. Between them the points are solved on all workers at
once, and after them verdicts and pages are made, on all workers of the machine that measured. All workers see the
sweep's folder. A worker that dies costs its part a retry elsewhere; a point whose `measure` lands on another machine
than its `begin`, or whose machine is gone before its `report`, is run again from the start, since a run is of one
machine.

A worker that has a GPU of its own (`WORKER_DEVICE`) counts as a machine. There every part of a point runs on one
worker, and so do all points that are compared with each other; workers of other GPUs time theirs meanwhile.
"""

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.execute.kernel_server import WarmServers
from icd_lib.execute.point import PARTS, TIMED, Job, Part, attempt, stopped, this_machine, with_figures
from icd_lib.execute.where import VISIBLE, comparison_of
from icd_lib.experiment.arms import MODEL
from icd_lib.measure.environment import PACKAGES, versions
from icd_lib.optional import brief, load_optional
from icd_lib.paths import project_root
from icd_lib.run.artifacts import Run
from icd_lib.storage.machine import WORKER_DEVICE
from icd_lib.sweeps.outcome import Outcome
from icd_lib.sweeps.prune import too_much
from icd_lib.version import VERSION, sources_sha256
from icd_lib.workloads import kind_of

TIMING = "timing"  # the resource of a worker on which parts are timed
ROUND = 4  # points of a round for each worker
CONNECT_S = 60.0
PATIENCE_S = 60.0  # without a worker that could run a part
ASKED_EVERY_S = 1.0  # who is there
# A worker's own, from its first part to the end of the sweep. Where several solve on one machine, threads that wait
# must leave the cores to the others; what is timed waits as in any run. How a thread waits changes no number.
_SERVERS = {"timed": WarmServers(), "untimed": WarmServers({"OMP_WAIT_POLICY": "PASSIVE"})}
_AT_WORK = threading.Lock()
# Dask's command line, in a process that ends with the one that started it.
_DASK = """
import sys
from icd_lib.execute.kernel import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
from dask.__main__ import main
main()
"""


@dataclass(frozen=True)
class Done:
    """What a worker says of a part: how the point ended, if it did, where the part ran, and for how long."""

    machine: str
    outcome: Outcome | None = None
    elapsed_s: float = 0.0


def work(job: Job, part: Part, begun_on: str | None = None) -> Done:
    """Run a part on this worker; `begun_on`: the machine of the point's `begin`."""
    here = this_machine()
    parts: tuple[Part, ...] = (part,)
    if part == "measure" and begun_on != here:  # the machine that it began on is gone
        parts, job = PARTS, job.anew()

    def act(run: Run) -> None:
        if begun_on not in (None, here) and parts != PARTS:
            check_model(run)
        job.run(run, parts, echo=lambda line: None, servers=_SERVERS["timed" if part in TIMED else "untimed"])

    with _AT_WORK:
        outcome = attempt(job, act)
    if outcome.is_done and parts[-1] != PARTS[-1]:
        return Done(here, elapsed_s=outcome.elapsed_s)
    return Done(here, with_figures(job, outcome), outcome.elapsed_s)


def dismiss() -> None:
    """End what this worker's kernels come from, unless it is at work, for another sweep or one that was stopped."""
    if _AT_WORK.acquire(blocking=False):
        try:
            for servers in _SERVERS.values():
                servers.close()
        finally:
            _AT_WORK.release()


def check_model(run: Run) -> None:
    """Raise `ArtifactError` where this machine has another model under the name that the run began with."""
    if kind_of(run).lays_out != MODEL:
        return
    from icd_lib.workloads.model.contexts import make_context

    there = run.read_json("setup/setup.json")["model"]["sha256"]
    here = make_context(run, lambda line: None).checkpoint.sha256
    if there != here:
        raise ArtifactError(
            f"the model here has sha256 {here[:12]}, where the run began it has {there[:12]}; give all workers one copy"
        )


def describe_worker(marker: str) -> dict[str, Any]:
    """What has to be the same everywhere, and what tells workers apart; marker: a file in the sweep's folder."""
    return {
        "same": {"icd_lib": VERSION, "icd_lib's sources": sources_sha256(), **versions(PACKAGES)},
        "machine": this_machine(),
        "has_device": WORKER_DEVICE in os.environ,
        "sees_folder": Path(marker).is_file(),
    }


def check_workers(found: dict[str, Any], here: dict) -> None:
    """Raise `ResourceError` that names the worker that does not fit and what is wrong."""
    for address, told in found.items():
        if isinstance(told, BaseException):
            raise ResourceError(f"worker {address} cannot run icd_lib ({brief(told)}); install the same as here")
        for name, mine in here["same"].items():
            if told["same"].get(name) != mine:
                theirs = told["same"].get(name) or "none"
                raise ResourceError(
                    f"worker {address} has {name} {theirs}, this process {mine or 'none'}; figures of different "
                    "environments are not compared: install the same"
                )
        if not told["sees_folder"]:
            raise ResourceError(f"worker {address} does not see the sweep's folder; give an --out that all share")


def check_timing(machines: Iterable[str]) -> None:
    """Raise `ResourceError` where two workers that time are on one machine; `machines`: of each that times."""
    most = max(Counter(machines).values(), default=0)
    if most > 1:
        raise ResourceError(
            f"{most} workers with the resource {TIMING!r} are on one machine and would disturb each other; leave one "
            "of them"
        )


def run_parts(
    client: Any,
    jobs: list[Job],
    course: Any,
    work: Callable[..., Done] = work,
    patience_s: float = PATIENCE_S,
) -> None:
    """Run all parts of all jobs; every job ends in `course` (`icd_lib.execute.sweep.Course`).

    patience_s: after so long without a worker that could run a part, what waits for one has failed.
    """
    crew = Crew(client, course, work, patience_s)
    crew.muster()
    size = ROUND * len(crew.known)
    try:
        for start in range(0, len(jobs), size):
            left = crew.run(crew.run(jobs[start : start + size], "begin"), "solve")
            while left:
                crew.run(crew.run(left, "measure"), "report")
                left, crew.astray = crew.astray, []
    finally:  # workers may stay for other sweeps, and need not hold the libraries in memory for this one
        with contextlib.suppress(OSError):
            client.run(dismiss, on_error="ignore")


@dataclass
class Crew:
    """The workers of a sweep; known: address → what one that was checked said of itself.

    begun: point → the machine that times it; homes: comparison → its machine, where GPUs are divided; pinned: a
    part's future → the workers on one of which it has to run; spent: point → seconds of its parts so far; there:
    address → what the scheduler knew of a worker when it was `asked` last; astray: points that were measured on a
    machine that is gone.
    """

    client: Any
    course: Any
    work: Callable[..., Done] = work
    patience_s: float = PATIENCE_S
    known: dict[str, Any] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    homes: dict[tuple[str, str], str] = field(default_factory=dict)
    pinned: dict[Any, list[str]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    there: dict[str, dict] = field(default_factory=dict)
    asked: float = -math.inf
    astray: list[Job] = field(default_factory=list)

    def muster(self) -> None:
        """Ask all who are there and check them; `ResourceError` where one does not fit, or none times."""
        self.there, self.asked = workers_of(self.client), time.monotonic()
        if not self.there:
            raise ResourceError(
                "the scheduler has no worker; start one with: dask worker ADDRESS --no-nanny --nthreads 1"
            )
        self._check(list(self.there))
        if not any(map(times, self.there.values())):
            raise ResourceError(
                f"no worker has the resource {TIMING!r}, on which points are timed; start one a machine with: "
                "dask worker ADDRESS --no-nanny --nthreads 1 --resources timing=1"
            )

    def run(self, jobs: list[Job], part: Part) -> list[Job]:
        """A part of all jobs; gives those that go on, in the order in which they came."""
        prune, left = self.course.planned.options.prune, set()
        for job, done in self._ended(jobs, part):
            name = job.point.name
            self.spent[name] = self.spent.get(name, 0.0) + done.elapsed_s
            if done.outcome is not None:
                self._end(job, done.outcome)
            elif prune and part == "solve" and (reason := too_much(job.lost(), prune)):
                self._end(job, stopped(job, reason))
            else:
                if part != "solve":
                    self.begun[name] = done.machine
                left.add(name)
        return [job for job in jobs if job.point.name in left]

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Hand over how a point ended, with the time of all its parts."""
        self.course.end(job, outcome.but(elapsed_s=round(self.spent[job.point.name], 3)))

    def _ended(self, jobs: list[Job], part: Part) -> Iterator[tuple[Job, Done]]:
        """Every job with what became of its part, as they end; timed parts begin one a machine, and in time only."""
        timed, waiting, running, seen = part in TIMED, list(jobs), {}, time.monotonic()
        while waiting or running:
            here = self._workers()
            able = sum(map(times, here.values())) if timed else len(here)
            seen = time.monotonic() if able else seen
            while waiting and here and (not timed or len(running) < able):
                job = waiting.pop(0)
                if timed and (ended := self.course.ruled_out(job, is_begun=part == "measure")):
                    yield job, Done("", ended)
                elif part == "report" and not self._on(self.begun[job.point.name], here):
                    self.astray.append(job)
                else:
                    running[self._submit(job, part, timed)] = job
            finished = [future for future in running if future.done()]
            for future in finished:
                yield job_of(running, future)
            if not finished and time.monotonic() - seen > self.patience_s:
                self.client.cancel(list(running))
                who = f"no worker with the resource {TIMING!r}" if timed else "no worker"
                for job in [*running.values(), *waiting]:
                    yield job, failed(job, f"{who} is left to run its part {part!r}")
                return
            if not finished:
                waiting += [running.pop(future) for future in self._stranded(running)]
                self._wait(list(running))

    def _workers(self) -> dict[str, dict]:
        """Who is there, asked anew every `ASKED_EVERY_S` only: with a thousand workers the answer is long.

        Who joined meanwhile is checked as the first ones were.
        """
        if time.monotonic() - self.asked >= ASKED_EVERY_S:
            self.there, self.asked = workers_of(self.client), time.monotonic()
            if joined := [address for address in self.there if address not in self.known]:
                self._check(joined)
        return self.there

    def _check(self, joined: list[str]) -> None:
        """Keep who fits. Who does not answer is asked again with the next ones: it may be gone."""
        marker = str(self.course.folder / "sweep.json")
        told = self.client.run(describe_worker, marker, workers=joined, on_error="return")
        told = {address: answer for address, answer in told.items() if not is_silent(answer)}
        check_workers(told, describe_worker(marker))
        self.known |= told
        there = [address for address, answer in self.there.items() if times(answer) and address in self.known]
        check_timing(self.known[address]["machine"] for address in there)

    def _machine(self, address: str) -> str | None:
        told = self.known.get(address)
        return told["machine"] if told else None

    def _wait(self, futures: list) -> None:
        """Until one has ended, or it is time to look who is there; quietly, since something may be timed meanwhile."""
        if not futures:
            time.sleep(ASKED_EVERY_S)
            return
        distributed = load_optional("distributed")
        with self.client.as_current(), contextlib.suppress(TimeoutError):
            distributed.wait(futures, timeout=ASKED_EVERY_S, return_when="FIRST_COMPLETED")

    def _divides(self, here: Iterable[str]) -> bool:
        """Whether workers have GPUs of their own."""
        return any(self.known[address].get("has_device") for address in here if address in self.known)

    def _home(self, job: Job, here: Iterable[str]) -> str | None:
        """The machine of a point's comparison: the one that has fewest, kept as long as it is there."""
        machines = list(dict.fromkeys(filter(None, map(self._machine, here))))
        group = comparison_of(job)
        if self.homes.get(group) not in machines and machines:
            held = Counter(self.homes.values())
            self.homes[group] = min(machines, key=lambda machine: (held[machine], machine))
        return self.homes.get(group)

    def _on(self, machine: str | None, here: Iterable[str]) -> list[str]:
        """The workers of a machine."""
        return [address for address in here if machine is not None and self._machine(address) == machine]

    def _stranded(self, running: Iterable[Any]) -> list[Any]:
        """Parts whose workers are gone before they ended, taken back from the scheduler."""
        here = self._workers()
        if not here:  # a scheduler that knows of nobody is busy; whoever waits too long fails
            return []
        lost = [future for future in running if future in self.pinned and not here.keys() & self.pinned[future]]
        self.client.cancel(lost)
        return lost

    def _submit(self, job: Job, part: Part, timed: bool) -> Any:
        """Hand a part over: a measurement to the machine of the first part if that is still there, a report to no
        other.

        Where workers have GPUs of their own, every part goes to that of the point's comparison.
        """
        machine, here = self.begun.get(job.point.name), self.there
        divides = self._divides(here) and part != "report"
        goes_to = self._home(job, here) if divides else machine if part in ("measure", "report") else None
        there = self._on(goes_to, here)
        is_pinned = bool(there) and (divides or part == "report")
        future = self.client.submit(
            self.work,
            job,
            part,
            machine,
            key=f"{part}-{job.point.name}-{time.monotonic_ns()}",
            resources={TIMING: 1} if timed else None,
            workers=there or None,
            allow_other_workers=bool(there) and not is_pinned,
            pure=False,
        )
        if is_pinned:
            self.pinned[future] = there
        return future


def workers_of(client: Any) -> dict[str, dict]:
    """Address → what the scheduler knows of a worker."""
    return client.scheduler_info(n_workers=-1)["workers"]


def is_silent(answer: Any) -> bool:
    """Whether what came instead of an answer is Dask's error of a connection, which has no number of the system's."""
    return isinstance(answer, OSError) and answer.errno is None


def times(told: dict) -> bool:
    """Whether a worker, by what the scheduler knows of it, has the resource."""
    return bool(told.get("resources", {}).get(TIMING))


def job_of(running: dict[Any, Job], future: Any) -> tuple[Job, Done]:
    """The job of a future that has ended, taken out of `running`, and what its worker said, or why it said nothing."""
    job, error = running.pop(future), future.exception()
    if error is None:
        return job, future.result()
    if type(error).__name__ == "KilledWorker":
        return job, failed(job, "every worker that ran it died")
    return job, failed(job, f"{type(error).__name__}: {error}")


def failed(job: Job, reason: str) -> Done:
    """The end of a point of which no worker said anything."""
    return Done("", Outcome(point=job.point.name, status="failed", reason=reason, code=ResourceError.code))


@contextlib.contextmanager
def connected(cluster: str, workers: int = 1, devices: Sequence[str] = ()) -> Iterator[Any]:
    """A Dask client of `cluster`: "local" for processes of this machine, an address, or a scheduler file.

    workers: how many a local one has; devices: their GPUs, one each. Raises `ResourceError` where Dask is missing or
    nobody answers.
    """
    is_file = cluster != "local" and "://" not in cluster
    if is_file and not Path(cluster).is_file():
        raise ResourceError(
            f"there is no scheduler file {cluster}; --cluster takes local, none, an address such as tcp://host:8786, "
            "or the file that `dask scheduler --scheduler-file FILE` writes"
        )
    distributed = load_optional("distributed", "'icd-lib[cluster]'")
    with contextlib.ExitStack() as held:
        file = (
            held.enter_context(local_cluster(workers, devices)) if cluster == "local" else cluster if is_file else None
        )
        where = {"scheduler_file": file} if file else {"address": cluster}
        try:
            client = held.enter_context(distributed.Client(timeout=CONNECT_S, set_as_default=False, **where))
        except (OSError, TimeoutError, ValueError) as error:
            raise ResourceError(
                f"no scheduler answers at {cluster} ({type(error).__name__}); start one with: dask scheduler"
            ) from error
        with contextlib.suppress(TimeoutError):  # who uses it says what is missing
            client.wait_for_workers(workers, timeout=CONNECT_S)
        yield client


@contextlib.contextmanager
def local_cluster(workers: int, devices: Sequence[str] = ()) -> Iterator[str]:
    """Scheduler and workers as processes on loopback, the first worker with the resource; gives the scheduler's file.

    devices: one for each worker, which sees no other; then all have the resource. They end with the block.
    """
    with tempfile.TemporaryDirectory(prefix="icd-cluster-") as folder:
        file, started = Path(folder) / "scheduler.json", []
        common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
        try:
            started.append(_start("scheduler", "--port", "0", *common))
            _wait_for(file, started[0])
            for number in range(workers):
                resources = ["--resources", f"{TIMING}=1"] if number == 0 or devices else []
                sees = {VISIBLE: devices[number], WORKER_DEVICE: devices[number]} if devices else {}
                # Without a nanny, which would set OMP_NUM_THREADS: a run has its scenario's threads.
                given = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--local-directory", folder]
                started.append(_start("worker", *given, *resources, *common, environment=sees))
            yield str(file)
        finally:
            _terminate(started[1:])  # a worker takes its leave of the scheduler, and waits for one that is gone
            _terminate(started[:1])


def _start(*command: str, environment: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen:
    """A command of Dask's in a process that finds what this one imports."""
    return subprocess.Popen(
        [sys.executable, "-c", _DASK, str(os.getpid()), *command],
        cwd=project_root(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _terminate(processes: list[subprocess.Popen]) -> None:
    """Ask them to end, and kill what has not after ten seconds."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(file: Path, scheduler: subprocess.Popen) -> None:
    deadline = time.monotonic() + CONNECT_S
    while not file.is_file():
        if scheduler.poll() is not None or time.monotonic() > deadline:
            raise ResourceError("the local Dask scheduler did not start; look at what `dask scheduler` says")
        time.sleep(0.1)
