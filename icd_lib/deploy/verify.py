"""An export loaded in fresh processes and compared with what it was exported from."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root
from icd_lib.runtimes import fresh
from icd_lib.runtimes.base import Users

# Of the largest output, and of the cosine of every row: the same graph on the same threads is the same to rounding.
TOLERANCE, LEAST_COSINE = 1e-3, 0.9999
# Of every token in another environment: other versions, and where the runtime rounds, other kernels.
USERS_COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.999}
_SECONDS = 600
TEXTS = (
    "The weather is lovely today.",
    "It is so sunny outside!",
    "Prices rose sharply in the third quarter, and the bank left its rate as it was.",
    "He drove to the stadium.",
)


@dataclass(frozen=True)
class Found:
    """Output of a loader, and what it told of itself: versions, and the precision where the runtime says it."""

    output: np.ndarray
    told: dict


def run_fresh(loader: str, folder: Path, given: dict, options: dict, python: str = sys.executable) -> Found:
    """Run an export in a process of its own, with a loader of `icd_lib.deploy.fresh`; `ArtifactError` if that fails.

    python: the interpreter, of whatever environment has the loader
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "given.npz", Path(scratch) / "found.npz"
        save_arrays(asked, given)
        # -P: beside the script lie modules called as the packages are that they import.
        words = [python, "-P", fresh.__file__, loader, str(folder), str(asked), str(answered), json.dumps(options)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, env=_environment(loader))
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(f"{loader} did not load the export within {_SECONDS} s") from error
        if done.returncode:
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
            raise ArtifactError(f"{loader} cannot load the export in a process of its own: {last.strip()[:300]}")
        with np.load(answered) as file:
            return Found(file["output"], json.loads(done.stdout.splitlines()[-1]))


def _environment(loader: str) -> dict[str, str]:
    """Variables for the process: the loader that is this project's own finds it wherever it lies."""
    if loader != "icd":
        return dict(os.environ)
    paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def save_arrays(path: Path, arrays: dict) -> None:
    """An .npz of arrays or what becomes one."""
    named: dict = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(path, allow_pickle=False, **named)


def compare(found: np.ndarray, expected: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """{"max_abs_error", "min_cosine"} over rows of the last dimension; places where the mask is 0 are nobody's output.

    Raises `ArtifactError` where the shapes differ.
    """
    if found.shape != expected.shape:
        raise ArtifactError(f"the export gives an output of shape {found.shape}, the model one of {expected.shape}")
    if mask is not None and found.ndim == 3:
        found, expected = found[mask.astype(bool)], expected[mask.astype(bool)]
    rows = [np.reshape(one, (-1, one.shape[-1])).astype(np.float64) for one in (found, expected)]
    lengths = np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
    cosine = (rows[0] * rows[1]).sum(1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return {"max_abs_error": float(np.abs(rows[0] - rows[1]).max()), "min_cosine": float(cosine.min())}


def check_same(loader: str, compared: dict[str, float], expected: np.ndarray) -> None:
    """Raise `ArtifactError` unless a comparison says that both are the same to rounding."""
    most = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if compared["max_abs_error"] <= most and compared["min_cosine"] >= LEAST_COSINE:
        return
    raise ArtifactError(
        f"{loader} gives outputs that differ from the exported model's by {compared['max_abs_error']:.3g} (at most "
        f"{most:.3g}) at a least cosine of {compared['min_cosine']:.6f} (at least {LEAST_COSINE})"
    )


def verify_plain(folder: Path, loader: str, given: dict, expected: np.ndarray, options: dict) -> dict:
    """Load with the runtime's own Python package and nothing else; what icd.json keeps of it."""
    found = run_fresh(loader, folder, given, options)
    compared = compare(found.output, expected, given.get("attention_mask"))
    check_same(loader, compared, expected)
    return {"status": "verified", **compared, **found.told}


def verify_sentences(folder: Path, users: Users, expected: np.ndarray, options: dict) -> dict:
    """Encode `TEXTS` with sentence-transformers where it can load this runtime, else say what is missing."""
    python = python_with(users)
    if python is None:
        return {"status": "not_measured", "reason": _absent(users)}
    loader = f"sentences_{users.backend}"
    found = run_fresh(loader, folder, {"texts": list(TEXTS)}, options, python)
    compared = compare(found.output, expected)
    check_same(loader, compared, expected)
    return {"status": "verified", **compared, **found.told}


def verify_optimum(
    folder: Path, users: Users, given: dict, expected: np.ndarray, options: dict, precision: str
) -> dict:
    """Load with optimum where there is one for this runtime, and compare every token, else say what is missing."""
    python = python_with(users)
    if python is None:
        return {"status": "not_measured", "reason": _absent(users)}
    loader = f"optimum_{users.backend}"
    found = run_fresh(loader, folder, given, options, python)
    compared = compare(found.output, expected, given.get("attention_mask"))
    if compared["min_cosine"] < USERS_COSINE[precision]:
        raise ArtifactError(
            f"{loader} gives outputs with a least cosine of {compared['min_cosine']:.6f} to the exported model's (at "
            f"least {USERS_COSINE[precision]} in {precision})"
        )
    return {"status": "verified", **compared, **found.told}


def _absent(users: Users) -> str:
    return f"{users.module} is neither in the environment it was made in nor in one of make test-exports"


def python_with(users: Users) -> str | None:
    """The interpreter in which sentence-transformers can load a runtime: this one, or one of make test-exports."""
    if _is_there("sentence_transformers") and _is_there(users.module):
        return sys.executable
    other = project_root() / ".venv-exports" / users.backend
    return str(other / "bin" / "python") if any(other.glob(".installed-*")) else None


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a module in a package that is not there
        return False
