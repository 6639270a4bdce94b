"""What a run measures of a model with a state that generates, on tiny ones and made-up text."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icd_lib.decoding import DECODERS, EXPORTED
from icd_lib.decoding.base import Decoder
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.kernels import use_fast_scan
from icd_lib.kernels.mixer import FastMambaMixer
from icd_lib.measure.options import DecodeOptions
from icd_lib.records.decoding import DECODING, Decoding
from icd_lib.records.generation import EXPORTED_ARM
from icd_lib.report import Results, decoding, generation
from icd_lib.report.picture import Picture
from icd_lib.report.table import DoesNotApply, Missing, Table
from icd_lib.storage.atomic import to_json
from icd_lib.storage.devices import Device
from icd_lib.storage.record_json import from_json
from icd_lib.workloads.model import decode
from icd_lib.workloads.model import engines as module
from icd_lib.workloads.model.decode_clock import Clock
from icd_lib.workloads.model.engines import Engines, exported_in
from tests.pretended import DEVICE, pretending
from tests.tiny_decoders import tiny_decoder
from tests.tiny_mambas import VOCAB, make_uneven, tiny_mamba

CPU = Device()
SMALL = {"clock": ((1, 12), (2, 12), (1, 40)), "peers": (), "rounds": 1, "steps": 3, "greedy": 8}


class Text:
    """What `measure_decode` asks of a context."""

    is_trained, judging = False, "seen"

    def __init__(self, device: Device = CPU, precision: str = "fp32", **changes):
        self.device, self.precision = device, "fp32"
        self.target = SimpleNamespace(row=SimpleNamespace(precision=precision))
        section = DecodeOptions(**(SMALL | changes)).model_dump()
        self.run = SimpleNamespace(scenario=SimpleNamespace(config={"decode": section}))
        self.progress = lambda line: None

    def get(self, path: str):
        return {"seed": 0, "measure.bootstrap": 100}[path]

    def fixed(self, batch: int, length: int) -> dict:
        return {"input_ids": torch.from_numpy(np.random.default_rng(7).integers(0, VOCAB, (batch, length)))}


def models():
    dense = use_fast_scan(tiny_mamba(dtype=torch.float32))
    smaller = use_fast_scan(make_uneven(tiny_mamba(dtype=torch.float32)))
    return {"dense": dense, "linear": dense, "iterative": smaller}, {"same_transform": smaller}


@pytest.fixture(scope="module")
def found() -> Decoding:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decode.Engines, "rows", {})  # runtimes have tests of their own
        compared, controls = models()
        return from_json(Decoding, decode.measure_decode(Text(), compared, controls), DECODING)


def test_every_arm_is_timed_at_every_shape(found):
    assert [(shape.batch, shape.context) for shape in found.clock] == [(1, 12), (2, 12), (1, 40)]
    for shape in found.clock:
        assert set(shape.arms) == {"dense", "dense_again", "stock", "linear", "iterative", "same_transform"}
        assert not shape.missing and all(arm.step_ms.value > 0 for arm in shape.arms.values())
        assert set(shape.arms["iterative"].step_vs) == {"same_transform", "linear"}
        assert set(shape.arms["dense"].step_vs) == {"stock"}


def test_a_state_is_as_large_after_any_prompt_and_smaller_once_pruned(found):
    short, _, long = found.clock
    for arm in short.arms:
        assert short.arms[arm].bytes_per_token.value == long.arms[arm].bytes_per_token.value
    assert short.arms["iterative"].bytes_per_token.value < short.arms["dense"].bytes_per_token.value


def test_arms_with_one_function_say_the_same(found):
    pairs = {(item.arm, item.other): item for item in found.same_tokens}
    assert set(pairs) == {("iterative", "same_transform"), ("dense", "stock")}
    for item in pairs.values():
        assert item.equal == item.texts == 4 and item.tokens == 8 and item.first_apart is None


class Waiting(Decoder):
    """A decoder that says nothing, or that cannot be made ready for a shape."""

    def __init__(self, refuses: bool):
        super().__init__()
        self.refuses, self.warmed = refuses, []

    def warm(self, ids):
        self.warmed.append(ids.shape)
        if self.refuses:
            raise ResourceError("one graph more than the limit")

    def _prefill(self, prompt):
        return np.zeros((len(prompt.ids), VOCAB), np.float32)

    def _step(self, ids, positions):
        return np.zeros((len(ids), VOCAB), np.float32)

    def _forget(self):
        pass


def test_what_cannot_be_made_ready_for_a_shape_is_left_out_with_the_reason():
    made = {"dense": Waiting(False), "compile": Waiting(True)}
    arms = {name: (name, lambda name=name: made[name]) for name in made}
    shape = Clock(Text(), steps=3, rounds=1).shape(arms, 2, 12, lambda arm: 12)
    assert list(shape.arms) == ["dense"] and shape.missing == {"compile": "[E_RES_101] one graph more than the limit"}
    assert made["dense"].warmed == made["compile"].warmed == [(2, 12)]


def test_dense_and_the_result_decode_in_each_peer_and_in_openvino_the_result_as_it_is_left():
    compared, exported = models()[0], "openvino_bf16"
    engines = Engines(compared, ("compile", "openvino", "openvino_bf16"), chosen=exported)
    assert engines.rows == {
        "compile": ("compile", "dense"),
        "openvino": ("openvino", "dense"),
        "openvino_bf16": ("openvino_bf16", "dense"),
        "iterative_compile": ("compile", "iterative"),
        EXPORTED_ARM: (exported, "iterative"),
    }
    assert engines.against == {"iterative_compile": ("compile",), EXPORTED_ARM: engines.peers}
    alone = Engines({"dense": compared["dense"]}, ("compile",))
    assert list(alone.rows) == ["compile"] and alone.against == {}


@pytest.mark.parametrize(
    ("fp32", "bf16", "taken"), [(2.0, 1.0, "openvino_bf16"), (1.01, 1.0, "openvino"), (1.0, 2.0, "openvino")]
)
def test_of_the_rows_that_its_weights_allow_the_result_is_left_in_the_fastest(fp32, bf16, taken, monkeypatch):
    graphs, decoders = [], {name: Waiting(False) for name in EXPORTED["float"]}
    rows = {
        name: SimpleNamespace(
            check=lambda: None,
            graph=lambda model: graphs.append(model) or "the graph",
            prepare=lambda model, graph, name=name: decoders[name] if graph == "the graph" else None,
        )
        for name in EXPORTED["float"]
    }
    monkeypatch.setattr(module, "DECODERS", rows)
    monkeypatch.setattr(module, "exported_rows", lambda model: EXPORTED["float"])
    monkeypatch.setattr(
        module, "measure_interleaved", lambda calls, **_: {n: [t] * 3 for n, t in zip(calls, (fp32, bf16), strict=True)}
    )
    compared = models()[0]
    engines = Engines(compared, ())
    assert engines.rows == {EXPORTED_ARM: (taken, "iterative")} and exported_in(engines) == taken
    assert graphs == [compared["iterative"]], "both read one graph, and it is kept"
    assert engines.graph(EXPORTED_ARM) == "the graph" and len(graphs) == 1
    assert exported_in(Engines({"dense": compared["dense"]}, ())) is None


def test_where_openvino_is_missing_the_first_row_is_named_and_the_clock_says_why(monkeypatch):
    def check():
        raise ResourceError("package openvino is not installed")

    monkeypatch.setattr(module, "DECODERS", {"openvino": SimpleNamespace(check=check)})
    monkeypatch.setattr(module, "exported_rows", lambda model: EXPORTED["float"])
    assert Engines(models()[0], ()).exported == "openvino"


@pytest.mark.slow
def test_a_run_times_both_in_torch_compile():
    """Every model and every batch is a graph of its own: more of them than one function may have."""
    DECODERS["compile"].reset()
    text = Text(peers=("compile",), clock=((1, 12), (3, 12)))
    compared, controls = models()
    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(recompile_limit=2):
        patch.setattr(decode, "exported_loss", lambda context, engines: [])
        found = from_json(Decoding, decode.measure_decode(text, compared, controls), DECODING)
    DECODERS["compile"].reset()
    for shape in found.clock:
        if "compile" in shape.missing:
            assert "C++ compiler" in shape.missing["compile"]
            pytest.skip(shape.missing["compile"])
        assert shape.arms["compile"].label.startswith("dense, torch.compile")
        assert set(shape.arms["iterative_compile"].step_vs) == {"compile"}


def test_texts_that_part_are_counted_and_placed():
    first = np.zeros((3, 5), int)
    second = first.copy()
    second[1, 3:], second[2, 4] = 9, 9
    item = decode._compared(("iterative", "same_transform"), first, second)
    assert (item.texts, item.equal, item.first_apart) == (3, 1, 3)


def test_stock_has_transformers_own_mixers_and_the_same_weights():
    dense = models()[0]["dense"]
    twin = decode.stock(dense)
    assert not any(isinstance(module, FastMambaMixer) for module in twin.modules())
    assert any(isinstance(module, FastMambaMixer) for module in dense.modules())
    assert twin.lm_head.weight is dense.lm_head.weight


def test_other_models_are_refused_by_name():
    decode.check_state(models()[0]["dense"])
    for model in (tiny_decoder(), tiny_mamba("backbone")):
        with pytest.raises(ConfigError, match=f"{type(model).__name__} is none; leave it out"):
            decode.check_state(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_on_a_device_every_arm_generates_there_and_what_is_of_the_cpu_says_so(precision):
    compared, controls = models()
    text = Text(DEVICE, precision, peers=("openvino",))
    with pretending():
        found = from_json(Decoding, decode.measure_decode(text, compared, controls), DECODING)
    here = from_json(Decoding, decode.measure_decode(Text(), {"dense": compared["dense"]}, {}), DECODING)
    for shape, on_cpu in zip(found.clock, here.clock, strict=True):
        assert set(shape.arms) == {"dense", "dense_again", "stock", "linear", "iterative", "same_transform"}
        assert set(shape.missing) == {"openvino", EXPORTED_ARM}
        assert all("this run does not" in reason for reason in shape.missing.values())
        assert all(arm.label.endswith(f"(Transformers eager on CUDA, {precision})") for arm in shape.arms.values())
        size = on_cpu.arms["dense"].bytes_per_token.value / shape.arms["dense"].bytes_per_token.value
        assert size == pytest.approx(1.0) if precision == "fp32" else 1 < size <= 2
    assert all(item.equal == item.texts for item in found.same_tokens), "they are said in fp32, whatever is timed"
    assert not found.deployed


def test_a_decoder_generates_on_a_device_with_its_own_cache():
    dense = tiny_decoder(dtype=torch.float32, max_position_embeddings=128)
    decode.check_state(dense, DEVICE.name, DecodeOptions(**SMALL))
    with pretending():
        found = from_json(
            Decoding, decode.measure_decode(Text(DEVICE), {"dense": dense, "iterative": dense}, {}), DECODING
        )
    short, _, long = found.clock
    assert set(short.arms) == {"dense", "dense_again", "iterative"}, "there are no other mixers to put in"
    assert long.arms["dense"].bytes_per_token.value > short.arms["dense"].bytes_per_token.value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clock": ((1, 124),)}, "the longest of decode.clock with its steps has 129"),
        ({"greedy": 80}, "decode.greedy has 144"),
    ],
)
def test_texts_longer_than_a_decoders_positions_are_refused_by_name(changes, says):
    decoder = tiny_decoder(max_position_embeddings=128)
    with pytest.raises(ConfigError, match=f"{says} tokens"):
        decode.check_state(decoder, DEVICE.name, DecodeOptions(**SMALL | changes))
    decode.check_state(tiny_mamba(), options=DecodeOptions(**SMALL | changes))


def results_of(tmp_path, entry, config) -> Results:
    if entry is not None:
        (tmp_path / "measure").mkdir()
        (tmp_path / DECODING).write_text(to_json(entry))
    return Results(dir=tmp_path, lock={"scenario": "mamba", "config": config})


def test_pages_show_it(found, tmp_path):
    results = results_of(tmp_path, found, {"decode": {}})
    tables = [decoding.throughput_table(results), decoding.same_tokens_table(results), generation.decode_table(results)]
    assert all(isinstance(table, Table) for table in tables)
    assert tables[0].columns == ["arm", "batch 1", "batch 2"] and len(tables[0].rows) == 6
    assert tables[1].rows[0][:3] == ["iterative", "same_transform", "4 of 4"]
    assert len(tables[2].rows) == 18
    for draw in (decoding.throughput, generation.decode_times):
        assert isinstance(draw(results), Picture)
    lines = decoding.lines(results)
    assert "iterative and same_transform say the same 8 tokens after 4 of 4 prompts." in lines
    assert any(line.startswith("At 1 × 40, dense takes") and "against stock" in line for line in lines)
    assert isinstance(generation.cache_table(results), DoesNotApply), "nothing is evicted from a state"
    assert EXPORTED_ARM not in found.clock[0].arms and generation.exported_lines(results) == []


def test_other_runs_have_none(tmp_path):
    assert isinstance(decoding.throughput_table(results_of(tmp_path, None, {})), DoesNotApply)
    assert decoding.lines(results_of(tmp_path, None, {"kv": {}})) == []
    assert isinstance(decoding.throughput(results_of(tmp_path, None, {"decode": {}})), Missing)
