"""An .mlir file from elsewhere: parsed and described, and never compiled or run before that is asked for."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from icd_lib.bridge.gathers import Gathers
from icd_lib.bridge.mlir import gathers, lower, parse, weights_in
from icd_lib.bridge.mlir.module import operations
from icd_lib.errors import ArtifactError
from icd_lib.paths import user_path

MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Foreign:
    """What a file says. functions: name → type; operators: name → how often; weights: names of its resources."""

    path: Path
    functions: dict[str, str]
    operators: dict[str, int]
    weights: tuple[str, ...]
    gathers: Gathers

    def compile(self, artifact: Path | str) -> Path:
        """Compile it with IREE for this CPU: the first time that anything is done with it but read."""
        lower(self.path, user_path(artifact))
        return user_path(artifact)


def read_mlir(path) -> Foreign:
    """Parse a file of StableHLO; `ArtifactError` with the line where it is none, or it is larger than 2 GiB."""
    file = user_path(path)
    if not file.is_file():
        raise ArtifactError(f"no file {file.name}; give the path of an .mlir file")
    if file.stat().st_size > MOST_BYTES:
        raise ArtifactError(f"{file.name} has more than 2 GiB, which StableHLO's tools do not read")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file.name} is no text (byte {error.start}); give MLIR in its textual form") from error
    module = parse(text, file.name)
    functions = {
        str(item.operation.attributes["sym_name"]).strip('"'): str(item.operation.attributes["function_type"])
        for item in module.body.operations
        if "function_type" in item.operation.attributes
    }
    operators = Counter(operation.name for operation in operations(module))
    return Foreign(file, functions, dict(operators), weights_in(module), gathers(module))
