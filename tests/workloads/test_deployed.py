"""A decoder in OpenVINO within a run: graphs are made once, and judged as models are."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icd_lib.data.language import Blocks
from icd_lib.decoding.openvino import OpenVino
from icd_lib.errors import ResourceError
from icd_lib.measure.quality_lm import LanguageSuite, SplitResult
from icd_lib.records.generation import EXPORTED_ARM
from icd_lib.workloads.model.deployed import deployed_points
from icd_lib.workloads.model.engines import Engines
from tests.tiny_decoders import VOCAB, tiny_decoder

pytest.importorskip("openvino")


@pytest.fixture
def engines() -> Engines:
    sizes = {"max_position_embeddings": 64, "dtype": torch.float32}
    return Engines({"dense": tiny_decoder(**sizes), "iterative": tiny_decoder(**sizes)}, ("openvino",))


def text(seed: int) -> Blocks:
    ids = np.random.default_rng(seed).integers(3, VOCAB, (4, 24))
    return Blocks(ids, np.repeat(np.arange(4)[:, None], 24, 1))


def test_a_graph_gives_the_models_logits_and_is_made_once(engines, monkeypatch):
    ids = torch.from_numpy(text(0).ids)
    with torch.inference_mode(), engines.judged("openvino") as judged:
        found, expected = judged(input_ids=ids).logits, engines.models["dense"](input_ids=ids).logits
        again = judged(input_ids=ids[:1]).logits  # texts before are forgotten
    assert torch.allclose(found, expected, atol=1e-4) and torch.allclose(again, expected[:1], atol=1e-4)
    monkeypatch.setattr(OpenVino, "graph", lambda *given, **named: pytest.fail("made again"))
    decoder = engines.decoder("openvino")
    assert np.allclose(decoder.prefill(ids.numpy()), expected[:, -1].numpy(), atol=1e-4)
    decoder.close()


def test_every_arm_is_judged_where_it_decodes_and_dense_not_again(engines, monkeypatch):
    judged = {"unseen": {"a": text(1), "b": text(2)}, "seen": {"c": text(3)}}
    suite = LanguageSuite(judged, engines.models["dense"])
    dense = {split: suite.evaluate(engines.models["dense"], split) for split in judged}
    told: list[str] = []
    kept: dict[tuple, SplitResult] = {}

    def deployed_result(split, words, how, make):
        key = (split, json.dumps(how))
        kept[key] = kept.get(key) or make()
        return kept[key]

    context = SimpleNamespace(
        suite=suite,
        judged=list(judged),
        dense_result=dense.get,
        progress=told.append,
        deployed_result=deployed_result,
    )
    points = {(point.arm, point.split): point for point in deployed_points(context, engines)}
    assert list(points) == [(arm, split) for arm in ("openvino", EXPORTED_ARM) for split in ("unseen", "seen")]
    assert len(told) == 4
    same = points["openvino", "unseen"]
    assert same.drop_pp.value == 0 and same.kl.value < 1e-6 and abs(same.perplexity_ratio.value - 1) < 1e-4
    assert same.n_tokens == 2 * 4 * 23 and same.label.startswith("dense, OpenVINO")
    assert [split for split, _ in kept] == ["unseen", "seen"], "the dense model's alone"
    opened = []
    monkeypatch.setattr(
        Engines, "judged", lambda self, arm, judged=Engines.judged: opened.append(arm) or judged(self, arm)
    )
    again = deployed_points(context, engines)
    assert opened == [EXPORTED_ARM] and again[0] == same


def test_a_runtime_that_is_missing_is_left_out(engines, monkeypatch):
    def refuse(*given, **named):
        raise ResourceError("openvino is not installed")

    monkeypatch.setattr(OpenVino, "check", refuse)
    told: list[str] = []
    suite = LanguageSuite({"unseen": {"a": text(1)}}, engines.models["dense"])
    context = SimpleNamespace(suite=suite, judged=["unseen"], dense_result=None, progress=told.append)
    assert deployed_points(context, engines) == []
    assert all("was not judged: " in line and "not installed" in line for line in told)
