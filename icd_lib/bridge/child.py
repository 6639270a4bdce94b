"""Import, passes and compile of one program in a process of its own: `python -m icd_lib.bridge.child FOLDER`.

FOLDER holds `job.json` and `program.pt2`; `done.json` is written beside the artifact, or `refused.json` with a reason.
A compiler that hangs or crashes takes nothing else along, and an artifact that computes something else is refused.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from icd_lib.bridge.engines import ENGINES
from icd_lib.bridge.load import OPENERS
from icd_lib.errors import ResourceError
from icd_lib.storage.json_text import read_text

JOB, PROGRAM, DONE, REFUSED = "job.json", "program.pt2", "done.json", "refused.json"
LARGEST_ERROR = 1e-3  # of the output's norm: far above rounding, far below a wrong result


def main(folder: str) -> int:
    """Exit status: 0 done, 3 refused."""
    work = Path(folder)
    job = read_text(work / JOB)
    program = torch.export.load(work / PROGRAM)
    try:
        told = ENGINES[job["engine"]](program, job, work)
        told["error"] = checked(program, job["engine"], work / told["artifact"])
    except ResourceError as error:
        (work / REFUSED).write_text(json.dumps({"reason": error.args[0]}))
        return ResourceError.exit_code
    (work / DONE).write_text(json.dumps(told))
    return 0


def checked(program: torch.export.ExportedProgram, engine: str, artifact: Path) -> float:
    """‖compiled − recorded‖ / ‖recorded‖ on the example inputs; `ResourceError` where that is no rounding."""
    args, kwargs = program.example_inputs
    with torch.no_grad():
        expected = program.module()(*args, **kwargs).double().numpy()
    found = OPENERS[engine](str(artifact))(*(tensor.numpy() for tensor in tree_leaves((args, kwargs))))
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not error <= LARGEST_ERROR:
        raise ResourceError(f"what was compiled is another function (relative error {error:.1g}), so it is not used")
    return error


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
