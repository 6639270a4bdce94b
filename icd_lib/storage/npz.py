"""Arrays in npz files: written wholly or not at all, and read only if they are what they say they are."""

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ArtifactError
from icd_lib.storage.atomic import atomic_write

MAX_BYTES = 2**34  # of one file's arrays: a billion edges
MAX_RATIO = 2000  # of unpacked to packed; zlib cannot do better than 1032
LEVEL = 3  # of zlib: four times as fast as its own 6 on a graph, and 5 % more bytes


def save_graph(path: Path, graph, *, compressed: bool = True) -> Path:
    """Write W as scipy's npz, atomically; the same bytes for the same graph."""
    graph, buffer = sp.csr_matrix(graph), io.BytesIO()
    arrays = {name: getattr(graph, name) for name in ("indices", "indptr", "shape", "data")}
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method, compresslevel=LEVEL) as archive:
        for name, array in (arrays | {"format": graph.format.encode()}).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return atomic_write(path, buffer.getvalue())


def load_graph(path: Path) -> sp.csr_array:
    """W as `save_graph` wrote it, not yet checked (`check_w`); `ArtifactError` when damaged or absurd."""
    check_npz(path, {"data": 1, "indices": 1, "indptr": 1, "shape": 1, "format": 0})
    try:
        graph = sp.load_npz(path)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    if graph.format != "csr":
        raise ArtifactError(f"{path} holds a {graph.format} matrix, W is csr; make it again with --force")
    return sp.csr_array(graph)


def load_arrays(path: Path, dimensions: dict[str, int]) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name; `dimensions` says which there are and of how many dimensions."""
    check_npz(path, dimensions)
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in dimensions}
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def check_npz(path: Path, dimensions: dict[str, int]) -> None:
    """Raise `ArtifactError` unless every array is there, holds plain numbers or text, and is as long as it says.

    Nothing is allocated for it: an array's header could claim terabytes, and a few bytes unpack to gigabytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            _check_members(path, archive, members)
            for name, count in dimensions.items():
                if f"{name}.npy" not in members:
                    raise ArtifactError(f"{path} has no array {name!r}; make it again with --force")
                _check_header(path, archive, members[f"{name}.npy"], count)
    except _DAMAGED as error:
        raise _damaged(path, error) from error


_DAMAGED = (OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
# What a damaged container, and the header of an array, which is a Python literal, can raise besides.
_DAMAGED += (struct.error, SyntaxError, tokenize.TokenError, MemoryError, OverflowError)


def _check_members(path: Path, archive: zipfile.ZipFile, members: dict) -> None:
    if len(members) != len(archive.infolist()) or len(members) > 100:
        raise ArtifactError(f"{path} has an array twice, or too many; make it again with --force")
    total = sum(member.file_size for member in members.values())
    packed = max(1, sum(member.compress_size for member in members.values()))
    if total > MAX_BYTES or (total > 2**20 and total > MAX_RATIO * packed):
        raise ArtifactError(f"{path} would unpack to {total} bytes; make it again with --force")


def _check_header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, count: int) -> None:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = reader(file)
        size = dtype.itemsize
        for length in shape:
            size *= length
        if dtype.hasobject or dtype.names or len(shape) != count or min(shape, default=0) < 0:
            raise ArtifactError(f"{path}: {member.filename} is no array of numbers with {count} dimension(s)")
        if file.tell() + size != member.file_size:
            raise ArtifactError(f"{path}: {member.filename} is not as long as it says; make it again with --force")


def _damaged(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} is missing; make it with --resume")
    return ArtifactError(f"{path} is damaged ({error}); make it again with --force")
