"""A package opened for reading: refused before anything is unpacked if it could harm, and read with limits.

Nothing is written to disk and nothing in it is executed.
"""

import hashlib
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.paths import unsafe_name, user_path
from icd_lib.storage.json_text import parse_json

FORMAT = "icd-package/1"
CONTENTS, ASSETS = "contents.json", "assets.json"
MAX_FILES = 20_000
MAX_FILE_BYTES = 2**28
MAX_BYTES = 2**31
MAX_RATIO = 200  # of unpacked to packed size; pages of one repeated byte are what a zip bomb is made of


class PackageFile:
    """A package's names and bytes; `ArtifactError` from the constructor if it is no safe zip file."""

    def __init__(self, path: Path | str):
        self.path = user_path(path)
        try:
            self.zip = zipfile.ZipFile(self.path)
        except FileNotFoundError as error:
            raise ArtifactError(f"there is no file {path}; make one with: make pack") from error
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ArtifactError(f"{path} is no zip file, or it is damaged ({error})") from error
        try:
            self.names = self._check_members()
        except ArtifactError:
            self.zip.close()
            raise

    def __enter__(self) -> "PackageFile":
        return self

    def __exit__(self, *_) -> None:
        self.zip.close()

    def _check_members(self) -> list[str]:
        members = self.zip.infolist()
        if len(members) > MAX_FILES:
            raise ArtifactError(f"{self.path.name} lists {len(members)} files, at most {MAX_FILES} are read")
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise ArtifactError(f"{self.path.name} would unpack to more than {MAX_BYTES} bytes")
        seen: set[str] = set()
        for member in members:
            name = member.orig_filename if "\0" in member.orig_filename else member.filename
            if why := _unsafe_member(member, name):
                raise ArtifactError(f"{self.path.name}: the entry {name[:80]!r} {why}; nothing of it is read")
            if (folded := name.casefold()) in seen:
                raise ArtifactError(f"{self.path.name}: the entry {name[:80]!r} is there twice; nothing of it is read")
            seen.add(folded)
        return sorted(member.filename for member in members)

    def read(self, name: str) -> bytes:
        """A file's bytes; `ArtifactError` if it is missing or damaged."""
        try:
            return self.zip.read(name)
        except KeyError as error:
            raise ArtifactError(f"{self.path.name} has no {name}") from error
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, struct.error) as error:
            raise ArtifactError(f"{self.path.name}: {name} is damaged ({error})") from error

    def read_json(self, name: str):
        """A JSON file of the package."""
        return parse_json(self.read(name), name)

    def sha256(self, name: str) -> str:
        """Hex sha256 of a file."""
        return hashlib.sha256(self.read(name)).hexdigest()


def _unsafe_member(member: zipfile.ZipInfo, name: str) -> str | None:
    if why := unsafe_name(name):
        return why
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir() or kind not in (0, stat.S_IFREG):
        return "is a link, a folder or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that packages are not"
    if member.file_size > MAX_FILE_BYTES:
        return f"would unpack to {member.file_size} bytes"
    if member.file_size > 2**20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        return f"would unpack to more than {MAX_RATIO} times its size"
    return None
