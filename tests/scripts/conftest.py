"""The scripts that train language models, their recipes made tiny, and a few documents for them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icd_lib.data.domains import DomainGroups
from icd_lib.data.language import CHAPTERS, LanguageData, load_language_data
from tests.tiny_domains import toy_domain

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from language_recipes import RECIPES
from language_text import arrange, tokenizer_texts, train_tokenizer

COMMON = {
    "vocab_size": 300,
    "hidden_size": 16,
    "layers": 2,
    "length": 16,
    "batch": 4,
    "steps": 12,
    "warmup": 3,
    "horizon": 24,
    "decay_from": 8,
    "learning_rate": 4e-3,
    "held_out": 0.2,
    "threads": 1,
    "log_every": 4,
    "judge_every": 6,
    "judge_blocks": 4,
    "final_blocks": 6,
}
TINY = {
    "llama": replace(RECIPES["llama"], **COMMON, ffn_size=24, heads=4, kv_heads=2, head_size=4),
    "mamba": replace(RECIPES["mamba"], **COMMON, state_size=4),
}


@pytest.fixture(scope="session", params=sorted(TINY))
def recipe(request):
    return TINY[request.param]


@pytest.fixture(scope="session")
def chapters():
    """A few chapters of the corpus."""
    whole = load_language_data()
    rows = {split: whole.splits[split][:6] for split in ("train", "validation", "test", "calibration")}
    order = np.concatenate(list(rows.values()))
    splits = {split: np.arange(6) + 6 * i for i, split in enumerate(rows)}
    texts = [whole.documents[i] for i in order]
    return LanguageData(CHAPTERS, texts, whole.clusters[order], splits, whole.provenance)


@pytest.fixture(scope="session")
def groups():
    """Toy domains as `group_domains` deals them; `plain` has one text a document."""
    news, plain = toy_domain("news"), toy_domain("films", documents=60, per_document=1, seed=1)
    parts = {text.name: text for text in (news, plain)}
    held = {name: text.take(np.flatnonzero(text.documents < 10)) for name, text in parts.items()}
    calibrating = {name: text.take(np.flatnonzero(text.documents >= 10)) for name, text in parts.items()}
    other = {
        "selection": {CHAPTERS: toy_domain(CHAPTERS, seed=2), "manual": toy_domain("manual", seed=3)},
        "unseen": {"glosses": toy_domain("glosses", seed=4)},
    }
    return DomainGroups(calibrating, {"seen": held, "validation": {}, **other})


@pytest.fixture(scope="session")
def text(groups, chapters):
    return arrange(groups, chapters, TINY["llama"].held_out)


@pytest.fixture(scope="session")
def tokenizer(text):
    return train_tokenizer(tokenizer_texts(text, 0.2), 300)
