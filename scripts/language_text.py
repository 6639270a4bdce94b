"""The text that embedded language models read, and what is kept from them because it judges.

What is read is what the scenarios `smollm2` and `mamba` calibrate on, less a part that is held out as validation text,
and the train part of the embedded chapters. What these scenarios judge (held-out documents of seen domains, domains
that choose, unseen domains) is not read, nor are the other parts of the chapters.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import transformers
from language_recipes import Recipe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from icd_lib.data.domains import DomainGroups, DomainText, group_domains
from icd_lib.data.domains.groups import some_documents
from icd_lib.data.language import CHAPTERS, LanguageData, load_language_data, pack, running_text
from icd_lib.data.splits import normalise
from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.run.scenario import load_scenario
from icd_lib.workloads.model.language import WHOLE

SCENARIO = "smollm2"
END_OF_TEXT = "<|endoftext|>"
SPLIT_SEED = 0  # which documents are validation text; apart from a recipe's seed


@dataclass(frozen=True)
class Text:
    """Domain → documents. `seen` has the splits train, validation and test; `unread` has the split test alone."""

    seen: dict[str, LanguageData]
    unread: dict[str, LanguageData]

    def train_texts(self) -> list[str]:
        """All documents that are read."""
        return [document for data in self.seen.values() for document in data.texts("train")]


def load_text(held_out: float) -> Text:
    """The text of all domains; `ResourceError` when one of them has not been fetched.

    held_out: share of the calibration text of each domain that is validation text.
    """
    get = load_scenario(SCENARIO).get
    names = [get(f"data.{group}") for group in ("seen", "selection", "unseen")]
    groups = group_domains(*names, test_items=WHOLE, validation_items=WHOLE, seed=get("data.split_seed"))
    if groups.missing:
        raise ResourceError(f"the models read or are judged on all domains; {'; '.join(groups.missing.values())}")
    return arrange(groups, load_language_data(), held_out)


def arrange(groups: DomainGroups, chapters: LanguageData, held_out: float) -> Text:
    """What is read, what validates and what judges, of dealt domains and of the chapters."""
    judged = groups.judged["seen"]
    seen = {name: divide(text, judged[name], held_out) for name, text in groups.calibrating.items()}
    others = {
        name: text
        for split in ("selection", "unseen")
        for name, text in groups.judged[split].items()
        if name != CHAPTERS
    }
    forms = {normalise(text) for found in (judged, others) for domain in found.values() for text in domain.texts}
    unread = {name: _documents(name, {"test": text}, text.provenance) for name, text in others.items()}
    return Text({**seen, CHAPTERS: without_lines(chapters, forms)}, unread)


def divide(calibrating: DomainText, judged: DomainText, held_out: float) -> LanguageData:
    """A seen domain: whole documents of what calibrates validate, the rest is read, and `judged` is the test."""
    generator = np.random.default_rng(SPLIT_SEED)
    validation, train = some_documents(calibrating, int(held_out * len(calibrating)), generator)
    parts = {"train": train, "validation": validation, "test": judged}
    return _documents(calibrating.name, parts, calibrating.provenance)


def _documents(name: str, parts: dict[str, DomainText], provenance: dict) -> LanguageData:
    documents: list[str] = []
    clusters, splits = [], {}
    for split, text in parts.items():
        found, numbers = running_text(text)
        splits[split] = np.arange(len(found)) + len(documents)
        documents += found
        clusters.append(numbers)
    return LanguageData(name, documents, np.concatenate(clusters), splits, provenance)


def without_lines(data: LanguageData, forms: set[str]) -> LanguageData:
    """Documents of the train split less their lines whose normalised form is in `forms`."""
    train = set(data.splits["train"].tolist())
    documents = [
        "\n".join(line for line in text.split("\n") if normalise(line) not in forms) if i in train else text
        for i, text in enumerate(data.documents)
    ]
    return replace(data, documents=documents)


def tokenizer_texts(text: Text, verses: float) -> list[str]:
    """What trains the tokenizer: all that is read, but of the chapters the first ones up to a share of characters."""
    texts = [document for name, data in text.seen.items() if name != CHAPTERS for document in data.texts("train")]
    chapters = text.seen[CHAPTERS].texts("train")
    room = verses / (1 - verses) * sum(map(len, texts))
    return texts + chapters[: int(np.searchsorted(np.cumsum([len(chapter) for chapter in chapters]), room))]


def train_tokenizer(texts: list[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be encoded, and decoding gives it back; one special token ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "pad_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def streams_of(text: Text, tokenizer) -> dict[str, np.ndarray]:
    """Domain → its train text as one stream of tokens, int64: documents in order, each closed by the end of text."""
    return {name: pack(tokenizer, data.texts("train"), 2).ids.ravel() for name, data in text.seen.items()}


def mix(sizes: dict[str, int], recipe: Recipe) -> dict[str, int]:
    """How many blocks of each domain a training reads, of domains with so many tokens.

    The chapters get the recipe's share; the others share the rest in proportion to size^exponent, and what would be
    read more than `most_passes` times gives its surplus to the others. Raises `ArtifactError` when there is too little
    text for so many steps.
    """
    total = recipe.steps * recipe.batch
    rest = total * recipe.length * (1 - recipe.verses)
    left = {name: size for name, size in sizes.items() if name != CHAPTERS}
    tokens = {CHAPTERS: total * recipe.length * recipe.verses}
    while left:
        unit = rest / sum(size**recipe.exponent for size in left.values())
        wanted = {name: unit * size**recipe.exponent for name, size in left.items()}
        full = {
            name: recipe.most_passes * left[name] for name in left if wanted[name] > recipe.most_passes * left[name]
        }
        tokens |= full or wanted
        rest -= sum((full or wanted).values())
        left = {name: size for name, size in left.items() if name not in (full or wanted)}
    if rest > 1 or tokens[CHAPTERS] > recipe.most_passes * sizes[CHAPTERS]:
        raise ArtifactError(
            f"{recipe.steps} steps of {recipe.batch} x {recipe.length} tokens read {sum(sizes.values()):,} tokens of "
            f"text more than {recipe.most_passes:g} times; take fewer steps"
        )
    counts = {name: int(tokens[name] / recipe.length) for name in sizes}
    counts[CHAPTERS] += total - sum(counts.values())
    return counts


class Batches:
    """The blocks of every step, a function of the recipe and the streams alone.

    Blocks of all domains come in seeded order, each domain's share spread over the whole training. A pass over a domain
    reads every block of its stream once; each pass cuts the stream elsewhere and shuffles anew.
    """

    def __init__(self, streams: dict[str, np.ndarray], recipe: Recipe):
        """streams: domain → tokens (n,) int64; `ArtifactError` when one does not fill a block."""
        self.recipe, self.streams = recipe, list(streams.values())
        for name, stream in streams.items():
            if len(stream) < 2 * recipe.length:
                raise ArtifactError(f"a pass cuts blocks of {recipe.length} tokens; {name} has {len(stream)} in all")
        self.counts = mix({name: len(stream) for name, stream in streams.items()}, recipe)
        counts = [self.counts[name] for name in streams]
        order = np.random.default_rng(recipe.seed).permutation(np.repeat(np.arange(len(counts)), counts))
        self._domain, self._place = order, np.empty_like(order)
        for number, count in enumerate(counts):
            self._place[order == number] = np.arange(count)

    def at(self, step: int) -> torch.Tensor:
        """(batch, length + 1) int64: the last token of a row is a target only."""
        slots = range(step * self.recipe.batch, (step + 1) * self.recipe.batch)
        return torch.from_numpy(np.stack([self._block(int(self._domain[i]), int(self._place[i])) for i in slots]))

    def _block(self, domain: int, place: int) -> np.ndarray:
        stream, length = self.streams[domain], self.recipe.length
        one_pass, row = divmod(place, (len(stream) - length) // length)
        generator = np.random.default_rng([self.recipe.seed, domain, one_pass])
        offset = int(generator.integers(length))
        start = offset + generator.permutation((len(stream) - 1 - offset) // length)[row] * length
        return stream[start : start + length + 1]
