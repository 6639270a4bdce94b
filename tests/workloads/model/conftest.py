"""A toy world under the names of real domains, and contexts of one scenario in it."""

from types import SimpleNamespace

import pytest
import torch

from icd_lib.data.domains import groups
from icd_lib.errors import ResourceError
from icd_lib.execute.sweep import shared_folder
from icd_lib.run.artifacts import open_run
from icd_lib.workloads.model.context import EncoderContext
from tests.tiny_domains import toy_domain, toy_encoder, toy_tokenizer

SCENARIO = """
data:
  seen: [news, films]
  selection: [manual]
  unseen: [products, glosses]
  calibration_texts: 40
  validation_items: 30
  test_items: 60
  max_length: 16
threads: 1
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return toy_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def absent():
    """Names of domains that have not been fetched."""
    return set()


@pytest.fixture(autouse=True)
def toy_world(tmp_path, monkeypatch, absent):
    """Toy texts under the names of real domains, and a cache of these tests' own."""
    names = ("news", "films", "manual", "products", "glosses", "tweets")
    domains = {name: toy_domain(name, documents=30, seed=i) for i, name in enumerate(names)}

    def load(name):
        if name in absent:
            raise ResourceError(f"the text of {name} is missing")
        return domains[name]

    monkeypatch.setattr(groups, "load_domain", load)
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))


class Counted(torch.nn.Module):
    """A model that counts the batches it has run."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, **inputs):
        self.calls += 1
        return self.model(**inputs)


@pytest.fixture
def make(tmp_path, tokenizer):
    """Contexts of one scenario with a toy model, each in a run folder; `lines` has what they said."""

    def context(*overrides, out="runs", model=None, sha256="toy"):
        path = tmp_path / "mine.yaml"
        path.write_text(SCENARIO)
        lines = []
        found = EncoderContext(open_run(path, overrides, out=tmp_path / out), lines.append)
        found.checkpoint = SimpleNamespace(sha256=sha256, weights="trained", name="toy", source="test")
        found._loaded = (Counted(toy_encoder() if model is None else model), tokenizer)
        found.lines = lines
        return found

    return context


@pytest.fixture
def in_sweep(tmp_path):
    """A block within which the runs in `runs` are points of one sweep."""
    (tmp_path / "runs").mkdir()
    return lambda: shared_folder(tmp_path / "runs")
