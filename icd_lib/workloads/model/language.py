"""The context of a causal language model: running text of many domains that calibrate, choose or judge."""

import contextlib
from functools import cached_property

import numpy as np
import torch

from icd_lib.data.domains import GROUPS, DomainGroups, group_domains
from icd_lib.data.domains.groups import even_shares
from icd_lib.data.language import Blocks, domain_blocks, pack, running_text
from icd_lib.errors import ConfigError, MeasureError
from icd_lib.measure.quality_lm import LanguageSuite
from icd_lib.workloads.model.context import EMBEDDED, Context

LEAST_BLOCKS = 2
WHOLE = 10**9  # texts: domains are dealt whole, and what is judged of them is counted in blocks


class LanguageContext(Context):
    """Blocks of `data.max_length` tokens are the items; `data.*_items` says at most how many of each split.

    The domains are those of an encoder, their texts joined to documents again.
    """

    @cached_property
    def data(self) -> DomainGroups:
        get = self.get
        if get("data.name") not in EMBEDDED:
            raise ConfigError(f"data.name '{get('data.name')}' is no running text for a language model; use auto")
        return group_domains(
            get("data.seen"),
            get("data.selection") if self.is_trained else [],
            get("data.unseen") if self.is_trained else [],
            test_items=WHOLE,
            validation_items=WHOLE,
            seed=get("data.split_seed"),
        )

    @property
    def calibration_sha256(self) -> str:
        return "-".join(text.sha256 for text in self.data.calibrating.values())

    @cached_property
    def suite(self) -> LanguageSuite:
        most = {"seen": "data.test_items", "unseen": "data.test_items"}
        judged = {
            split: domain_blocks(
                self.tokenizer,
                {name: text for name, text in texts.items() if len(text)},
                self.get("data.max_length"),
                self.get(most.get(split, "data.validation_items")),
            )
            for split, texts in self.data.judged.items()
        }
        return LanguageSuite(judged, self.dense, self.dense_states, self.selecting)

    def describe_data(self) -> dict:
        groups = {group: list(self.get(f"data.{group}")) for group in GROUPS}
        found = self.data.describe() | {"judged": self._describe_judged() if self.is_trained else {}}
        return {"name": "domains", "groups": groups, "block_tokens": self.get("data.max_length"), **found}

    def _describe_judged(self) -> dict:
        return {
            split: {name: {"texts": len(blocks), "sha256": blocks.sha256} for name, blocks in texts.items()}
            for split, texts in self.suite.judged.items()
        }

    def calibration(self, count: int, tokens: int) -> list[dict]:
        """`count` blocks, evenly over the seen domains, in batches of about `tokens` tokens."""
        blocks = self._calibrating
        shares = even_shares({name: len(found) for name, found in blocks.items()}, count)
        batches: list[dict] = []
        for name, share in shares.items():
            if share:
                batches += blocks[name].sample(share, self.get("seed")).batches(tokens)
        return [inputs | {"use_cache": False} for inputs in batches]

    @cached_property
    def _calibrating(self) -> dict[str, Blocks]:
        return {name: self._packed([name], self.get("data.max_length")) for name in self.data.calibrating}

    def _packed(self, names: list[str], length: int) -> Blocks:
        """Calibration text of domains in blocks; none where it does not fill one."""
        documents = [document for name in names for document in running_text(self.data.calibrating[name])[0]]
        try:
            return pack(self.tokenizer, documents, length)
        except MeasureError:
            empty = np.empty((0, length), np.int64)
            return Blocks(empty, empty)

    def long_blocks(self, split: str, length: int, count: int, *, cure: str) -> dict[str, Blocks]:
        """Domain → at most `count` blocks of `length` tokens in all, of a split's text, evenly over the domains.

        A domain gives at least two blocks, of two documents, or none: a single one has no standard error. Raises
        `MeasureError` where no domain does; `cure`: what to do then, which only the caller knows.
        """
        texts = {name: text for name, text in self.data.judged[split].items() if len(text)}
        found = {}
        for name, text in texts.items():
            with contextlib.suppress(MeasureError):  # a domain with less text than one block
                documents, numbers = running_text(text)
                found[name] = pack(self.tokenizer, documents, length, numbers)
        taken = list(found)[: max(1, count // LEAST_BLOCKS)]
        shares = even_shares({name: len(found[name]) for name in taken}, count)
        blocks = {name: found[name].spread(shares[name]) for name in taken}
        several = {name: item for name, item in blocks.items() if len(np.unique(item.cluster)) >= LEAST_BLOCKS}
        if not several:
            raise MeasureError(f"no domain of the split '{split}' has {LEAST_BLOCKS} texts of {length} tokens; {cure}")
        return several

    def probes(self) -> list[dict]:
        """The example: blocks of text need no padding, and a large model is slow in float64."""
        return [self.example]

    def fixed(self, batch: int, length: int) -> dict:
        blocks = self._packed(list(self.data.calibrating), length)
        if len(blocks) < batch:
            raise MeasureError(f"a batch of {batch} x {length} needs {batch} blocks of text, got {len(blocks)}")
        return {"input_ids": torch.from_numpy(blocks.spread(batch).ids.copy()), "use_cache": False}
