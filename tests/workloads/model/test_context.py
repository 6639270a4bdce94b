"""What the stages share: which text calibrates, chooses and judges, and the dense model's result, computed once."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.measure.battery import Battery
from icd_lib.run.artifacts import open_run
from icd_lib.workloads.model.context import EncoderContext
from icd_lib.workloads.model.setup import badges, own_quality, report_of_missing
from icd_lib.workloads.model.solve import judgement_of, moments_file, selection_judge
from tests.tiny_domains import damage, toy_encoder


@pytest.mark.parametrize(
    ("overrides", "selecting", "judged"),
    [
        ((), "selection", ["unseen", "seen"]),
        (("codesign.budget_on=seen", "data.selection=[]"), "validation", ["seen", "unseen"]),
        (("codesign.budget_on=seen", "data.selection=[]", "data.unseen=[]"), "validation", ["seen"]),
    ],
)
def test_what_chooses_never_judges_and_the_budgets_text_is_judged_first(make, overrides, selecting, judged):
    context = make(*overrides)
    assert (context.selecting, context.judged, context.judging) == (selecting, judged, judged[0])
    texts = {split: {t for text in found.values() for t in text.texts} for split, found in context.data.judged.items()}
    assert texts[selecting] and not any(texts[selecting] & texts[split] for split in judged)
    context.check_text()


def test_without_a_checkpoint_the_scenario_masked_masks_the_embedded_model_and_says_so(tmp_path):
    text = ["data.seen=[news]", "data.selection=[manual]", "data.unseen=[films]"]
    run = open_run("masked", ["masked.heads=1", "masked.neurons=0.5", *text], out=tmp_path, quick=True)
    context = EncoderContext(run, lambda line: None)
    assert context.checkpoint.source == "made here" and context.checkpoint.mask["heads"] == 1
    assert any(text.startswith("masked here") for text in badges(context))
    layer = context.model.encoder.layer[3]
    assert int((layer.intermediate.dense.weight == 0).all(1).sum()) == layer.output.dense.in_features // 2
    own = EncoderContext(open_run("bert", out=tmp_path), lambda line: None)
    assert own.checkpoint.source == "embedded" and not own.checkpoint.mask


def test_without_text_to_choose_on_or_to_judge_setup_refuses(make, absent):
    with pytest.raises(ResourceError, match="no text for the split 'selection': no domain is named"):
        make("data.selection=[]").check_text()
    with pytest.raises(ResourceError, match="no text for the split 'validation'"):
        make("codesign.budget_on=seen").check_text()
    absent |= {"products", "glosses"}
    with pytest.raises(
        ResourceError, match="'unseen': the text of products is missing; the text of glosses is missing"
    ):
        make().check_text()


def test_a_domain_that_is_missing_is_left_out_and_told(make, absent):
    absent.add("glosses")
    context = make()
    context.check_text()
    assert list(context.data.judged["unseen"]) == ["products"]
    assert context.describe_data()["missing"] == {"glosses": "the text of glosses is missing"}
    assert report_of_missing(context) == "text missing: glosses (make fetch_data)" and report_of_missing(make()) != ""
    absent.clear()
    assert report_of_missing(make()) == ""


def test_the_deal_follows_split_seed_and_not_the_seed_of_the_run(make):
    plain, seeded, dealt = make(), make("seed=5"), make("data.split_seed=5")
    assert seeded.suite.sha256s == plain.suite.sha256s and seeded.calibration_sha256 == plain.calibration_sha256
    for split in ("seen", "unseen", "selection"):
        assert dealt.suite.sha256s[split] != plain.suite.sha256s[split], split
    assert dealt.calibration_sha256 != plain.calibration_sha256


def drawn(context, count=20):
    return sorted(
        tuple(row[row > 0].tolist()) for batch in context.calibration(count, 64) for row in batch["input_ids"]
    )


def test_calibration_is_even_over_the_seen_domains_seeded_and_within_the_tokens(make, tokenizer):
    context = make()
    batches = context.calibration(20, 64)
    assert all(batch["input_ids"].numel() <= 64 for batch in batches)
    assert sum(len(batch["input_ids"]) for batch in batches) == 20
    for texts in context.data.calibration.values():
        ids = {tuple(tokenizer(text, truncation=True, max_length=16)["input_ids"]) for text in texts}
        assert len(ids & set(drawn(context))) == 10
    assert drawn(make()) == drawn(context) != drawn(make("seed=1"))


def test_a_fixed_batch_has_the_shape_and_calibration_text(make):
    context = make()
    batch = context.fixed(3, 10)
    assert batch["input_ids"].shape == (3, 10) and batch["attention_mask"].all()
    assert context.example["input_ids"].shape == (2, 24)


def test_the_description_says_what_is_in_which_group(make):
    told = make().describe_data()
    assert told["name"] == "domains of text"
    assert told["groups"] == {"seen": ["news", "films"], "selection": ["manual"], "unseen": ["products", "glosses"]}
    assert told["calibration"].keys() == {"news", "films"} and told["judged"]["unseen"]["products"]["texts"] == 60
    assert told["provenance"].keys() == {"news", "films", "manual", "products", "glosses"}


def test_a_labelled_set_of_ones_own_joins_the_seen_domains(make, tmp_path, monkeypatch):
    folder = tmp_path / "mine" / "sst2"
    folder.mkdir(parents=True)
    for part in ("train", "validation"):
        rows = [f"a {part} film with number {i},{i % 2}" for i in range(30)]
        (folder / f"{part}.csv").write_text("\n".join(["sentence,label", *rows]))
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "mine"))
    context = make("data.name=sst2")
    assert list(context.data.calibration) == ["own", "news", "films"] and context.describe_data()["name"] == "sst2"
    assert len(context.data.judged["seen"]["own"]) == 24 and "own" not in context.data.judged["unseen"]
    assert list(make("data.name=bible").data.calibration) == ["news", "films"]


def assert_equal(one, other):
    assert one.split == other.split and one.embeddings.keys() == other.embeddings.keys()
    assert all(np.array_equal(one.embeddings[name], x) for name, x in other.embeddings.items())


def test_the_dense_result_is_computed_once_per_machine(make):
    first = make()
    result = first.dense_result("unseen")
    calls = first.model.calls
    assert calls > 0 and first.dense_result("unseen") is result and first.model.calls == calls
    again = make()
    assert_equal(again.dense_result("unseen"), result)
    assert again.model.calls == 0 and again.lines == [], "from the run's own file"
    other_run = make(out="others")
    assert_equal(other_run.dense_result("unseen"), result)
    assert other_run.model.calls == 0 and "kept from an earlier run" in other_run.lines[0]
    assert other_run.run.dir.joinpath("setup", "dense_unseen.safetensors").is_file()


@pytest.mark.parametrize(
    ("overrides", "sha256"), [(("data.split_seed=1",), "toy"), (("data.max_length=12",), "toy"), ((), "another model")]
)
def test_the_result_of_other_text_or_another_model_is_not_taken(make, overrides, sha256):
    make().dense_result("unseen")
    other = make(*overrides, out="others", sha256=sha256)
    other.dense_result("unseen")
    assert other.model.calls > 0


def test_a_damaged_copy_of_the_machine_is_computed_anew_and_one_of_the_run_refused(make, tmp_path):
    result = make().dense_result("unseen")
    (kept,) = (tmp_path / "cache").glob("dense-*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-9])
    other, third = make(out="others"), make(out="third")
    for context in (other, third):
        assert_equal(context.dense_result("unseen"), result)
    assert other.model.calls > 0 and third.model.calls == 0, "it is kept whole again"
    other.run.path("setup", "dense_unseen.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match="missing or damaged"):
        make(out="others").dense_result("unseen")


@dataclass(frozen=True)
class Answers:
    right: np.ndarray
    ranks: np.ndarray | None = None


def test_what_dense_answers_is_kept_by_what_was_asked(make, tmp_path, monkeypatch):
    asked = []

    def ask(context, of, kind="lookups"):
        def make_it():
            asked.append(of)
            return Answers(np.array([True, False]))

        return context.of_dense(kind, of, Answers, make_it)

    first, again = ask(make(), {"text": "a"}), ask(make(out="others"), {"text": "a"})
    assert len(asked) == 1 and again.ranks is None and np.array_equal(first.right, again.right)
    assert again.right.dtype == bool
    ask(make(), {"text": "b"})
    ask(make(), {"text": "a"}, kind="cloze")
    ask(make(sha256="another model"), {"text": "a"})
    monkeypatch.setattr("icd_lib.workloads.model.context.sources_sha256", lambda *folders: "other code")
    ask(make(), {"text": "a"})
    assert len(asked) == 5
    for file in (tmp_path / "cache").glob("lookups-*.safetensors"):
        file.write_bytes(b"cut")
    ask(make(), {"text": "a"})
    assert len(asked) == 6, "damaged"


def test_a_runtimes_judgement_of_dense_is_kept_by_the_runtime(make):
    first, lines = make(), []
    result, how = first.dense_result("unseen"), {"row": "openvino", "packages": {"openvino": "1"}}
    given = [first.deployed_result("unseen", "dense there", how, lambda: result) for _ in range(2)]
    for one in given:
        assert_equal(one, result)
    other = make(out="others")
    assert_equal(other.deployed_result("unseen", "dense there", how, lambda: pytest.fail("judged again")), result)
    assert "dense there: kept from an earlier run" in other.lines[-1]
    newer = how | {"packages": {"openvino": "2"}}
    other.deployed_result("unseen", "dense there", newer, lambda: lines.append("judged") or result)
    other.deployed_result("seen", "dense there", how, lambda: lines.append("judged") or first.dense_result("seen"))
    assert len(lines) == 2


def test_a_machine_whose_cache_cannot_be_written_computes_each_time(make, tmp_path):
    context = make()
    folder = context._shared_file("dense", context.suite.sha256s["unseen"])
    folder.mkdir(parents=True)  # where the file should be
    (folder / "something").write_text("")
    assert context.dense_result("unseen").n_items == 120 and make(out="others").dense_result("unseen").n_items == 120


def test_strengths_are_chosen_on_what_chooses(make):
    context = make()
    judge = selection_judge(context)
    assert (judge(context.model).drop_pp, judge(context.model).se_pp) == (0, 0)
    found = judge(damage(toy_encoder(), 0.95))
    assert found.drop_pp > 0 and found.se_pp > 0
    assert (found.detail["split"], found.detail["n_items"]) == ("selection", 30)
    assert list(found.detail["per_domain"]) == ["manual"] and found.detail["cosine"] < 1
    assert found.detail["dropin"]["drop_pp"] > 0 and found.detail["dropin"]["se_pp"] > 0


def test_a_judgement_is_plain_numbers_and_takes_the_readings_that_there_are(make):
    context = make("data.selection=[manual, tweets]")
    dense = context.dense_result("selection")
    found = context.suite.compare(context.suite.evaluate(damage(toy_encoder(), 0.95), "selection"), dense)
    told = judgement_of(found)
    assert (told.drop_pp, told.se_pp) == (found["own"]["drop_pp"], found["own"]["se_pp"])
    assert told.detail["cosine"] == found["cosine"]["value"] and "kl" not in told.detail
    assert told.detail["own_labelled"] == found["own_labelled"] and told.detail["dropin"] == found["dropin"]
    less = judgement_of(found | {"own_labelled": None, "dropin": None, "perplexity_ratio": {"value": 1.5}})
    assert "dropin" not in less.detail and less.detail["perplexity_ratio"] == 1.5


def test_setup_states_the_dense_models_own_quality_by_domain(make):
    context = make()
    result = context.dense_result("unseen")
    told = own_quality(context, "unseen", result)
    assert told["n_items"] == 120 and told["domains"].keys() == {"products", "glosses"}
    assert told["quality_pct"] == pytest.approx(np.mean([entry["quality_pct"] for entry in told["domains"].values()]))
    assert told["quality_pct"] == pytest.approx(context.suite.quality(context.model, "unseen"))
    assert all(0 < entry["labelled_pct"] < 100 and entry["n"] == 60 for entry in told["domains"].values())


def test_moments_are_kept_by_what_they_depend_on(make):
    plain = moments_file(make())
    assert moments_file(make("codesign.max_rounds=3")) == plain and plain.suffix == ".safetensors"
    others = [
        moments_file(make("seed=1")),
        moments_file(make("data.split_seed=1")),
        moments_file(make("data.calibration_texts=39")),
        moments_file(make("data.max_length=12")),
        moments_file(make("data.seen=[films, news]")),
        moments_file(make(sha256="another model")),
        moments_file(make(model=toy_encoder().to(torch.bfloat16))),
    ]
    assert len({plain, *others}) == 8


def test_the_suite_judges_the_texts_that_were_dealt(make):
    context = make()
    assert isinstance(context.suite, Battery) and context.suite.judged is context.data.judged
    assert context.suite.max_length == 16
