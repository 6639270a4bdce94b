"""Three readings of many domains: a model loses nothing against itself, a rotated one only where the probes stay."""

import copy
import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

import icd_lib as icd
from icd_lib.data.batches import encode
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.measure import battery as battery_module
from icd_lib.measure.battery import (
    FOLDS,
    LABELLED,
    TOPIC,
    Battery,
    BatteryResult,
    DomainJudge,
    Task,
    mean_cosine,
    nearest,
    over_domains,
    tasks_of,
    uses_own_head,
)
from icd_lib.measure.embed import embed
from icd_lib.measure.topics import TOPICS, topic_labels
from tests.tiny_domains import CLASSES, Rotated, damage, plain_domain, toy_domain, toy_encoder, toy_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return toy_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def domains():
    pairs_only = toy_domain("b", documents=50, per_document=2, seed=1, same_document=False)
    return {"a": toy_domain("a"), "b": pairs_only}


@pytest.fixture(scope="module")
def battery(domains, tokenizer):
    few = {"a": domains["a"].take(np.arange(60))}
    return Battery({"unseen": domains, "selection": few, "seen": {}, "validation": {}}, tokenizer, max_length=16)


@pytest.fixture(scope="module")
def dense():
    return toy_encoder()


@pytest.fixture(scope="module")
def reference(battery, dense):
    return battery.evaluate(dense)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


READINGS = ("own", "own_labelled", "dropin")


def test_a_model_loses_nothing_against_itself(battery, dense, reference):
    again = battery.evaluate(dense)
    assert all(np.array_equal(again.embeddings[name], x) for name, x in reference.embeddings.items())
    loss = battery.compare(again, reference)
    for reading in READINGS:
        assert (loss[reading]["drop_pp"], loss[reading]["se_pp"], loss[reading]["ci95"]) == (0, 0, [0, 0])
        assert loss[reading]["pct"] == loss[reading]["dense_pct"] > 30
    assert loss["cosine"]["value"] == pytest.approx(1, abs=1e-6)
    assert (loss["split"], loss["n_items"]) == ("unseen", 220) and list(loss["domains"]) == ["a", "b"]
    tasks = [task for domain in loss["domains"].values() for task in domain["tasks"].values()]
    assert all(task[reading] == {"drop_pp": 0, "se_pp": 0} for task in tasks for reading in ("own", "dropin"))


def test_damage_shows_in_every_reading(battery, dense, reference):
    light, heavy = (battery.compare(battery.evaluate(damage(dense, share)), reference) for share in (0.5, 0.95))
    for reading in READINGS:
        loss = heavy[reading]
        assert loss["drop_pp"] > 3 * loss["se_pp"] > 0 and loss["drop_pp"] > light[reading]["drop_pp"]
        assert loss["drop_pp"] == pytest.approx(loss["dense_pct"] - loss["pct"])
    assert heavy["cosine"]["value"] < light["cosine"]["value"] < 0.999
    assert heavy["worst_domain"] == max("ab", key=lambda name: heavy["domains"][name]["own"]["drop_pp"])


def test_another_basis_costs_nothing_of_ones_own_and_ruins_the_drop_in(battery, dense, reference):
    """What an orthogonal matrix changes is no quality of the model; what it breaks is a probe or index kept from it."""
    loss = battery.compare(battery.evaluate(Rotated(dense)), reference)
    assert abs(loss["own"]["drop_pp"]) < 0.2 and abs(loss["own_labelled"]["drop_pp"]) < 0.2
    assert loss["dropin"]["drop_pp"] > 5 and abs(loss["cosine"]["value"]) < 0.3
    damaged = battery.compare(battery.evaluate(damage(dense, 0.95)), reference)
    assert damaged["own"]["drop_pp"] > 10, "of its own a damaged model does lose"


def by_hand(monkeypatch):
    """A judge of four texts and three tasks whose correctness is given: 'a' of all texts, 'b' of two, a topic."""
    judge = DomainJudge(toy_domain(documents=2, per_document=2), unit(np.eye(4) + 0.1))
    every, two = np.arange(4), np.array([0, 2])
    judge.tasks = [Task("a", LABELLED, every), Task("b", LABELLED, two), Task("t", TOPIC, every)]
    judge.dense_correct = {"a": np.array([1, 1, 0, 1]), "b": np.array([1, 1]), "t": np.array([1, 1, 1, 0])}
    own = {"a": np.array([0, 1, 0, 1]), "b": np.array([0, 1]), "t": np.array([1, 1, 1, 1])}
    dropin = judge.dense_correct | {"t": np.array([0, 0, 0, 0])}
    monkeypatch.setattr(judge, "read", lambda embeddings, logits=None: {"own": own, "dropin": dropin})
    return judge


def test_a_known_loss_and_its_standard_error(monkeypatch):
    """Losses: a (1, 0, 0, 0), b (1, 0) of texts 0 and 2, t (0, 0, 0, -1); weights 1/4, 1/4 and 1/2."""
    judge = by_hand(monkeypatch)
    found = judge.compare(judge.dense)
    own, labelled = found["own"], found["own_labelled"]
    assert own["drop_pp"] == pytest.approx(100 * (0.25 * 0.25 + 0.25 * 0.5 - 0.5 * 0.25))
    assert own["dense_pct"] == pytest.approx(100 * (0.25 * 0.75 + 0.25 * 1.0 + 0.5 * 0.75)) == judge.dense_pct
    assert own["pct"] == pytest.approx(own["dense_pct"] - own["drop_pp"])
    # A text's share: of a (loss - 1/4) / 16, of b (loss - 1/2) / 8, of t (loss + 1/4) / 8.
    shares = [3 / 64 + 1 / 16 + 1 / 32, -1 / 64 + 1 / 32, -1 / 64 - 1 / 16 + 1 / 32, -1 / 64 - 3 / 32]
    assert own["se_pp"] == pytest.approx(100 * math.sqrt(sum(share**2 for share in shares)))
    assert labelled["drop_pp"] == pytest.approx(100 * (0.5 * 0.25 + 0.5 * 0.5))
    shares = [3 / 32 + 1 / 8, -1 / 32, -1 / 32 - 1 / 8, -1 / 32]
    assert labelled["se_pp"] == pytest.approx(100 * math.sqrt(sum(share**2 for share in shares)))
    assert found["dropin"]["drop_pp"] == pytest.approx(100 * 0.5 * 0.75)
    assert found["tasks"]["a"]["own"] == pytest.approx({"drop_pp": 25, "se_pp": 100 * 0.5 / 2})
    assert found["tasks"]["b"]["n"] == 2 and found["tasks"]["t"]["own"]["drop_pp"] == -25


def test_without_topics_labelled_is_all_there_is_and_without_labels_there_is_no_such_reading(monkeypatch):
    judge = by_hand(monkeypatch)
    judge.tasks = judge.tasks[:2]
    found = judge.compare(judge.dense)
    assert found["own"] == found["own_labelled"]
    judge.tasks = by_hand(monkeypatch).tasks[2:]
    found = judge.compare(judge.dense)
    assert "own_labelled" not in found and found["own"]["drop_pp"] == pytest.approx(-25)


def test_losses_that_move_together_are_less_certain_than_losses_that_cancel(monkeypatch):
    """The error is clustered by text: two tasks that fail on the same text are one observation, not two."""
    judge = by_hand(monkeypatch)
    judge.tasks = [Task("a", LABELLED, np.arange(4)), Task("b", LABELLED, np.arange(4))]
    judge.dense_correct = {"a": np.ones(4), "b": np.ones(4)}
    errors = []
    for second in ([0, 1, 1, 1], [1, 0, 1, 1]):
        own = {"a": np.array([0, 1, 1, 1]), "b": np.array(second)}
        monkeypatch.setattr(judge, "read", lambda *_, own=own: {"own": own, "dropin": own})
        found = judge.compare(judge.dense)["own"]
        assert found["drop_pp"] == pytest.approx(25)
        errors.append(found["se_pp"])
    assert errors[0] == pytest.approx(100 * math.sqrt(0.75) / 4) and errors[1] == pytest.approx(100 * 0.5 / 4)


def test_domains_weigh_the_same_and_their_errors_add_in_squares():
    entries = [{"drop_pp": 1.0, "se_pp": 0.3, "dense_pct": 80, "pct": 79}]
    entries.append({"drop_pp": 0.0, "se_pp": 0.4, "dense_pct": 60, "pct": 60})
    mean = over_domains(entries)
    assert (mean["drop_pp"], mean["dense_pct"], mean["pct"]) == (0.5, 70, 69.5)
    assert mean["se_pp"] == pytest.approx(0.25)
    assert mean["ci95"] == pytest.approx([0.5 - 1.959964 * 0.25, 0.5 + 1.959964 * 0.25])
    assert over_domains([]) is None


def test_the_whole_is_the_mean_of_the_domains(battery, dense, reference):
    loss = battery.compare(battery.evaluate(damage(dense)), reference)
    domains = loss["domains"].values()
    for reading in READINGS:
        assert loss[reading]["drop_pp"] == pytest.approx(np.mean([entry[reading]["drop_pp"] for entry in domains]))
    assert loss["cosine"]["value"] == pytest.approx(np.mean([entry["cosine"] for entry in domains]))
    low, high = loss["cosine"]["ci95"]
    assert low < loss["cosine"]["value"] < high


def test_every_sort_of_task_is_asked(domains):
    found = {name: {task.name: task for task in tasks_of(domain)} for name, domain in domains.items()}
    assert {"class", "same document", "counterpart"} <= set(found["a"]) and "same document" not in found["b"]
    assert {task.sort for name, task in found["a"].items() if name.startswith("topic")} == {TOPIC}
    assert [found["a"][name].sort for name in ("class", "same document", "counterpart")] == [LABELLED] * 3
    counterpart = found["a"]["counterpart"]
    assert np.array_equal(counterpart.rows, domains["a"].pairs[:, 0]) and len(counterpart.wanted) == 80
    assert set(counterpart.candidates) == set(domains["a"].pairs[:, 1])


def test_a_text_alone_in_its_document_is_not_asked_for_another_one():
    numbers = np.array([0, 0, 1, 2, 2, 2])
    domain = dataclasses.replace(plain_domain("x", [f"text {i}" for i in range(6)], numbers), same_document=True)
    (task,) = (task for task in tasks_of(domain) if task.name == "same document")
    assert task.rows.tolist() == [0, 1, 3, 4, 5] and task.wanted.tolist() == [0, 0, 2, 2, 2]
    assert len(task.candidates) == 6, "every text may be found"
    one = dataclasses.replace(domain, documents=np.zeros(6, np.int64))
    assert "same document" not in {task.name for task in tasks_of(one)}, "any answer would be right"


def test_a_label_that_all_texts_share_is_no_task():
    same = toy_domain(labels={"same": np.zeros(120, np.int64), "class": np.arange(120) % 2})
    assert {"class"} == {task.name for task in tasks_of(same) if task.labels is not None and task.sort == LABELLED}


@pytest.mark.parametrize("seed", range(3))
def test_no_document_is_in_two_folds_and_every_fold_judges(seed):
    domain = toy_domain(documents=17, per_document=4)
    judge = DomainJudge(domain, unit(np.random.default_rng(0).normal(size=(68, 8))), seed=seed)
    assert set(judge.folds) == set(range(FOLDS))
    for document in range(17):
        assert len(set(judge.folds[domain.documents == document])) == 1


def test_a_document_cannot_be_learnt_by_heart():
    """Texts of a document lie together and its label is drawn by lot: nothing but the document itself tells it."""
    rng = np.random.default_rng(0)
    labels = {"drawn": np.repeat(rng.integers(2, size=60), 4)}
    embeddings = unit(np.repeat(np.eye(60), 4, axis=0) + 0.01 * rng.normal(size=(240, 60)))
    domain = toy_domain(documents=60, per_document=4, labels=labels)
    alone = dataclasses.replace(domain, documents=np.arange(240))
    whole, apart = (DomainJudge(each, embeddings).dense_correct["drawn"].mean() for each in (domain, alone))
    assert whole < 0.7 < 0.95 < apart, "if folds parted documents, the probe would know their labels"


def test_a_search_never_finds_the_text_itself():
    domain = dataclasses.replace(plain_domain("x", [f"text {i}" for i in range(4)], [0, 1, 0, 1]), same_document=True)
    judge = DomainJudge(domain, unit([[1, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0, 0.1, 0.9]]))
    # Nearest other text: 0 → 2, 1 → 2 (0.11 against 0.11 of 3, and 0), 2 → 0, 3 → 1.
    assert judge.dense_correct["same document"].tolist() == [True, False, True, True]
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=(50, 4)))
    assert (nearest(x, x, np.arange(50), np.arange(50)) != np.arange(50)).all()


def test_nearest_agrees_with_the_definition_and_breaks_ties_low():
    rng = np.random.default_rng(0)
    queries, candidates = (rng.normal(size=(n, 3)).astype(np.float32) for n in (5000, 50))
    rows, names = rng.integers(60, size=5000), rng.permutation(60)[:50]
    scores = np.where(rows[:, None] == names, -np.inf, queries @ candidates.T)
    assert np.array_equal(nearest(queries, candidates, rows, names), scores.argmax(1))
    ones = np.ones((3, 1), np.float32)
    assert nearest(ones[:2], ones, np.array([0, 7]), np.arange(3)).tolist() == [1, 0]


def test_the_drop_in_searches_the_dense_index(domains):
    """A model that is the dense one turned by 180 degrees finds with its own index what dense finds; in dense's not."""
    dense = unit(np.random.default_rng(0).normal(size=(120, 16)))
    judge = DomainJudge(domains["a"], dense)
    read = judge.read(-dense)
    assert np.array_equal(read["own"]["counterpart"], judge.dense_correct["counterpart"])
    queries, index = dense[domains["a"].pairs[:, 0]], dense[np.unique(domains["a"].pairs[:, 1])]
    farthest = np.unique(domains["a"].pairs[:, 1])[(queries @ index.T).argmin(1)]
    wanted = domains["a"].documents[farthest] == domains["a"].documents[domains["a"].pairs[:, 0]]
    assert np.array_equal(read["dropin"]["counterpart"], wanted)


def test_probes_agree_with_ridge_regression_fold_by_fold(domains):
    """One factorisation for all tasks and folds gives what each would give alone."""
    domain, x = domains["a"], unit(np.random.default_rng(0).normal(size=(120, 6)))
    judge = DomainJudge(domain, x)
    ones = np.concatenate([x, np.ones((120, 1))], axis=1).astype(np.float64)
    ridge = battery_module.PROBE_RIDGE * np.trace(ones.T @ ones) / 7
    correct = np.empty(120, dtype=bool)
    for fold in range(FOLDS):
        out = judge.folds == fold
        inside, targets = ones[~out], np.eye(CLASSES)[domain.labels["class"][~out]]
        probe = np.linalg.solve(inside.T @ inside + ridge * np.eye(7), inside.T @ targets)
        correct[out] = (ones[out] @ probe).argmax(1) == domain.labels["class"][out]
    assert np.array_equal(judge.dense_correct["class"], correct)


def test_topics_are_balanced_binary_and_functions_of_the_texts_alone(domains, dense, battery, reference):
    topics = topic_labels(domains["a"].texts)
    assert len(topics) == TOPICS
    for labels in topics.values():
        assert labels.dtype == np.int64 and set(labels) == {0, 1} and 0.4 <= labels.mean() <= 0.5
    again = topic_labels(domains["a"].texts)
    assert all(np.array_equal(again[name], labels) for name, labels in topics.items())
    other = battery.evaluate(toy_encoder(seed=5))
    for result in (reference, other):
        judge = DomainJudge(domains["a"], result.embeddings["a"])
        asked = {task.name: task.labels for task in judge.tasks if task.sort == TOPIC}
        assert asked.keys() == topics.keys() and all(np.array_equal(asked[name], topics[name]) for name in topics)


def test_results_survive_the_disk(battery, reference, dense, tmp_path):
    damaged = battery.evaluate(damage(dense))
    path = tmp_path / "deep" / "unseen.safetensors"
    battery.save_result(damaged, path)
    again = battery.load_result(path)
    assert again.split == "unseen" and list(again.embeddings) == ["a", "b"] and again.head_logits == {}
    assert all(np.array_equal(again.embeddings[name], x) for name, x in damaged.embeddings.items())
    assert battery.compare(again, reference) == battery.compare(damaged, reference)


def test_results_of_other_texts_and_damaged_ones_are_refused(battery, domains, tokenizer, reference, tmp_path):
    path = tmp_path / "unseen.safetensors"
    battery.save_result(reference, path)
    shorter = Battery({"unseen": domains | {"b": domains["b"].take(np.arange(99))}}, tokenizer, max_length=16)
    others = [shorter, Battery({"unseen": domains}, tokenizer), Battery({"seen": domains}, tokenizer, max_length=16)]
    others.append(Battery({"unseen": {"a": domains["a"]}}, tokenizer, max_length=16))
    for other in others:
        with pytest.raises(ArtifactError, match="computed on other texts"):
            other.load_result(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="damaged"):
        battery.load_result(path)
    with pytest.raises(ArtifactError, match="missing"):
        battery.load_result(tmp_path / "none.safetensors")


def test_results_that_cannot_be_paired_are_refused(battery, dense, reference):
    with pytest.raises(MeasureError, match="'unseen' and 'selection' are not comparable"):
        battery.compare(battery.evaluate(dense, "selection"), reference)
    with pytest.raises(MeasureError, match="not comparable"):
        battery.compare(BatteryResult("unseen", {"a": reference.embeddings["a"]}), reference)


def test_the_mean_cosine_is_that_of_paired_texts():
    a, b = unit([[1, 0], [0, 1], [3, 4]]), unit([[1, 0], [1, 0], [4, 3]])
    assert mean_cosine(a, b) == pytest.approx((1 + 0 + 24 / 25) / 3)
    assert mean_cosine(a, np.ones((3, 5), np.float32)) is None


def test_quality_is_the_mean_own_accuracy_with_the_weights_of_a_comparison(battery, dense, reference):
    assert battery.quality(dense, "unseen") == pytest.approx(battery.compare(reference, reference)["own"]["dense_pct"])
    worse = damage(dense)
    loss = battery.compare(battery.evaluate(worse), reference)
    assert battery.quality(worse, "unseen") == pytest.approx(loss["own"]["pct"])
    assert battery.quality(dense) != battery.quality(dense, "unseen"), "by default on the text that chooses"


def test_quality_is_what_optimize_takes(battery, dense, tokenizer, domains, monkeypatch):
    from icd_lib import api
    from icd_lib.transforms.observed import Findings
    from tests.tiny_problems import small_tables

    def hand_made(observed, settings, device):
        rates = {item.axis: 1.0 for item in observed.adapter.prunable()}
        return Findings({"ffn": small_tables()["ffn"]}, 20.0, rates)

    monkeypatch.setattr(api, "_measure_machine", hand_made)
    ids = torch.tensor([row[:8] for row in encode(tokenizer, domains["a"].texts[:16], 16)])
    options = {"tile": 8, "axes": ("ffn",), "distill_steps": 0, "strengths": (-0.1,), "mode": "oneshot"}
    found = icd.optimize(dense, [{"input_ids": ids}], quality=battery.quality, budget_pp=50, **options)
    validation = found.report["validation"]
    assert validation["dense_quality_pct"] == battery.quality(dense)
    assert validation["quality_pct"] == battery.quality(found.model)
    assert validation["drop_pp"] == pytest.approx(validation["dense_quality_pct"] - validation["quality_pct"])


@pytest.fixture(scope="module")
def classified(tokenizer):
    """A user's labelled domain, and a classifier with a head for it."""
    own = toy_domain("own", pairs=None, same_document=False, head_classes=3)
    return Battery({"unseen": {"own": own}}, tokenizer), toy_encoder(BertForSequenceClassification, num_labels=CLASSES)


def test_a_classification_head_judges_its_own_task(classified, tokenizer):
    battery, model = classified
    own = battery.judged["unseen"]["own"]
    result = battery.evaluate(model)
    inputs = tokenizer(own.texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        right = model(**inputs).logits.argmax(1).numpy() == own.labels["class"]
    judge = DomainJudge(own, result.embeddings["own"], result.head_logits["own"])
    assert [task.name for task in judge.tasks] == ["class"] and judge.probes == []
    assert np.array_equal(judge.dense_correct["class"], right)
    assert battery.quality(model, "unseen") == pytest.approx(100 * right.mean())
    worse = copy.deepcopy(model)
    worse.classifier.bias[:] = torch.tensor([1e3, 0, 0])  # always says 0
    loss = battery.compare(battery.evaluate(worse), result)
    share = np.mean(own.labels["class"] == 0)
    assert loss["own"]["pct"] == pytest.approx(100 * share) == loss["dropin"]["pct"]
    assert loss["cosine"]["value"] == pytest.approx(1, abs=1e-6), "the encoder is the same"


def test_head_logits_survive_the_disk(classified, tmp_path):
    battery, model = classified
    result = battery.evaluate(model)
    battery.save_result(result, tmp_path / "r.safetensors")
    again = battery.load_result(tmp_path / "r.safetensors")
    assert np.array_equal(again.head_logits["own"], result.head_logits["own"])


def test_a_head_for_another_task_is_ignored_and_the_encoder_probed(tokenizer, classified):
    own = classified[0].judged["unseen"]["own"]
    other = toy_encoder(BertForSequenceClassification, num_labels=CLASSES + 1)
    assert not uses_own_head(other, own) and not uses_own_head(toy_encoder(), own)
    assert not uses_own_head(classified[1], dataclasses.replace(own, head_classes=0))
    part = own.take(np.flatnonzero(own.labels["class"] < CLASSES - 1))
    assert uses_own_head(classified[1], part), "a part of the domain that lacks a class is still judged by the head"
    result = classified[0].evaluate(other)
    assert result.head_logits == {}
    plain, _ = embed(other.bert, encode(tokenizer, own.texts))
    assert np.array_equal(result.embeddings["own"], plain)


def test_progress_counts_texts_to_the_total(battery, dense):
    calls = []
    battery.evaluate(dense, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(120, 220), (220, 220)]


def test_splits_that_are_not_there_or_empty_are_refused_with_a_cure(battery, dense):
    with pytest.raises(MeasureError, match="'unsen' is not one of .*'unseen'"):
        battery.evaluate(dense, "unsen")
    with pytest.raises(MeasureError, match="name its domains in data.seen"):
        battery.evaluate(dense, "seen")
    with pytest.raises(MeasureError, match="empty data.selection"):
        battery.evaluate(dense, "validation")


def test_a_domain_without_text_is_left_out_and_one_without_questions_refused(domains, tokenizer, dense):
    """It would count as a domain that loses nothing, and so hide what the others lose."""
    empty = domains["b"].take(np.empty(0, np.int64))
    with_it = Battery({"unseen": {"a": domains["a"], "b": empty}}, tokenizer, max_length=16)
    result = with_it.evaluate(dense)
    assert list(result.embeddings) == ["a"] and list(with_it.compare(result, result)["domains"]) == ["a"]
    silent = plain_domain("s", ["one two three", "four five six"])
    battery = Battery({"unseen": {"a": domains["a"], "s": silent}}, tokenizer)
    result = battery.evaluate(dense)
    with pytest.raises(MeasureError, match="nothing can be asked of the 2 'unseen' texts of the domain 's'"):
        battery.compare(result, result)


def test_an_output_that_is_no_number_is_refused(battery, dense):
    broken = copy.deepcopy(dense)
    broken.encoder.layer[0].output.dense.bias[0] = math.nan
    with pytest.raises(MeasureError, match="not finite"):
        battery.evaluate(broken)


def test_what_is_called_like_an_encoder_is_judged_like_one(battery, dense, reference):
    """A runtime's runner has no modules, only an output with hidden states."""

    class Runner:
        def __call__(self, **inputs):
            return SimpleNamespace(last_hidden_state=dense(**inputs).last_hidden_state)

    result = battery.evaluate(Runner())
    assert all(np.array_equal(result.embeddings[name], x) for name, x in reference.embeddings.items())
