"""Partitions by METIS that are the same whatever other threads do.

METIS seeds and draws from C's `rand`, one for all threads of a process. Two calls that agree were disturbed by none;
once two differ a process of its own, which has no other threads, says what it is.
"""

import io
import subprocess
import sys

import numpy as np

from icd_lib.errors import ResourceError
from icd_lib.optional import load_optional

_ALONE = """
import io, sys
import numpy as np, pymetis
given = np.load(io.BytesIO(sys.stdin.buffer.read()))
adjacency = pymetis.CSRAdjacency(given["starts"], given["neighbours"])
parts, seed = int(given["parts"]), int(given["seed"])
found = pymetis.part_graph(
    parts, adjacency, eweights=given["weights"], recursive=True, options=pymetis.Options(seed=seed)
)
sys.stdout.buffer.write(np.asarray(found[1], dtype=np.int64).tobytes())
"""


def bisected(
    starts: np.ndarray, neighbours: np.ndarray, weights: np.ndarray, parts: int, seed: int, *, apart: bool = False
) -> np.ndarray:
    """Part of each vertex, int64 (D,), by recursive bisection (Karypis & Kumar 1998) of a graph in CSR form.

    weights: of the edges, whole numbers; apart: ask the process of its own at once. Raises `ResourceError` without
    pymetis, or where that process cannot be started.
    """
    pymetis = load_optional("pymetis")
    adjacency, options = pymetis.CSRAdjacency(starts, neighbours), pymetis.Options(seed=seed)

    def partition() -> np.ndarray:
        found = pymetis.part_graph(parts, adjacency, eweights=weights, recursive=True, options=options)
        return np.asarray(found[1], dtype=np.int64)

    first = None if apart else partition()
    if first is not None and np.array_equal(first, partition()):
        return first
    return _alone(starts=starts, neighbours=neighbours, weights=weights, parts=parts, seed=seed)


def _alone(**given) -> np.ndarray:
    with io.BytesIO() as held:
        np.savez(held, **given)
        try:
            done = subprocess.run([sys.executable, "-P", "-c", _ALONE], input=held.getvalue(), capture_output=True)
        except OSError as error:
            raise ResourceError(f"METIS needs a process of its own here, which cannot be started: {error}") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ResourceError(f"METIS in a process of its own ended with {done.returncode}: {last[0]}")
    return np.frombuffer(done.stdout, dtype=np.int64)
