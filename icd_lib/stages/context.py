"""What every stage of a model needs from the scenario: the model, its text, the judge of quality, fixed inputs."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from icd_lib.artifacts import Run
from icd_lib.data.batches import encode, fixed_batch, token_batches
from icd_lib.data.docstrings import docstrings_provenance, split_docstrings
from icd_lib.data.load import load_text_data
from icd_lib.data.text import TextData
from icd_lib.measure.quality import EncoderSuite, embed, mean_cosine
from icd_lib.models.loading import load_model
from icd_lib.models.room import fitting_dtype
from icd_lib.models.source import Checkpoint, random_checkpoint, resolve_checkpoint
from icd_lib.progress import follow

CERTIFICATE_SHAPE = (2, 24)  # enough tokens for an equality check, few enough for float64 to be instant
CAUSAL = ("mamba",)  # families that are judged as language models
OTHER_DOMAIN_TEXTS = 1000  # a mean cosine needs no more
RANDOM_WEIGHTS = "random weights: a latency-only run, quality is not measured"


def make_context(run: Run, progress: Callable[[str], None] = print) -> "Context":
    """The context of the scenario's model family."""
    if run.scenario.get("model.family") in CAUSAL:
        from icd_lib.stages.language import LanguageContext

        return LanguageContext(run, progress)
    return EncoderContext(run, progress)


@dataclass
class Context(ABC):
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
            return random_checkpoint(self.get("model.shape"), self.get("seed"), self.get("model.family"))
        return resolve_checkpoint(
            self.get("model.checkpoint"), revision=self.get("model.revision"), family=self.get("model.family")
        )

    @cached_property
    def _loaded(self) -> tuple[nn.Module, object]:
        return load_model(self.checkpoint, fitting_dtype(self.checkpoint, self.get("model.dtype")))

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
    def example(self) -> dict:
        return self.fixed(*CERTIFICATE_SHAPE)

    @property
    def quality_folder(self):
        return self.run.path("setup", "suite").parent

    def dense_result(self, split: str):
        """The dense model's result on a split, computed once per run."""
        path = self.run.path("setup", f"dense_{split}.safetensors")
        if path.is_file():
            return self.suite.load_result(path)
        result = self.suite.evaluate(self.model, split, follow(self.progress, f"dense on {split} data"))
        self.suite.save_result(result, path)
        return result

    @property
    @abstractmethod
    def data(self):
        """Text in splits that share none."""

    @property
    @abstractmethod
    def suite(self):
        """The judge of quality, fitted once by the setup stage."""

    @abstractmethod
    def fit_suite(self):
        """Fit the judge on the dense model and keep it."""

    @abstractmethod
    def describe_data(self) -> dict:
        """The data set, for setup.json."""

    @abstractmethod
    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` unlabelled calibration items in batches of about `tokens` tokens."""

    @abstractmethod
    def fixed(self, batch: int, length: int) -> dict:
        """Real text in exactly (batch, length) tokens."""

    def other_domain(self, models: dict[str, nn.Module]) -> dict[str, dict]:
        """How near each model stays to the dense one on text unlike the calibration's; nothing where not measured."""
        return {arm: {} for arm in models}


class EncoderContext(Context):
    """A text encoder, judged by labelled tasks and retrieval."""

    @cached_property
    def data(self) -> TextData:
        sizes = {name: self.get(f"data.{name}_items") for name in ("test", "validation", "probe")}
        return load_text_data(self.get("data.name"), seed=self.get("seed"), **sizes)

    @cached_property
    def suite(self) -> EncoderSuite:
        return EncoderSuite.load(self.quality_folder, self.data, self.tokenizer)

    def fit_suite(self) -> None:
        self.progress("fitting the probes on the dense model's embeddings")
        suite = EncoderSuite.fit(
            self.data,
            self.tokenizer,
            self.model,
            max_length=self.get("data.max_length"),
            progress=follow(self.progress, "probe data"),
        )
        suite.save(self.quality_folder)

    def describe_data(self) -> dict:
        return {
            "name": self.data.name,
            "provenance": self.data.provenance,
            "splits": {name: len(items) for name, items in self.data.splits.items()},
            "views": len(self.data.views),
            "other_domain": docstrings_provenance(),
        }

    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` unlabelled texts and the docstrings beside them, length-sorted batches of about `tokens` tokens."""
        available = len(dict.fromkeys(self.data.texts("calibration")))
        texts = self.data.calibration_texts(min(count, available), self.get("seed"))
        sequences = encode(self.tokenizer, texts + self.docstrings[0], self.get("data.max_length"))
        return [
            {"input_ids": input_ids, "attention_mask": mask} for _, input_ids, mask in token_batches(sequences, tokens)
        ]

    def fixed(self, batch: int, length: int) -> dict:
        return fixed_batch(self.tokenizer, self.data.texts("calibration"), batch, length)

    @cached_property
    def docstrings(self) -> tuple[list[str], list[str]]:
        """Text of another domain: what calibration sees, and what it does not."""
        return split_docstrings(self.get("data.other_domain_texts"), self.get("seed"))

    def other_domain(self, models: dict[str, nn.Module]) -> dict[str, dict]:
        """Mean cosine to the dense model's embeddings on docstrings unseen by calibration."""
        texts = self.docstrings[1][: min(self.get("data.test_items"), OTHER_DOMAIN_TEXTS)]
        sequences = encode(self.tokenizer, texts, self.get("data.max_length"))
        dense = embed(self.model, sequences)[0]
        return {
            arm: {"other_domain_cosine": mean_cosine(embed(model, sequences)[0], dense)}
            for arm, model in models.items()
        }
