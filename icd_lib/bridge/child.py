"""Import, passes and compile of one program in a process of its own: `python -m icd_lib.bridge.child FOLDER`.

FOLDER holds `job.json` and `program.pt2`; `done.json` is written beside the artifact, or `refused.json` with a reason.
A compiler that hangs or crashes takes nothing else along.
"""

import json
import sys
from pathlib import Path

import torch

from icd_lib.bridge.engines import ENGINES
from icd_lib.errors import ResourceError
from icd_lib.storage.json_text import read_text

JOB, PROGRAM, DONE, REFUSED = "job.json", "program.pt2", "done.json", "refused.json"


def main(folder: str) -> int:
    """Exit status: 0 done, 3 refused."""
    work = Path(folder)
    job = read_text(work / JOB)
    program = torch.export.load(work / PROGRAM)
    try:
        told = ENGINES[job["engine"]](program, job, work)
    except ResourceError as error:
        (work / REFUSED).write_text(json.dumps({"reason": error.args[0]}))
        return ResourceError.exit_code
    (work / DONE).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
