"""What a model can be exported for: the row of a runtime and a precision, and what speaks against it."""

from torch import nn

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.models.families import family_of
from icd_lib.runtimes import REFERENCE, RUNTIMES
from icd_lib.runtimes.base import Runtime, Users


def targets() -> dict[tuple[str, str], Runtime]:
    """(runtime, precision) → its row, of all that write files."""
    rows = {(row.engine, row.precision): row for row in RUNTIMES.values()}
    return {key: row for key, row in rows.items() if row.users}


def find_target(runtime: str, precision: str) -> Runtime:
    """The row that is exported for; `ConfigError` with what there is, `ResourceError` where a package is missing."""
    known = targets()
    precisions = [one for engine, one in known if engine == runtime]
    if not precisions:
        why = "keeps nothing on disk" if runtime in {row.engine for row in RUNTIMES.values()} else "is no runtime"
        raise ConfigError(
            f"runtime {runtime!r} {why}; export for one of {', '.join(dict.fromkeys(e for e, _ in known))}"
        )
    if (runtime, precision) not in known:
        raise ConfigError(f"{runtime} is not exported in {precision!r}; it takes one of {', '.join(precisions)}")
    row = known[runtime, precision]
    row.check()
    return row


def users_of(row: Runtime) -> Users:
    """How others load what is exported for a target."""
    assert row.users is not None, "targets have users"
    return row.users


def check_model(model: nn.Module, row: Runtime) -> None:
    """Raise `ConfigError` or `ResourceError` for a model that a folder of this runtime cannot hold."""
    if getattr(model, "config", None) is None:
        raise ConfigError(f"an export takes a model of transformers, with its config; got {type(model).__name__}")
    devices = {parameter.device.type for parameter in model.parameters()} - {"cpu"}
    if devices:
        raise ConfigError(f"an export takes a model on the CPU, this one is on {devices.pop()}; pass model.cpu()")
    family = family_of(model)
    if row.name == REFERENCE or family is None:
        return
    if family.no_onnx is not None:
        raise ResourceError(f"{type(model).__name__} cannot be exported for {row.engine}: {family.no_onnx}")
    if family.judge != "encoder":
        raise ResourceError(
            f"{type(model).__name__} cannot be exported for {row.engine}: the graph would have no cache and compute "
            f"all earlier tokens again for every new one; export it with runtime={REFERENCE!r}"
        )
