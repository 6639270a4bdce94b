"""Scenarios: precedence, hashing, and every refusal of bad input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icd_lib.data.options import DataOptions
from icd_lib.errors import ConfigError
from icd_lib.measure.options import MeasureOptions
from icd_lib.run.configuration import parse_override
from icd_lib.run.options import key_paths
from icd_lib.run.scenario import list_scenarios, load_scenario


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_bert_is_listed_with_a_description_and_loads():
    assert list_scenarios()["bert"]
    scenario = load_scenario("bert")
    assert (scenario.name, scenario.get("model.family"), scenario.quick) == ("bert", "bert", False)


@pytest.mark.parametrize("block", ["", "quick:", "quick: {}"])
def test_quick_is_refused_where_nothing_says_what_is_fewer(tmp_path, block):
    path = write(tmp_path, f"measure: {{repeats: 50}}\n{block}")
    assert load_scenario(path).get("measure.repeats") == 50
    with pytest.raises(ConfigError, match="mine.yaml has no quick block.*leave --quick out, or add a block"):
        load_scenario(path, quick=True)


def test_precedence_is_default_file_quick_override_seed(tmp_path):
    path = write(tmp_path, "measure: {repeats: 50, warmup: 5}\nseed: 1\nquick: {measure: {repeats: 9}, seed: 2}")
    plain, quick = load_scenario(path), load_scenario(path, quick=True)
    assert [s.get("measure.repeats") for s in (plain, quick)] == [50, 9]
    assert [s.get("measure.warmup") for s in (plain, quick)] == [5, 5]
    assert [s.get("quick") for s in (plain, quick)] == [False, True]
    assert plain.get("measure.bootstrap") == MeasureOptions().bootstrap
    assert load_scenario(path, ["measure.repeats=7"], quick=True).get("measure.repeats") == 7
    assert load_scenario(path, ["seed=3"], quick=True).get("seed") == 3
    assert load_scenario(path, ["seed=3"], quick=True, seed=4).get("seed") == 4
    assert plain.name == "mine"


def test_hash_depends_on_what_is_configured_and_not_on_how_it_was_written(tmp_path):
    first = write(tmp_path, "seed: 1\nmeasure: {repeats: 30, warmup: 2}\nquick: {seed: 1}", "a.yaml")
    second = write(tmp_path, "scenario: a\nmeasure: {warmup: 2, repeats: 30}\nseed: 0x1\n", "b.yaml")
    assert load_scenario(first).sha256 == load_scenario(second).sha256
    assert load_scenario(first).sha256 != load_scenario(first, ["measure.warmup=3"]).sha256
    assert load_scenario(first).sha256 != load_scenario(first, quick=True).sha256
    assert load_scenario(first, ["seed=1"]).sha256 == load_scenario(first).sha256


def test_changing_one_scenario_does_not_reach_another():
    load_scenario("bert").config["codesign"]["strengths"].append(9)
    load_scenario("bert").config["measure"]["shapes"][0][0] = 9
    fresh = load_scenario("bert")
    assert 9 not in fresh.get("codesign.strengths") and fresh.get("measure.shapes")[0] == [8, 128]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("transform.distill_lr=2e-4", "transform.distill_lr", 2e-4),
        ("transform.distill_lr=2.5E-4", "transform.distill_lr", 2.5e-4),
        ("codesign.latency_target_rel=-0.3", "codesign.latency_target_rel", -0.3),
        ("codesign.latency_target_rel=null", "codesign.latency_target_rel", None),
        ("transform.uniform=true", "transform.uniform", True),
        ("measure.shapes=[[2, 8]]", "measure.shapes", [[2, 8]]),
        ("model.checkpoint=a=b", "model.checkpoint", "a=b"),
        ("cost.lam=2", "cost.lam", 2.0),
    ],
)
def test_override_values_are_yaml(override, path, value):
    got = load_scenario("bert", [override]).get(path)
    assert got == value and type(got) is type(value)


finite = st.floats(allow_nan=False, allow_infinity=False)  # JSON's Infinity and NaN are strings in YAML


@given(st.sampled_from(key_paths()), st.one_of(st.integers(), st.text(max_size=8), finite, st.booleans()))
def test_an_override_is_either_refused_or_applied_as_given(path, value):
    try:
        node = parse_override(f"{path}={value if isinstance(value, str) else json.dumps(value)}")
    except ConfigError as error:
        assert path in str(error)
        return
    for key in path.split("."):
        node = node[key]
    if isinstance(value, str):  # a text is itself, elsewhere it is YAML
        assert node == value or type(node) is not str
    elif type(node) is str:
        assert node == json.dumps(value)
    else:  # an integer where a number is wanted becomes the nearest float64
        assert node == (float(value) if type(node) is float else value)


ODD = ["/models/my #1 model", "/m: x", " /m ", "a=b", '"quoted"', "it's", "50 %", "{x}", "[x]", "naïve/模型", "no"]
ODD += ["1e3", "~x", "\\n"]


@pytest.mark.parametrize("text", ODD)
def test_the_text_of_an_override_is_taken_character_by_character(text):
    scenario = load_scenario("bert", [f"model.checkpoint={text}", f"model.revision={text}"])
    assert scenario.get("model.checkpoint") == scenario.get("model.revision") == text
    assert load_scenario("bert", scenario.overrides).sha256 == scenario.sha256


def test_null_is_none_where_a_text_may_be_and_nothing_is_refused():
    assert load_scenario("bert", ["model.checkpoint=x", "model.checkpoint=null"]).get("model.checkpoint") is None
    for override, says in (("model.checkpoint=", "a text, or null for none"), ("model.dtype=", "one of float32")):
        with pytest.raises(ConfigError, match=f"nothing stands after '='; give {says}"):
            load_scenario("bert", [override])
    with pytest.raises(ConfigError, match="got 'null'"):
        load_scenario("bert", ["model.dtype=null"])


def test_a_section_that_need_not_be_there_can_be_taken_away_and_laid_over_again():
    for quick in (False, True):
        scenario = load_scenario("mamba", ["decode=null"], quick=quick)
        assert "decode" not in scenario.config and "decode" in load_scenario("mamba", quick=quick).config
    again = load_scenario("mamba", ["decode=null", "decode.rounds=2"])
    assert again.get("decode.rounds") == 2
    assert load_scenario("bert_domain", ["decode=null"]).sha256 == load_scenario("bert_domain").sha256
    with pytest.raises(ConfigError, match="'codesign' is a group; set one of its keys: "):
        load_scenario("bert", ["codesign=null"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed"], "key.path=value"),
        (["decode=1"], "one of its keys (or null, for none of it): "),
        (["=1"], "key.path=value"),
        (["sede=1"], "did you mean 'seed'"),
        (["codesign.quality_budget=1"], "did you mean 'codesign.quality_budget_pp'"),
        (["repeats=3"], "did you mean 'measure.repeats'"),
        (["codesign=1"], "is a group"),
        (["seed.x=1"], "no keys of its own"),
        (["seed=abc"], "takes an integer"),
        (["seed=true"], "takes an integer"),
        (["seed=1.5"], "takes an integer"),
        (["seed=-1"], "out of range"),
        (["transform.distill_lr=fast"], "takes a number"),
        (["transform.distill_lr=.inf"], "finite"),
        (["transform.ridge=0"], "more than 0"),
        (["codesign.latency_target_rel=0.3"], "at most 0"),
        (["transform.axes=[ffn, head]"], "did you mean 'heads'"),
        (["transform.axes=[]"], "at least 1"),
        (["transform.axes=ffn"], "takes a list"),
        (["measure.shapes=[[8]]"], "measure.shapes[0]"),
        (["seed=[1"], "not valid YAML"),
        (["seed=2024-13-01"], "not valid YAML"),
        (["seed=!!python/object/apply:os.getpid []"], "only plain values"),
        (["scenario=../../etc"], "folder name"),
        (["quick=true"], "unknown key 'quick'"),
        ([None], "key.path=value"),
        ("seed=1", "list of strings"),
    ],
)
def test_bad_overrides_are_refused_with_a_cure(overrides, says):
    with pytest.raises(ConfigError) as caught:
        load_scenario("bert", overrides)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- seed\n- 1", "takes a mapping"),
        ("", "takes a mapping"),
        ("just text", "takes a mapping"),
        ("seed: 1\nseed: 2", "given twice"),
        ("measure: {repeats: 5, repeats: 6}", "given twice"),
        ("1: 2", "must be a string"),
        ("measure: 5", "takes a mapping"),
        ("sed: 1", "did you mean 'seed'"),
        ("measure: {repeat: 5}", "did you mean 'measure.repeats'"),
        ("quick: {measure: {repeat: 5}}", "unknown key 'quick.measure.repeat'"),
        ("quick: {scenario: other}", "unknown key 'quick.scenario'"),
        ("quick: 1", "quick takes a mapping"),
        ("seed: 2025-01-01", "takes an integer"),
        ("seed: {a: 1}", "takes an integer"),
        ("seed: !!python/object/apply:os.getpid []", "only plain values"),
        ("!!python/object/new:dict [[]]", "only plain values"),
        ("seed: [1", "not valid YAML"),
        ("a: &a [x, x]\nseed: *b", "not valid YAML"),
    ],
)
def test_bad_files_are_refused_with_a_cure(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        load_scenario(write(tmp_path, text))
    assert says in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_scenario(path)


def test_yaml_that_doubles_itself_is_refused_in_a_short_message(tmp_path):
    levels = ["&a0 [x, x]"] + [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="seed takes an integer") as caught:
        load_scenario(write(tmp_path, f"seed: [{', '.join(levels)}]"))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("name", "says"), [("bret", "did you mean 'bert'"), ("no/such.yaml", "no scenario file")])
def test_unknown_scenarios_are_refused(name, says):
    with pytest.raises(ConfigError, match=says):
        load_scenario(name)


def test_get_names_the_nearest_key():
    with pytest.raises(ConfigError, match="measure.repeats"):
        load_scenario("bert").get("measure.repeat")


def test_a_relative_path_counts_from_the_folder_of_the_file_or_from_where_the_command_was_given(tmp_path, monkeypatch):
    folder = tmp_path / "scenarios"
    folder.mkdir()
    path = write(folder, "workload: {kind: trace}\ngraph: {trace: mine.jsonl}")
    assert load_scenario(path).get("graph.trace") == str(folder / "mine.jsonl")
    monkeypatch.chdir(tmp_path)
    given = load_scenario(path, ["graph.trace=other.jsonl", "seed=3"])
    assert given.get("graph.trace") == str(tmp_path / "other.jsonl")
    # A notebook reads the scenario again, from the project's root: it must be the same one.
    monkeypatch.chdir(folder)
    assert load_scenario(path, given.overrides).sha256 == given.sha256
    assert given.overrides[1] == "seed=3"
    assert load_scenario("trace").get("graph.trace") is None


@pytest.mark.parametrize("name", ["mock", "trace"])
def test_table_scenarios_are_listed_and_quick_is_smaller(name):
    assert list_scenarios()[name]
    assert load_scenario(name).get("workload.kind") == name
    quick = load_scenario(name, quick=True)
    assert quick.get("calibration.pilots") < load_scenario(name).get("calibration.pilots")
    assert quick.get("gates.smoke") == load_scenario(name).get("gates.smoke")
    assert quick.get("gates.smoke.delta_q") == 0.0 and quick.get("gates.smoke.l2_pp") is None


SEEN, SELECTION, UNSEEN = (list(getattr(DataOptions(), group)) for group in ("seen", "selection", "unseen"))


@pytest.fixture
def mine(tmp_path):
    """A scenario file that names no domain, so that it has the defaults."""
    return write(tmp_path, "seed: 0")


def test_domains_are_lists_that_an_override_replaces_whole(mine):
    scenario = load_scenario(mine)
    assert [scenario.get(f"data.{group}") for group in ("seen", "selection", "unseen")] == [SEEN, SELECTION, UNSEEN]
    other = load_scenario(
        mine, [f"data.unseen=[{UNSEEN[0]}]", "data.selection=[]", f"data.seen=[{SEEN[1]}, {SEEN[0]}]"]
    )
    assert other.get("data.unseen") == UNSEEN[:1] and other.get("data.selection") == []
    assert other.get("data.seen") == [SEEN[1], SEEN[0]] and other.sha256 != scenario.sha256
    moved = load_scenario(mine, ["data.selection=[]", f"data.unseen=[{SELECTION[0]}]"])
    assert moved.get("data.unseen") == SELECTION[:1], "the groups are compared when all overrides are in"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.unseen=[film]", "data.unseen: there is no domain 'film'; did you mean 'films'?"),
        ("data.seen=[encyclopedia]", "did you mean 'encyclopaedia'?"),
        ("data.selection=[verse]", "did you mean 'verses'?"),
        ("data.seen=[qqqq]", "Known: encyclopaedia, news"),
        ("data.seen=[]", None),
        ("data.seen=films", "takes a list"),
        ("data.seen=[1]", "data.seen[0] takes a string"),
        (f"data.unseen=[{SEEN[0]}]", f"data.unseen names the domain {SEEN[0]!r}, which is in data.seen already"),
        (
            f"data.seen=[{SELECTION[0]}]",
            f"data.selection names the domain {SELECTION[0]!r}, which is in data.seen already",
        ),
        (f"data.unseen=[{UNSEEN[0]}, {UNSEEN[0]}]", "which is in data.unseen already"),
        ("data.probe_items=10", "unknown key 'data.probe_items'"),
        ("data.other_domain_texts=10", "unknown key 'data.other_domain_texts'"),
        ("data.split_seed=-1", "out of range"),
        ("codesign.budget_on=everything", "one of unseen, seen"),
        ("codesign.dropin_budget_pp=-0.1", "at least 0"),
        ("gates.comparison=same_qualty", "did you mean 'same_quality'?"),
    ],
)
def test_domains_and_what_is_judged_are_checked_when_the_scenario_is_read(mine, override, says):
    if says is None:
        assert load_scenario(mine, [override]).get("data.seen") == [], "an own set may be all that calibrates"
        return
    with pytest.raises(ConfigError) as caught:
        load_scenario(mine, [override])
    assert says in str(caught.value)


def test_a_domain_in_two_groups_of_a_file_is_refused_also_when_only_quick_says_so(tmp_path):
    text = "data: {seen: [news], selection: [manual], unseen: [films]}\nquick: {data: {unseen: [news]}}"
    path = write(tmp_path, text)
    assert load_scenario(path).get("data.unseen") == ["films"]
    with pytest.raises(ConfigError, match=r"data\.unseen names the domain 'news', which is in data\.seen"):
        load_scenario(path, quick=True)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("codesign.dropin_budget_pp=0.5", "codesign.dropin_budget_pp", 0.5),
        ("codesign.dropin_budget_pp=null", "codesign.dropin_budget_pp", None),
        ("codesign.budget_on=seen", "codesign.budget_on", "seen"),
        ("data.split_seed=7", "data.split_seed", 7),
        ("gates.comparison=same_quality", "gates.comparison", "same_quality"),
    ],
)
def test_what_is_judged_can_be_set(mine, override, path, value):
    plain, given = load_scenario(mine), load_scenario(mine, [override])
    assert given.get(path) == value and (plain.get(path) == value) == (given.sha256 == plain.sha256)


@pytest.mark.parametrize("name", list_scenarios())
@pytest.mark.parametrize("quick", [False, True])
def test_every_shipped_scenario_has_text_to_choose_on(name, quick):
    """A budget on unseen text is chosen with domains that calibrate nothing; one on seen text with parts of those."""
    data, on = load_scenario(name, quick=quick).get("data"), load_scenario(name, quick=quick).get("codesign.budget_on")
    if load_scenario(name).get("workload.kind") == "model" and load_scenario(name).get("model.weights") == "trained":
        assert bool(data["selection"]) == (on == "unseen") and data["seen"] and data["unseen"]


def test_counters_are_switched_off_by_the_names_of_the_specification_too():
    plain = load_scenario("bert", ["measure.ncu=false", "measure.energy=false"])
    other = load_scenario("bert", ["measure.ncu_enable=false", "measure.power_enable=false"])
    assert other.config == plain.config and other.sha256 == plain.sha256
    assert other.get("measure.ncu") is other.get("measure.energy") is False
    assert load_scenario("bert", ["measure.ncu=true", "measure.ncu_enable=true"]).get("measure.ncu") is True


@pytest.mark.parametrize("names", [("ncu", "ncu_enable"), ("power_enable", "energy")])
def test_two_names_that_contradict_each_other_are_refused_wherever_they_stand(tmp_path, names):
    first, second = names
    with pytest.raises(ConfigError, match=f"measure.{first} and measure.{second} are two names of one option"):
        load_scenario("bert", [f"measure.{first}=true", f"measure.{second}=false"])
    path = tmp_path / "mine.yaml"
    path.write_text(f"measure: {{{first}: true, {second}: false}}\n")
    with pytest.raises(ConfigError, match="two names of one option"):
        load_scenario(path)
    path.write_text(f"measure: {{{first}: true}}\n")
    assert (
        load_scenario(path, [f"measure.{second}=false"]).config["measure"]["ncu" if "ncu" in first else "energy"]
        is False
    )


def test_what_only_a_gpu_has_changes_no_other_hash():
    assert not {"ncu_rounds", "ncu_budget_s", "energy_windows", "energy_window_s"} & set(
        load_scenario("bert").get("measure")
    )
    assert load_scenario("bert", ["measure.energy_windows=3"]).get("measure.energy_windows") == 3
