"""The context of a causal language model: running text in blocks, judged by next-token accuracy and perplexity."""

from functools import cached_property

import torch

from icd_lib.data.language import LanguageData, load_language_data
from icd_lib.errors import MeasureError
from icd_lib.measure.quality_lm import LanguageSuite
from icd_lib.stages.context import Context


class LanguageContext(Context):
    """Blocks of `data.max_length` tokens are the items; `data.*_items` says at most how many of each split."""

    @cached_property
    def data(self) -> LanguageData:
        return load_language_data(self.get("data.name"))

    @cached_property
    def suite(self) -> LanguageSuite:
        return LanguageSuite.load(self.quality_folder, self.data, self.tokenizer, self.model)

    def fit_suite(self) -> None:
        most = {split: self.get(f"data.{split}_items") for split in ("validation", "test")}
        length = self.get("data.max_length")
        suite = LanguageSuite.fit(self.data, self.tokenizer, self.model, length=length, max_blocks=most)
        suite.save(self.quality_folder)

    def describe_data(self) -> dict:
        return {
            "name": self.data.name,
            "provenance": self.data.provenance,
            "splits": {name: len(documents) for name, documents in self.data.splits.items()},
            "block_tokens": self.get("data.max_length"),
        }

    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` blocks of the calibration split and, when it has no more, of the train split."""
        length = self.get("data.max_length")
        blocks = self.data.blocks(self.tokenizer, "calibration", length)
        found = list(blocks.sample(min(count, len(blocks)), self.get("seed")).batches(tokens))
        if count > len(blocks):
            more = self.data.blocks(self.tokenizer, "train", length)
            found += more.sample(min(count - len(blocks), len(more)), self.get("seed")).batches(tokens)
        return [inputs | {"use_cache": False} for inputs in found]

    def fixed(self, batch: int, length: int) -> dict:
        blocks = self.data.blocks(self.tokenizer, "calibration", length)
        if len(blocks) < batch:
            raise MeasureError(f"a batch of {batch} x {length} needs {batch} blocks of text, got {len(blocks)}")
        return {"input_ids": torch.from_numpy(blocks.ids[:batch]), "use_cache": False}
