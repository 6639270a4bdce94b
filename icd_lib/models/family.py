"""A family of models as one row: everything that the rest of the software asks about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from icd_lib.models.adapter import Adapter

PACKAGED = Path(__file__).parent / "embedded"  # checkpoints that are files of this package


@dataclass(frozen=True)
class Embedded:
    """A checkpoint that comes along, found by its name.

    `folder()` is where it lies, None where it is not installed; `cure` is the command that brings it.
    """

    name: str
    folder: Callable[[], Path | None]
    cure: str


def packaged(name: str, cure: str) -> Embedded:
    """The checkpoint of that name in `PACKAGED`."""

    def folder() -> Path | None:
        found = PACKAGED / name
        return found if found.is_dir() else None

    return Embedded(name, folder, cure)


@dataclass(frozen=True)
class Layout:
    """Another form of checkpoints than Transformers' own, told by its config.json (a dict).

    `check(config, path)` raises `ArtifactError` or `ConfigError` for a config that describes no model; `read_config`
    gives the Transformers config of a folder; `check_weights(folder)` the weight files, read and found sound;
    `load(folder, dtype)` the model.
    """

    recognises: Callable[[dict], bool]
    check: Callable[[dict, Path], None]
    read_config: Callable[[Path], object]
    check_weights: Callable[[Path], list[Path]]
    load: Callable[[Path, torch.dtype], nn.Module]


@dataclass(frozen=True)
class Family:
    """A row of `icd_lib.models.families.FAMILIES`.

    label, signs: what it is called, and what its models are known by, in messages
    adapters: the first that accepts a model reads it
    model_types: Transformers' names of what is supported, by every door; axes_only: of what has axes, and nothing that
    can be removed by the loop. A class of Transformers with another name is refused, however it is built
    refused: such names that a reader may take for the family's, and why they are not read
    kinds: kinds of axes that its models have; judge: a row of `icd_lib.workloads.model.contexts.JUDGES`
    default: the checkpoint that stands for no choice; None where every scenario has to name one
    others: checkpoints that come along too, for who names them; layouts: other forms of its checkpoints
    tokenizer_of: family whose default's tokenizer comes with random weights, if not its own
    prepare: what every loaded model gets before anybody times it, in place
    make_uniform: copy of a pruned model in shapes that stock Transformers describes; None where there are none
    put_mask: zeroes weights of a model in place, for the masked model that is made here; None where none is
    no_onnx: why its models cannot be exported, None where they can
    classes: name → model class, of those that Transformers does not have
    tiny: tiny random models in float64 and their inputs, for the contract of families (`tests/models/test_contract.py`)
    """

    name: str
    label: str
    adapters: tuple[type[Adapter], ...]
    model_types: tuple[str, ...]
    kinds: tuple[str, ...]
    judge: str = "encoder"
    signs: str = ""
    axes_only: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    default: Embedded | None = None
    others: tuple[Embedded, ...] = ()
    layouts: tuple[Layout, ...] = ()
    tokenizer_of: str | None = None
    prepare: Callable[[nn.Module], None] | None = None
    make_uniform: Callable[[nn.Module], nn.Module] | None = None
    put_mask: Callable[..., None] | None = None
    no_onnx: str | None = None
    classes: Mapping[str, type] = field(default_factory=dict)
    tiny: Callable[[], Mapping[str, tuple[nn.Module, dict]]] | None = None

    @property
    def embedded(self) -> tuple[Embedded, ...]:
        """All checkpoints that come along, the default first."""
        return (*(() if self.default is None else (self.default,)), *self.others)

    @property
    def described(self) -> str:
        """The family in words, for messages: its label, how its models are built, and what they are called."""
        types = f"model_type {', '.join(self.model_types)}"
        return f"{self.label} ({self.signs}; {types})" if self.signs else f"{self.label} ({types})"

    def matches(self, model: nn.Module) -> bool:
        """Whether one of the adapters reads the model."""
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind in CONFIG_MAPPING_NAMES and kind not in (*self.model_types, *self.axes_only):
            return False
        return any(adapter.accepts(model) for adapter in self.adapters)

    def adapter(self, model: nn.Module) -> Adapter:
        """The adapter that reads the model, which has to match."""
        return next(adapter for adapter in self.adapters if adapter.accepts(model))(model)

    def layout_of(self, config: object) -> Layout | None:
        """The layout that the contents of a config.json are of; None: Transformers' own."""
        return next((layout for layout in self.layouts if isinstance(config, dict) and layout.recognises(config)), None)
