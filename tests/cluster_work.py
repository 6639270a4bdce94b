"""What the workers of a test's cluster do instead of running a point: note where and when, and die where asked."""

import errno
import json
import os
import signal
import time
from pathlib import Path

from sweep_factory import HERE, KEPT

from icd_lib.errors import ArtifactError
from icd_lib.execute.cluster import Done
from icd_lib.storage.atomic import write_error
from icd_lib.storage.machine import this_machine
from icd_lib.sweeps.outcome import Outcome

SECONDS = {"begin": 1.0, "solve": 20.0, "measure": 300.0, "report": 4000.0}


def note(job, part, begun_on=None):
    """Take a moment and write a line of who did it, from when to when."""
    began = time.time()
    time.sleep(0.3)
    if part == "solve" and (job.folder / "lost.json").is_file():
        lost_so_much(job)
    line = {"point": job.point.name, "part": part, "pid": os.getpid(), "from": began, "to": time.time()}
    line |= {"device": os.environ.get("CUDA_VISIBLE_DEVICES"), "machine": this_machine()}
    with open(job.folder / "notes.jsonl", "a") as file:
        file.write(json.dumps(line | {"begun_on": begun_on}) + "\n")
    outcome = Outcome(point=job.point.name, status="done", where=HERE) if part == "report" else None
    return Done(this_machine(), outcome, elapsed_s=SECONDS[part])


def lost_so_much(job):
    """Leave what a solved run leaves of its loss, as lost.json of the sweep's folder says it: name → pp."""
    lost = json.loads((job.folder / "lost.json").read_text())[job.point.name]
    solved = json.loads((KEPT.parent / "bert" / "iterative" / "solve.json").read_text())
    solved["validation"] |= {"drop_pp": lost, "se_pp": 0.1}
    path = job.folder / job.point.name / "iterative" / "solve.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(solved))


def die_once(job, part, begun_on=None):
    """As `note`, but the worker that does not time is killed when it first solves something."""
    first, timing = job.folder / "died", {entry["pid"] for entry in notes(job.folder)}
    if part == "solve" and os.getpid() not in timing and not first.exists():
        first.write_text(json.dumps({"pid": os.getpid(), "point": job.point.name}))
        os.kill(os.getpid(), signal.SIGKILL)
    return note(job, part, begun_on)


def die_timing(job, part, begun_on=None):
    """Who times is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_on_its_gpu(job, part, begun_on=None):
    """As `note`, but the worker of the second GPU is killed when it first solves something."""
    first = job.folder / "died"
    if part == "solve" and os.environ.get("CUDA_VISIBLE_DEVICES") == "GPU-b" and not first.exists():
        first.write_text(json.dumps({"pid": os.getpid(), "point": job.point.name}))
        os.kill(os.getpid(), signal.SIGKILL)
    return note(job, part, begun_on)


def die_before_the_report(job, part, begun_on=None):
    """As `note`, but the first worker that is to report is killed, and the next one is another machine."""
    first = job.folder / "died"
    if part == "report" and not first.exists():
        first.write_text(json.dumps({"pid": os.getpid(), "point": job.point.name}))
        os.kill(os.getpid(), signal.SIGKILL)
    return note(job, part, begun_on)


def fail(job, part, begun_on=None):
    """An error that has nothing to do with the point."""
    raise ZeroDivisionError("division by zero")


def fill_the_disk(job, part, begun_on=None):
    """The second point finds no room when it is solved; the others go on."""
    if part == "solve" and job.point.name.endswith("0.5"):
        reason = write_error(job.folder / "x", OSError(errno.ENOSPC, "full")).args[0]
        return Done("here", Outcome(point=job.point.name, status="failed", reason=reason, code=ArtifactError.code))
    return note(job, part, begun_on)


def notes(folder: Path) -> list[dict]:
    file = folder / "notes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
