"""What every stage of a model needs from the scenario: the model, its text, the judge of quality, fixed inputs."""

import contextlib
import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from icd_lib.data.batches import encode, fixed_batch, token_batches
from icd_lib.data.domains import GROUPS, DomainGroups, group_domains
from icd_lib.data.labelled import load_own_domain
from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.measure.battery import Battery
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.room import fitting_dtype, outline
from icd_lib.models.checkpoint.source import Checkpoint, mask_checkpoint, random_checkpoint, resolve_checkpoint
from icd_lib.models.families import find_adapter
from icd_lib.progress import follow
from icd_lib.records.deploy import Deploy
from icd_lib.run.artifacts import Run
from icd_lib.runtimes import reference_of, rows_of
from icd_lib.runtimes.exactness import multiply_in_full
from icd_lib.runtimes.target import Target
from icd_lib.storage.devices import AUTO, Device, find_device, why_on_cpu
from icd_lib.storage.machine import kept_file, processor
from icd_lib.storage.record_json import from_json
from icd_lib.storage.tensor_file import load_tensors, save_tensors
from icd_lib.transforms import applying
from icd_lib.version import sources_sha256
from icd_lib.workloads.model.room import Needs, check_machine, needs_of

CERTIFICATE_SHAPE = (2, 24)  # enough tokens for an equality check, few enough for float64 to be instant
EMBEDDED = ("auto", "bible")  # values of data.name that bring no text of the user's own
DEPLOY_BATCHES = 8  # of calibration text that a runtime's own int8 is calibrated on
JUDGING = ("decoding", "measure", "models", "runtimes")  # folders whose code decides what is judged of a decoder
Found = TypeVar("Found")
RANDOM_WEIGHTS = "random weights: a latency-only run, quality is not measured"


@dataclass
class Context(ABC):
    """Loaded lazily, so that a stage pays only for what it uses; computes on the threads that torch has."""

    run: Run
    progress: Callable[[str], None] = print

    def __post_init__(self):
        self._dense: dict[str, object] = {}
        self.left_out: dict[str, str] = {}  # arm → why it was not timed

    def get(self, path: str):
        """A value of the scenario."""
        return self.run.scenario.get(path)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        if self.get("model.weights") == "random":
            return random_checkpoint(self.get("model.shape"), self.get("seed"), self.get("model.family"))
        found = resolve_checkpoint(
            self.get("model.checkpoint"), revision=self.get("model.revision"), family=self.get("model.family")
        )
        mask = self.run.scenario.config.get("masked")
        return mask_checkpoint(found, mask) if mask and self.get("model.checkpoint") is None else found

    @cached_property
    def _loaded(self) -> tuple[nn.Module, object]:
        return load_model(self.checkpoint, self.dtype)

    @cached_property
    def dtype(self) -> torch.dtype:
        """What the dense model's weights are to be loaded in."""
        return fitting_dtype(self.checkpoint, self.get("model.dtype"))

    @cached_property
    def needs(self) -> Needs:
        """What the run takes on a GPU; nothing of the model is allocated for the answer."""
        return needs_of(self, outline(self.checkpoint, self.dtype))

    @property
    def model(self) -> nn.Module:
        return self._loaded[0]

    @cached_property
    def device(self) -> Device:
        """Where the run computes: as stage 00 found."""
        if self.run.scenario.config.get("device") is None:
            return Device()
        entry = self.run.read_json("setup/setup.json").get("device")
        known = from_json(Device, entry, "setup/setup.json") if entry else self.find_device()
        found = replace(find_device(known.name), why=known.why)
        return self.settled(found)

    def settled(self, device: Device) -> Device:
        """The device as this process's own, which is the run's: what names none goes there, and fp32 is fp32."""
        if device.torch.type == "cuda":
            torch.cuda.set_device(device.torch)
            multiply_in_full()
        return device

    def find_device(self) -> Device:
        """The device that the scenario asks for, with the memory that the run needs there and here free.

        Asked before anything of the model is allocated.
        """
        config = self.run.scenario.config
        asked = config.get("device")
        if asked == AUTO and (why := why_on_cpu(config)):
            return Device(why=f"auto: {why}")
        if (found := find_device(asked)).is_cpu:
            return found
        found = find_device(asked, self.needs.device)
        if found.is_cpu:
            return found
        try:
            check_machine(self.needs, self.run.dir, f"device={asked}")
        except ResourceError as error:
            if asked != AUTO:
                raise
            return Device(why=f"auto: {error.args[0]}")
        return found

    @cached_property
    def dense(self) -> nn.Module:
        """The dense model where the run computes: the loaded one, or its one copy on a device."""
        return self.model if self.device.is_cpu else copy.deepcopy(self.model).to(self.device.torch)

    @property
    def tokenizer(self):
        return self._loaded[1]

    @property
    def is_trained(self) -> bool:
        return self.checkpoint.weights == "trained"

    @cached_property
    def example(self) -> dict:
        rows, tokens = CERTIFICATE_SHAPE
        return self.fixed(rows, min(tokens, find_adapter(self.model).max_tokens() or tokens))

    @cached_property
    def target(self) -> Target:
        """Where the run's models are deployed: the one runtime that fits, or as stage 00 found."""
        names = rows_of(*self.asked_runtime, self.device.name)
        if len(names) == 1:
            return self.deployed(names[0])
        entry = self.run.read_json("setup/setup.json").get("deploy")
        found = from_json(Deploy, entry, "setup/setup.json").runtime if entry else reference_of(self.device.name)
        return self.deployed(found)

    @property
    def asked_runtime(self) -> tuple[str, str]:
        """Engine and precision, as the scenario asks for them."""
        return self.get("deploy.runtime"), self.get("deploy.precision")

    @cached_property
    def reference(self) -> Target:
        """PyTorch eager where the run computes: what outputs and quality are compared with."""
        return self.deployed(reference_of(self.device.name, self.precision))

    @property
    def precision(self) -> str:
        """What nothing is rounded in: fp32, but that of its weights for a model in bfloat16 on a GPU."""
        is_half = next(self.model.parameters()).dtype == torch.bfloat16
        return "bf16" if is_half and not self.device.is_cpu else "fp32"

    @property
    def rounds(self) -> bool:
        """Whether models are deployed with fewer bits than the dense model has."""
        return self.target.row.rounds and self.target.row.precision != self.precision

    @cached_property
    def plain_target(self) -> Target | None:
        """The engine in which models are deployed, with nothing rounded; None where it has no such row."""
        names = rows_of(self.target.row.engine, self.precision, self.device.name)
        return self.deployed(names[0]) if names else None

    def deployed(self, runtime: str) -> Target:
        """A runtime, with the text that int8 is calibrated on."""
        return Target.named(runtime, self.deploy_calibration if runtime.endswith("int8") else (), self.device.name)

    @property
    def config(self) -> Mapping:
        """The scenario's configuration, without a quantization that it asks for elsewhere only."""
        return applying(self.run.scenario.config, self.target.row.precision)

    @cached_property
    def deploy_calibration(self) -> list[dict]:
        """Batches of the calibration text that int8 is calibrated on, from all of its domains."""
        batches = self.calibration(64, 1024)
        return batches[:: max(1, len(batches) // DEPLOY_BATCHES)]

    @property
    def deploy_shapes(self) -> list[tuple[int, int]]:
        """Batch and length of the calls that the plan is for."""
        return self.get("deploy.shapes") or self.get("measure.shapes")[:1]

    def probes(self) -> list[dict]:
        """A few of the calibration batches, padded rows among them, for `check_model`."""
        return self.calibration(32, 512)

    @property
    def selecting(self) -> str:
        """The split on which strengths are chosen; it calibrates nothing and is never the one that judges."""
        return "selection" if self.judging == "unseen" else "validation"

    @property
    def judging(self) -> str:
        """The split that the quality budget is for, judged once at the end."""
        return self.get("codesign.budget_on")

    def check_text(self) -> None:
        """Raise `ResourceError` unless there is text to choose strengths on, and text that the budget is for."""
        for split in (self.selecting, self.judging):
            if not any(len(text) for text in self.suite.judged.get(split, {}).values()):
                missing = self.describe_data().get("missing", {})
                why = "; ".join(missing.values()) or "no domain is named"
                raise ResourceError(
                    f"no text for the split '{split}': {why}; run make fetch_data, or name other domains"
                )

    @property
    def judged(self) -> list[str]:
        """Splits that every arm is judged on at the end, the budget's first; those without any text are left out."""
        order = ["unseen", "seen"] if self.judging == "unseen" else ["seen", "unseen"]
        return [split for split in order if self.suite.judged.get(split)]

    def dense_result(self, split: str):
        """The dense model's result on a split: computed once per machine, kept in the run for its other stages."""
        if split not in self._dense:
            self._dense[split] = self._find_dense(split)
        return self._dense[split]

    def _find_dense(self, split: str):
        path = self.run.path("setup", f"dense_{split}.safetensors")
        if path.is_file():
            return self.suite.load_result(path)
        told = f"dense on {split} text"
        result = self.kept_result(
            self._shared_file("dense", self.suite.sha256s[split]),
            told,
            lambda: self.suite.evaluate(self.dense, split, follow(self.progress, told)),
        )
        self.suite.save_result(result, path)
        return result

    def deployed_result(self, split: str, told: str, how: dict, make: Callable[[], Any]):
        """Dense's result on a split in a runtime: computed once per machine and `how`, the runtime in JSON."""
        text = {"split": self.suite.sha256s[split], "how": how, "code": sources_sha256(*JUDGING)}
        return self.kept_result(self._shared_file("deployed", text), told, make)

    def kept_result(self, file: Path, told: str, make: Callable[[], Any]):
        """A result of the suite: what this machine keeps in `file`, or else what `make` gives; told: what it is of."""
        if file.is_file():
            with contextlib.suppress(ArtifactError):
                result = self.suite.load_result(file)
                self.progress(f"{told}: kept from an earlier run on this machine")
                return result
        result = make()
        with contextlib.suppress(ArtifactError):  # a cache that cannot be written costs time only
            self.suite.save_result(result, file)
        return result

    def of_dense(self, kind: str, of: dict, sort: type[Found], make: Callable[[], Found]) -> Found:
        """What the dense model gave, a dataclass `sort` of arrays: computed once per machine.

        of: what it depends on besides the model and the code, in JSON
        """
        path = self._shared_file(kind, of | {"code": sources_sha256(*JUDGING)})
        if path.is_file():
            with contextlib.suppress(ArtifactError, TypeError):  # damaged, or of other fields: computed anew
                return sort(**load_tensors(path)[0])
        found = make()
        with contextlib.suppress(ArtifactError):
            save_tensors({name: array for name, array in vars(found).items() if array is not None}, path, {})
        return found

    def _shared_file(self, kind: str, text) -> Path:
        """Where this machine keeps what the dense model gave: one file per model, text, threads and torch."""
        key = {
            "model": self.checkpoint.sha256,
            "dtype": str(next(self.model.parameters()).dtype),
            "text": text,
            "threads": torch.get_num_threads(),
            **processor(),
            **self.device.key,
            "torch": torch.__version__,
        }
        return kept_file(kind, key).with_suffix(".safetensors")

    def dense_states(self, text: str) -> Path:
        """Where this machine keeps what the dense model's head reads on a text of this name."""
        return self._shared_file("states", text)

    @property
    @abstractmethod
    def data(self):
        """Text in groups and splits that share none."""

    @property
    @abstractmethod
    def calibration_sha256(self) -> str:
        """Identity of the text that calibration draws from."""

    @property
    @abstractmethod
    def suite(self):
        """The judge: `judged`, `sha256s` (split → domain → …), `evaluate`, `compare`, `save_result`, `load_result`."""

    @abstractmethod
    def describe_data(self) -> dict:
        """The text, for setup.json: {"name", "groups", "provenance", ...}."""

    @abstractmethod
    def calibration(self, count: int, tokens: int) -> list[dict]:
        """At most `count` unlabelled calibration items in batches of about `tokens` tokens."""

    @abstractmethod
    def fixed(self, batch: int, length: int) -> dict:
        """Real text in exactly (batch, length) tokens."""


class EncoderContext(Context):
    """A text encoder, judged by labelled tasks, topics and retrieval in many domains."""

    @cached_property
    def data(self) -> DomainGroups:
        get, given = self.get, {}
        if get("data.name") not in EMBEDDED:
            given["own"] = load_own_domain(get("data.name"), seed=get("seed"))
        return group_domains(
            [*given, *get("data.seen")],
            get("data.selection"),
            get("data.unseen"),
            given=given,
            test_items=get("data.test_items"),
            validation_items=get("data.validation_items"),
            seed=get("data.split_seed"),
        )

    @property
    def calibration_sha256(self) -> str:
        texts = (text for texts in self.data.calibration.values() for text in texts)
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    @cached_property
    def suite(self) -> Battery:
        return Battery(self.data.judged, self.tokenizer, max_length=self.get("data.max_length"))

    def describe_data(self) -> dict:
        name = self.get("data.name")
        return {
            "name": "domains of text" if name in EMBEDDED else name,
            "groups": {group: list(self.get(f"data.{group}")) for group in GROUPS},
            **self.data.describe(),
        }

    def calibration(self, count: int, tokens: int) -> list[dict]:
        texts = self.data.draw(count, self.get("seed"))
        sequences = encode(self.tokenizer, texts, self.get("data.max_length"))
        return [
            {"input_ids": input_ids, "attention_mask": mask} for _, input_ids, mask in token_batches(sequences, tokens)
        ]

    def fixed(self, batch: int, length: int) -> dict:
        texts = [text for texts in self.data.calibration.values() for text in texts]
        return fixed_batch(self.tokenizer, texts, batch, length)
