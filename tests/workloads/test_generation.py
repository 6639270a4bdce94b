"""What a run measures of a decoder that generates, on a tiny one and made-up text."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icd_lib.codesign.options import Settings
from icd_lib.data.language import Blocks, pack
from icd_lib.errors import ConfigError, MeasureError
from icd_lib.metric import figure
from icd_lib.records.generation import GENERATION, CachePoint, Generation, LookUpPoint
from icd_lib.report import Results, generation, generation_rows
from icd_lib.report.picture import Picture
from icd_lib.report.table import DoesNotApply, Missing, Table
from icd_lib.storage.record_json import from_json
from icd_lib.transforms.options import KvOptions
from icd_lib.workloads.model import cloze
from icd_lib.workloads.model import generation as measured
from tests.tiny_decoders import VOCAB, tiny_decoder
from tests.tiny_words import tiny_words

SMALL = {"context": 64, "continued": 8, "blocks": 4, "keep": (0.75, 0.5), "page": 4, "sinks": 2, "window": 4}
SMALL |= {"clock": ((2, 40),), "rounds": 1, "steps": 3, "questions": 3, "peers": (), "cloze": 6}


def blocks(count: int, length: int, seed: int) -> Blocks:
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, VOCAB, (count, length))
    return Blocks(ids, np.repeat(np.arange(count)[:, None], length, 1))


class Text:
    """What `measure_generation` asks of a context."""

    selecting, judging, is_trained, tokenizer = "selection", "unseen", True, None
    judged = ("unseen", "seen")
    longest = 10**6  # tokens of a text

    def __init__(self, **changes):
        kv = KvOptions(**(SMALL | changes)).model_dump()
        self.run = SimpleNamespace(scenario=SimpleNamespace(config={"kv": kv}))
        self.told: list[str] = []
        self.of: list[tuple[str, str]] = []  # kind and identity of what dense was asked
        self.progress = self.told.append

    def get(self, path: str):
        return {"seed": 0, "measure.bootstrap": 100}[path]

    def long_blocks(self, split: str, length: int, count: int, *, cure: str) -> dict[str, Blocks]:
        if length > self.longest:
            raise MeasureError(f"no domain of the split '{split}' has 2 texts of {length} tokens; {cure}")
        return {name: blocks(count // 2, length, seed) for seed, name in enumerate((f"{split} a", f"{split} b"))}

    def of_dense(self, kind: str, of: dict, sort: type, make):
        self.of.append((kind, json.dumps(of)))
        return make()

    def fixed(self, batch: int, length: int) -> dict:
        return {"input_ids": torch.from_numpy(blocks(batch, length, 7).ids)}


@pytest.fixture
def models():
    return three_models()


def three_models():
    sizes = {"max_position_embeddings": 256, "dtype": torch.float32}
    return {"dense": tiny_decoder(**sizes), "linear": tiny_decoder(**sizes), "iterative": tiny_decoder(**sizes)}


@pytest.fixture(scope="module")
def found() -> Generation:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(measured, "looked_up", lambda *given: [])
        monkeypatch.setattr(measured, "deployed_points", lambda *given: [])
        monkeypatch.setattr(measured, "cloze_points", lambda *given, **more: ([], {"unseen": "no word can be hidden"}))
        monkeypatch.setattr(
            measured, "settings_of", lambda context: Settings(quality_budget_pp=100, max_perplexity_ratio=99)
        )
        entry = measured.measure_generation(Text(), three_models())
        return from_json(Generation, entry, GENERATION)


def test_every_cache_is_judged_and_the_smallest_that_holds_is_chosen(found):
    assert {(point.split, point.unit, point.keep) for point in found.points} == {
        (split, unit, keep)
        for split in ("selection", "unseen", "seen")
        for unit in ("token", "page", "recent")
        for keep in (0.75, 0.5)
    }
    assert found.keep == 0.5 and "smallest share" in found.why
    assert found.layout_error is not None and found.layout_error < 1e-4


def test_packing_reads_fewer_pages_than_holes(found):
    assert {"token", "page"} <= {point.unit for point in found.points}
    for point in found.points:
        if point.unit == "token":
            assert point.pages_iterative < point.pages_linear <= point.pages_full
            assert point.pages_iterative == pytest.approx(point.keep * point.pages_full, rel=0.1)
        if point.unit == "page":
            assert point.pages_iterative == point.pages_linear


def test_every_arm_is_timed_on_the_same_text(found):
    (shape,) = found.clock
    names = {"dense", "dense_again", "stock", "linear", "same_transform", "iterative"}
    assert names <= set(shape.arms) | set(shape.missing)
    assert all(arm.step_ms.value > 0 for arm in shape.arms.values())
    assert shape.arms["iterative"].bytes_per_token.value < shape.arms["dense"].bytes_per_token.value


def test_no_model_is_changed(models, monkeypatch):
    monkeypatch.setattr(measured, "looked_up", lambda *given: [])
    monkeypatch.setattr(measured, "deployed_points", lambda *given: [])
    monkeypatch.setattr(measured, "cloze_points", lambda *given, **more: ([], {}))
    monkeypatch.setattr(measured, "settings_of", lambda context: Settings())
    before = {name: value.clone() for name, value in models["dense"].state_dict().items()}
    way = models["dense"].config._attn_implementation
    measured.measure_generation(Text(), models)
    assert models["dense"].config._attn_implementation == way
    assert all(torch.equal(before[name], value) for name, value in models["dense"].state_dict().items())


def test_a_cache_that_loses_too_much_stays_whole(found, monkeypatch):
    monkeypatch.setattr(measured, "settings_of", lambda context: Settings(max_perplexity_ratio=1.0000001))
    keep, why = measured.chosen(Text(), [point for point in found.points if point.unit == "token"])
    assert keep is None and "stays whole" in why


def test_the_error_of_the_estimate_counts(found, monkeypatch):
    """A ratio of 1.005 ± 0.004 is within 1.01 with one standard error and not with two."""
    point = next(point for point in found.points if point.unit == "token")
    half = 1.96 * 0.004
    changed = {
        "perplexity_ratio": type(point.perplexity_ratio)(
            value=1.005, unit="1", kind="measured", n=1, method="", ci95=(1.005 - half, 1.005 + half)
        )
    }
    near = CachePoint(**{**vars(point), **changed})
    for z, kept in ((1.0, point.keep), (2.0, None)):
        settings = Settings(quality_budget_pp=100, max_perplexity_ratio=1.01, selection_z=z)
        monkeypatch.setattr(measured, "settings_of", lambda context, settings=settings: settings)
        assert measured.chosen(Text(), [near])[0] == kept


def results_of(tmp_path, found: Generation | None, config: dict) -> Results:
    from icd_lib.storage.atomic import to_json

    if found is not None:
        (tmp_path / "measure").mkdir()
        (tmp_path / GENERATION).write_text(to_json(found))
    return Results(dir=tmp_path, lock={"scenario": "smollm2", "config": config})


def test_pages_show_what_was_found(found, tmp_path):
    results = results_of(tmp_path, found, {"kv": {}})
    tables = [generation.cache_table(results), generation.decode_table(results)]
    assert all(isinstance(table, Table) for table in tables)
    assert "50% (chosen)" in repr(tables[0]) and "dense, cache in place" in repr(tables[1])
    for draw in (generation.cache_frontier, generation.decode_times):
        assert isinstance(draw(results), Picture)
    assert any("fewer pages" in line for line in generation.lines(results))
    assert isinstance(generation.lookup_table(results), Missing)
    empty = generation.cloze_table(results)
    assert isinstance(empty, Missing) and "unseen text: no word can be hidden" in empty.reason


class Told(Text):
    """Text that can be read: sentences over a few words, two domains whose documents have the same numbers."""

    tokenizer = tiny_words()

    def long_blocks(self, split: str, length: int, count: int, *, cure: str) -> dict[str, Blocks]:
        if split == self.poor:
            raise MeasureError(f"no domain of the split '{split}' has 2 texts of {length} tokens; {cure}")
        nouns = ["river", "garden", "window", "letter", "winter"]
        drawn = np.random.default_rng(len(split)).integers(5, size=(8, 30, 2))
        stories = [" ".join(f"The {nouns[a]} saw a {nouns[b]}." for a, b in story) for story in drawn]
        return {name: pack(self.tokenizer, half, length) for name, half in (("a", stories[:4]), ("b", stories[4:]))}

    poor = ""


@pytest.fixture
def readers():
    """Dense, a model that is the same, and another one."""
    sizes = {"max_position_embeddings": 256, "vocab_size": 264, "dtype": torch.float32}
    return {"dense": tiny_decoder(**sizes), "linear": tiny_decoder(**sizes), "iterative": tiny_decoder(seed=5, **sizes)}


def test_cloze_questions_are_paired_with_dense(readers):
    points, missing = cloze.cloze_points(Told(), readers, count=6, longest=200)
    assert not missing and [(point.split, point.arm) for point in points] == [
        (split, arm) for split in ("unseen", "seen") for arm in ("linear", "iterative")
    ]
    for point in points:
        low, high = point.right_pct.ci95
        assert point.n == point.right_pct.n == 6 and point.chance_pct == 25
        assert low - 1e-9 <= point.right_pct.value <= high + 1e-9
        if point.arm == "linear":  # the same model: nothing is lost, and surely
            assert low == high == point.right_pct.value == point.dense_pct
    assert len(Told().told) == 0 and cloze.questions_of(Told(), "unseen", 6, 200)[0].source < 8


def test_a_split_without_text_is_told(readers, found, tmp_path):
    text = Told()
    text.poor = "seen"
    points, missing = cloze.cloze_points(text, readers, count=6, longest=200)
    assert {point.split for point in points} == {"unseen"} and "no domain of the split 'seen'" in missing["seen"]
    assert cloze.cloze_points(text, readers, count=999, longest=200)[1]["unseen"].startswith("999 cloze questions")
    table = generation.cloze_table(
        results_of(tmp_path, replace(found, cloze=points, cloze_missing=missing), {"kv": {}})
    )
    assert isinstance(table, Table) and "no domain of the split 'seen'" in table.note
    assert [row[:2] for row in table.rows] == [["unseen", "linear"], ["unseen", "iterative"]]


def test_records_are_looked_up_in_every_split(readers, found, tmp_path):
    text = Told()
    options = measured.Options(KvOptions(**(SMALL | {"context": 200, "keep": (0.5,)})).model_dump())
    dense, result = (measured.paged(readers[arm]) for arm in ("dense", "iterative"))
    points = [point for split in text.judged for point in measured.looked_up(text, options, dense, result, split)]
    assert [(point.split, point.keep, point.n) for point in points] == [
        (split, keep, 3) for split in ("unseen", "seen") for keep in (None, 0.5)
    ]
    asked = [of for kind, of in text.of if kind == "lookups"]
    assert len(set(asked)) == 2, "every split's own questions"
    same = replace(found, lookups=points)
    table = generation.lookup_table(results_of(tmp_path, same, {"kv": {}}))
    assert [row[:2] for row in table.rows] == [["unseen", "all"], ["unseen", "50%"], ["seen", "all"], ["seen", "50%"]]


def test_an_older_runs_look_ups_are_of_the_text_that_judges(found, tmp_path):
    item = figure(50.0, "%", "measured", n=2, method="greedy", ci95=(0.0, 100.0))
    old = replace(found, lookups=[LookUpPoint(keep=None, n=2, exact_pct=item, dense_pct=50.0)])
    results = results_of(tmp_path, old, {"kv": {}, "codesign": {"budget_on": "seen"}})
    assert "split" not in json.loads((tmp_path / GENERATION).read_text())["lookups"][0]
    assert generation.lookup_table(results).rows[0][:2] == ["seen", "all"]


def test_every_figure_has_a_row_of_its_own_with_its_split(readers, found, tmp_path):
    points, _ = cloze.cloze_points(Told(), readers, count=6, longest=200)
    item = figure(50.0, "%", "measured", n=2, method="greedy", ci95=(0.0, 100.0))
    looked = [LookUpPoint(split=split, keep=None, n=2, exact_pct=item, dense_pct=60.0) for split in ("unseen", "seen")]
    results = results_of(tmp_path, replace(found, cloze=points, lookups=looked), {"kv": {}})
    rows = {row[:3]: row[3] for row in generation_rows.figures(results)}
    assert len(rows) == len(generation_rows.figures(results))
    for split in ("unseen", "seen"):
        assert rows["iterative", "64 tokens", f"lookups.all.exact_pct.{split}"] == item
        reference = rows["dense", "64 tokens", f"lookups.all.exact_pct.{split}"]
        assert (reference.value, reference.ci95) == (60.0, None)
        assert {arm for arm, _, metric in rows if metric == f"cloze.right_pct.{split}"} == set(readers)
        assert ("iterative", "64 tokens", f"cache.page.0.5.kl_full.{split}") in rows
    assert rows["linear", "2x40", "decode.step_ms"] == found.clock[0].arms["linear"].step_ms
    assert generation_rows.figures(results_of(tmp_path, None, {})) == []


@pytest.mark.parametrize(
    ("asks", "cure"),
    [
        (
            lambda text, options, model: measured.judged(text, options, model, model, "unseen"),
            r"kv\.context or kv\.cont",
        ),
        (
            lambda text, options, model: measured.looked_up(text, options, model, model, "unseen"),
            r"kv\.context, which look-ups",
        ),
        (lambda text, options, model: cloze.questions_of(text, "unseen", 6, 64), r"a passage of 256 tokens, or of kv"),
    ],
)
def test_who_asks_for_long_texts_says_what_helps_where_there_are_none(models, asks, cure):
    text = Text()
    text.longest = 8
    with pytest.raises(MeasureError, match=cure):
        asks(text, measured.Options(text.run.scenario.config["kv"]), models["dense"])


def test_a_run_asks_what_its_options_say(models, monkeypatch):
    asked = {}
    monkeypatch.setattr(measured, "looked_up", lambda *given: [])
    monkeypatch.setattr(measured, "deployed_points", lambda *given: [])
    monkeypatch.setattr(measured, "settings_of", lambda context: Settings())
    monkeypatch.setattr(measured, "shape_times", lambda *given: None)
    monkeypatch.setattr(measured, "cloze_points", lambda context, arms, **how: asked.update(how, arms=arms) or ([], {}))
    measured.measure_generation(Text(), models)
    assert asked == {"count": 6, "longest": 64, "arms": models}


@pytest.mark.parametrize(
    ("kind", "sizes", "says"),
    [
        ("mistral", {"sliding_window": 16}, "sliding window of 16 tokens.*leave the section kv out"),
        (
            "llama",
            {"max_position_embeddings": 70},
            "kv.context with kv.continued has .* tokens.*: lower their sum",
        ),
        ("llama", {"max_position_embeddings": 75}, "kv.clock, .* has .* tokens but LlamaForCausalLM has positions for"),
    ],
)
def test_what_the_model_cannot_do_is_refused_at_setup(kind, sizes, says):
    text = Text(clock=((1, 16), (1, 72)))
    text.model = tiny_decoder(kind, dtype=torch.float32, **sizes)
    with pytest.raises(ConfigError, match=says):
        measured.check_generation(text)
    text.model = tiny_decoder(dtype=torch.float32, max_position_embeddings=256)
    measured.check_generation(text)


def test_single_tokens_count_with_their_neighbours_and_an_even_number_of_those_is_refused():
    options = measured.Options(KvOptions(**SMALL, pool=5).model_dump())
    assert {unit: options.policy(unit, 0.5, 64).pool for unit in measured.UNITS} == {"token": 5, "page": 1, "recent": 1}
    text = Text(pool=4)
    text.model = tiny_decoder(dtype=torch.float32, max_position_embeddings=256)
    with pytest.raises(ConfigError, match=r"kv\.pool is odd, as many neighbours on either side; got 4"):
        measured.check_generation(text)


def test_other_runs_have_none(tmp_path):
    results = results_of(tmp_path, None, {})
    assert isinstance(generation.cache_table(results), DoesNotApply) and generation.lines(results) == []
    assert isinstance(generation.cloze_table(results), DoesNotApply)
    assert isinstance(generation.deployed_table(results), DoesNotApply)
    assert isinstance(generation.decode_table(results_of(tmp_path, None, {"kv": {}})), Missing)
