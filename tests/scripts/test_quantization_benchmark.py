"""benchmarks/quantization.py: its parts on a tiny encoder in OpenVINO, going on after an interrupt, and its tables."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from icd_lib.errors import ConfigError
from icd_lib.measure.battery import Battery, BatteryResult
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import read_text
from tests.tiny_domains import toy_domain, toy_encoder, toy_tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import quantization


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    tokenizer, model = toy_tokenizer(tmp_path_factory.mktemp("words")), toy_encoder()
    texts = toy_domain().texts

    def batches(texts):
        found = dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))
        return [{name: value[:, :10] for name, value in found.items()}]

    suite = Battery(
        {split: {"toy": toy_domain(seed=place)} for place, split in enumerate(quantization.SPLITS)}, tokenizer
    )
    return SimpleNamespace(
        model=model,
        example=batches(texts[:2])[0],
        deploy_calibration=batches(texts[:8]),
        calibration=lambda count, tokens: batches(texts[: min(count, 60)]),
        get=lambda path: {"data.calibration_texts": 60, "measure.shapes": [(2, 8), (1, 4)]}[path],
        fixed=lambda rows, length: {name: value[:rows, :length] for name, value in batches(texts)[0].items()},
        progress=lambda line: None,
        suite=suite,
        dense_result=lambda split: suite.evaluate(model, split),
    )


@pytest.fixture(scope="module")
def found(context):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    with quantization.prepared_arms(context) as arms:
        told = {split: quantization.judge(context, arms, split) for split in quantization.SPLITS}
        told["shapes"] = quantization.clock(context, arms, rounds=4, warmup=1)
    return json.loads(to_json(told))


@pytest.mark.wide
@pytest.mark.slow
def test_every_arm_is_judged_in_its_own_graph_on_both_texts(found):
    for split in quantization.SPLITS:
        arms = found[split]["arms"]
        assert list(arms) == list(quantization.JUDGED) and found[split]["n_items"] == 120
        cosines = {name: item["cosine"]["value"] for name, item in arms.items()}
        assert len(set(cosines.values())) == 3 and all(0.5 < value < 1 for value in cosines.values())
        for other in quantization.NNCF:
            apart = arms[quantization.OURS]["cosine_lost_against"][other]
            assert apart["value"] == pytest.approx(cosines[other] - cosines[quantization.OURS], abs=1e-5)
            assert apart["ci95"][0] < apart["value"] < apart["ci95"][1]
            assert set(arms[quantization.OURS]["own_against"][other]) >= {"drop_pp", "se_pp", "ci95"}


@pytest.mark.wide
@pytest.mark.slow
def test_every_arm_is_timed_at_every_shape_with_eager_and_a_control(found):
    assert list(found["shapes"]) == ["2x8", "1x4"]
    for at in found["shapes"].values():
        arms = at["arms"]
        assert set(arms) == {quantization.DENSE, quantization.AGAIN, *quantization.JUDGED}
        assert (
            arms[quantization.LADDER]["vs_ladder"]["value"] == 0 and arms[quantization.DENSE]["of_eager"]["value"] == 1
        )
        eager = arms[quantization.DENSE]["latency_ms"]["value"]
        for item in arms.values():
            assert item["of_eager"]["value"] == pytest.approx(item["latency_ms"]["value"] / eager, rel=1e-3)


@pytest.mark.wide
@pytest.mark.slow
def test_the_tables_have_a_line_for_each_arm(found):
    quality, latency = quantization.tables(found).split("\n\n")
    assert len(quality.splitlines()) == 2 + 2 * 3 and len(latency.splitlines()) == 2 + 5
    assert all(len(line.split("|")) == 9 for line in quality.splitlines())
    assert all(len(line.split("|")) == 9 for line in latency.splitlines())
    assert f"| unseen, 120 texts | {quantization.OURS} |" in quality and f"| {quantization.AGAIN} |" in latency
    only = {key: value for key, value in found.items() if key != "shapes"}
    assert quantization.tables(only).endswith("Latency: not run yet.")
    assert quantization.tables({}) == quantization.NOT_RUN


def test_what_is_closer_to_dense_loses_less_by_the_paired_difference():
    dense = BatteryResult("seen", {name: np.eye(4, dtype=np.float32) for name in "ab"})
    turned = np.array([0.1, 0.2, 0.3, 0.4])
    off = np.cos(turned)[:, None] * np.eye(4) + np.sin(turned)[:, None] * np.eye(4)[[1, 2, 3, 0]]
    other = BatteryResult("seen", dict.fromkeys("ab", off.astype(np.float32)))
    found = quantization.cosine_lost(dense, other, dense, dict.fromkeys("ab", np.arange(4)))
    assert found["value"] == pytest.approx(-(1 - np.cos(turned)).mean(), abs=1e-6)
    assert found["ci95"][0] < found["value"] < found["ci95"][1]


def test_an_interrupted_call_goes_on_after_the_last_part_and_another_one_begins_anew(tmp_path):
    made, file = [], tmp_path / quantization.FILE

    def part(name):
        def make():
            if name == "second" and made == ["first"]:
                raise KeyboardInterrupt
            made.append(name)
            return {"of": name}

        return make

    parts = {name: part(name) for name in ("first", "second")}
    with pytest.raises(KeyboardInterrupt):
        quantization.fill(parts, {"items": 3}, file)
    assert read_text(file) == {"asked": {"items": 3}, "first": {"of": "first"}}
    made.append("interrupted")
    assert set(quantization.fill(parts, {"items": 3}, file)) == {"asked", "first", "second"}
    assert made == ["first", "interrupted", "second"], "the first was not made again"
    assert quantization.fill(parts, {"items": 4}, file)["asked"] == {"items": 4} and made[-2:] == ["first", "second"]


def test_the_page_has_its_block_and_says_what_was_not_run(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- int8: start -->\nold\n<!-- int8: end -->\nb\n")
    assert quantization.main(["--table", str(page), "--out", str(tmp_path)]) == 0
    assert page.read_text() == f"a\n<!-- int8: start -->\n{quantization.NOT_RUN}\n<!-- int8: end -->\nb\n"
    with pytest.raises(ConfigError, match="is no file"):
        quantization.write_page(tmp_path / "none.md", {})


def test_the_kept_figures_are_those_of_the_page():
    root = Path(__file__).resolve().parents[2] / "docs"
    file, page = root / "figures" / quantization.FILE, (root / "QUANTIZATION.md").read_text(encoding="utf-8")
    block = page.partition("<!-- int8: start -->\n")[2].partition("\n<!-- int8: end -->")[0]
    assert block == quantization.tables(read_text(file) if file.is_file() else {})
