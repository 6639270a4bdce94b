"""What every stage needs from the scenario: the model, its text, the judge of quality, fixed-shape inputs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from icd_lib.artifacts import Run
from icd_lib.data.batches import encode, fixed_batch, token_batches
from icd_lib.data.docstrings import split_docstrings
from icd_lib.data.load import load_text_data
from icd_lib.data.text import TextData
from icd_lib.measure.quality import EncoderSuite, QualityResult
from icd_lib.models.loading import load_model
from icd_lib.models.source import Checkpoint, random_checkpoint, resolve_checkpoint
from icd_lib.progress import follow

CERTIFICATE_SHAPE = (2, 24)  # enough tokens for an equality check, few enough for float64 to be instant
RANDOM_WEIGHTS = "random weights: a latency-only run, quality is not measured"


@dataclass
class Context:
    """Loaded lazily, so that a stage pays only for what it uses."""

    run: Run
    progress: Callable[[str], None] = print

    def __post_init__(self):
        torch.set_num_threads(self.get("threads") or len(os.sched_getaffinity(0)))

    def get(self, path: str):
        """A value of the scenario."""
        return self.run.scenario.get(path)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        if self.get("model.weights") == "random":
            return random_checkpoint(self.get("model.shape") or "minilm-l6", self.get("seed"))
        return resolve_checkpoint(
            self.get("model.checkpoint"), revision=self.get("model.revision"), family=self.get("model.family")
        )

    @cached_property
    def _loaded(self) -> tuple[nn.Module, object]:
        return load_model(self.checkpoint)

    @property
    def model(self) -> nn.Module:
        return self._loaded[0]

    @property
    def tokenizer(self):
        return self._loaded[1]

    @property
    def is_trained(self) -> bool:
        return self.checkpoint.weights == "trained"

    @cached_property
    def data(self) -> TextData:
        sizes = {name: self.get(f"data.{name}_items") for name in ("test", "validation", "probe")}
        return load_text_data(self.get("data.name"), seed=self.get("seed"), **sizes)

    def token_dicts(self, texts: list[str], tokens: int) -> list[dict]:
        """Length-sorted batches as the model's input dicts."""
        sequences = encode(self.tokenizer, texts, self.get("data.max_length"))
        return [
            {"input_ids": input_ids, "attention_mask": mask} for _, input_ids, mask in token_batches(sequences, tokens)
        ]

    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` unlabelled calibration texts and the docstrings beside them, in batches of about `tokens` tokens."""
        available = len(dict.fromkeys(self.data.texts("calibration")))
        texts = self.data.calibration_texts(min(count, available), self.get("seed"))
        return self.token_dicts(texts + self.docstrings[0], tokens)

    @cached_property
    def docstrings(self) -> tuple[list[str], list[str]]:
        """Text of another domain: what calibration sees, and what it does not."""
        return split_docstrings(self.get("data.other_domain_texts"), self.get("seed"))

    def fixed(self, batch: int, length: int) -> dict:
        """Real text in exactly (batch, length) tokens."""
        return fixed_batch(self.tokenizer, self.data.texts("calibration"), batch, length)

    @cached_property
    def example(self) -> dict:
        return self.fixed(*CERTIFICATE_SHAPE)

    @property
    def quality_folder(self):
        return self.run.path("setup", "probes.safetensors").parent

    @cached_property
    def suite(self) -> EncoderSuite:
        """Probes fitted once, by the setup stage."""
        return EncoderSuite.load(self.quality_folder, self.data, self.tokenizer)

    def dense_result(self, split: str) -> QualityResult:
        """The dense model's result on a split, computed once per run."""
        path = self.run.path("setup", f"dense_{split}.safetensors")
        if path.is_file():
            return self.suite.load_result(path)
        result = self.suite.evaluate(self.model, split, follow(self.progress, f"dense on {split} data"))
        self.suite.save_result(result, path)
        return result
