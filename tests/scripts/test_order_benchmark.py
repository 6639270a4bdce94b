"""benchmarks/order.py says of every checkpoint whether its weights were on a grid before."""

import sys
from pathlib import Path

from icd_lib.models.checkpoint.source import Checkpoint
from icd_lib.models.families.llama import NAME

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import order


def checkpoint(name, source):
    return Checkpoint(Path("folder"), name, None, "0", "mit", source, family="llama")


def test_the_past_of_a_checkpoint_is_its_own(monkeypatch):
    monkeypatch.setattr(order, "fetched_file", lambda package: "file.gguf")
    monkeypatch.setattr(order, "read_header", lambda file: {"types": ["Q4_1"]})
    assert "Q4_1" in order.past_of(checkpoint(NAME, "embedded"))
    assert order.past_of(checkpoint("llama-worlds", "embedded")).startswith("none: trained by this project")
    for name in (NAME, "llama-worlds"):
        assert order.past_of(checkpoint(name, "path")).startswith("not known")
