"""The context of a causal language model: running text in blocks, judged by next-token accuracy and perplexity."""

from functools import cached_property

import torch

from icd_lib.data.domains import GROUPS, DomainText
from icd_lib.data.language import CHAPTERS, Blocks, LanguageData, domain_blocks, load_domains, load_language_data
from icd_lib.errors import ConfigError, MeasureError
from icd_lib.measure.quality_lm import LanguageSuite
from icd_lib.workloads.model.context import Context

OTHER_TEXT = {"selection": "data.validation_items", "unseen": "data.test_items"}  # split → at most so many blocks


class LanguageContext(Context):
    """Blocks of `data.max_length` tokens are the items; `data.*_items` says at most how many of each split.

    Chapters of the Bible calibrate; others of them are validation and seen text. The domains of `data.selection` and
    `data.unseen` are text that nothing here has read. With random weights no domain is loaded.
    """

    @cached_property
    def data(self) -> LanguageData:
        if self.get("data.seen") != [CHAPTERS]:
            raise ConfigError(
                f"data.seen is {self.get('data.seen')}, but a language model is calibrated on the embedded chapters "
                f"alone: set it to [{CHAPTERS}], and leave {CHAPTERS} out of data.selection and data.unseen"
            )
        return load_language_data(self.get("data.name"))

    @property
    def calibration_sha256(self) -> str:
        return self.data.sha256

    @cached_property
    def _others(self) -> tuple[dict[str, dict[str, DomainText]], dict[str, str]]:
        """Split → domain → text, and why domains are missing."""
        texts, missing = {}, {}
        for split in OTHER_TEXT:
            texts[split], absent = load_domains(self.get(f"data.{split}") if self.is_trained else [])
            missing |= absent
        return texts, missing

    @cached_property
    def suite(self) -> LanguageSuite:
        get, tokenizer, length = self.get, self.tokenizer, self.get("data.max_length")
        judged = {
            "validation": {CHAPTERS: self._blocks("validation").spread(get("data.validation_items"))},
            "seen": {CHAPTERS: self._blocks("test").spread(get("data.test_items"))},
        }
        for split, texts in self._others[0].items():
            judged[split] = domain_blocks(tokenizer, texts, length, get(OTHER_TEXT[split]))
        return LanguageSuite(judged, self.model, self.dense_states)

    def describe_data(self) -> dict:
        texts, missing = self._others
        splits = self.data.splits
        return {
            "name": self.data.name,
            "groups": {group: list(self.get(f"data.{group}")) for group in GROUPS},
            "calibration": {CHAPTERS: len(splits["calibration"]) + len(splits["train"])},
            "judged": self._describe_judged() if self.is_trained else {},
            "dropped_duplicates": {},
            "missing": missing,
            "provenance": {CHAPTERS: self.data.provenance}
            | {name: text.provenance for found in texts.values() for name, text in found.items()},
            "block_tokens": self.get("data.max_length"),
        }

    def _describe_judged(self) -> dict:
        return {
            split: {name: {"texts": len(blocks), "sha256": blocks.sha256} for name, blocks in texts.items()}
            for split, texts in self.suite.judged.items()
        }

    def _blocks(self, split: str) -> Blocks:
        """The chapters of a split in blocks."""
        return self.data.blocks(self.tokenizer, split, self.get("data.max_length"))

    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` blocks of the calibration split and, when it has no more, of the train split."""
        blocks = self._blocks("calibration")
        batches = list(blocks.sample(min(count, len(blocks)), self.get("seed")).batches(tokens))
        if count > len(blocks):
            more = self._blocks("train")
            batches += more.sample(min(count - len(blocks), len(more)), self.get("seed")).batches(tokens)
        return [inputs | {"use_cache": False} for inputs in batches]

    def probes(self) -> list[dict]:
        """The example: blocks of text need no padding, and a large model is slow in float64."""
        return [self.example]

    def fixed(self, batch: int, length: int) -> dict:
        blocks = self.data.blocks(self.tokenizer, "calibration", length)
        if len(blocks) < batch:
            raise MeasureError(f"a batch of {batch} x {length} needs {batch} blocks of text, got {len(blocks)}")
        return {"input_ids": torch.from_numpy(blocks.ids[:batch]), "use_cache": False}
