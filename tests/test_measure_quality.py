"""A model compared with itself loses nothing; known losses, intervals and divergences come out as computed by hand."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from icd_lib.data.splits import group_by_text, split_groups
from icd_lib.data.text import TextData
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.measure.quality import (
    EncoderSuite,
    QualityResult,
    compare_results,
    embed,
    fit_probe,
    log_softmax,
    mean_pool,
    nearest,
)

WORDS = [f"w{i}" for i in range(60)]
ITEMS, CLASSES = 240, 3


def build_data(views=2, classes=CLASSES, seed=0):
    """Items of a few words, mostly from the vocabulary of their class; view two repeats most words of view one."""
    rng = np.random.default_rng(seed)
    labels = np.arange(ITEMS) % classes
    texts = [[], []]
    for label in labels:
        words = rng.choice(20, size=9) + 20 * label * (rng.random(9) < 0.7)
        texts[0].append(" ".join(WORDS[w] for w in words))
        texts[1].append(" ".join(WORDS[w] for w in [*words[:7], rng.integers(60)]))
    groups = group_by_text(*texts)
    splits = split_groups(groups, {"test": 60, "validation": 40, "probe": 100}, "calibration", seed)
    task = {"topic": labels}
    return TextData("toy", tuple(texts[:views]), task, views == 2, groups, splits, {"sha256": "toy"})


def build_model(model_class=BertModel, seed=0, **options):
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "initializer_range": 0.2,
    }
    return model_class(BertConfig(vocab_size=len(WORDS) + 5, **sizes, **options)).eval()


def damage(model, share=0.7):
    """The same model with part of every FFN removed."""
    model = copy.deepcopy(model)
    for layer in model.base_model.encoder.layer:
        layer.output.dense.weight.data[:, : int(48 * share)] = 0
        layer.attention.output.dense.weight.data[:, ::2] = 0
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizerFast(vocab=str(path))


@pytest.fixture(scope="module")
def data():
    return build_data()


@pytest.fixture(scope="module")
def dense():
    return build_model()


@pytest.fixture(scope="module")
def suite(data, tokenizer, dense):
    return EncoderSuite.fit(data, tokenizer, dense)


def result_of(topic, retrieval=None, split="test"):
    """A result with given correctness; embeddings and probabilities are trivial."""
    topic = np.asarray(topic, dtype=bool)
    n, views = topic.shape
    embeddings = np.tile(np.float32([1, 0]), (views, n, 1))
    correct = {"topic": topic}
    if retrieval is not None:
        correct["retrieval"] = np.asarray(retrieval, dtype=bool)[:, None]
    return QualityResult(split, correct, embeddings, {"topic": np.log(np.full((views, n, 2), 0.5))})


def test_a_model_loses_nothing_against_itself(suite, dense):
    first, again = suite.evaluate(dense), suite.evaluate(dense)
    assert np.array_equal(first.embeddings, again.embeddings)
    loss = suite.compare(again, first)
    assert (loss["drop_pp"], loss["se_pp"], loss["ci95"], loss["kl"]) == (0, 0, [0, 0], 0)
    assert loss["cosine"] == pytest.approx(1, abs=1e-6)
    assert loss["n_items"] == 120 and loss["n_clusters"] == 60


def test_the_tasks_are_learnt_and_damage_shows(suite, dense):
    result = suite.evaluate(dense)
    assert result.correct["topic"].shape == (60, 2) and result.correct["retrieval"].shape == (60, 1)
    assert result.per_task_pct["topic"] > 60 and result.per_task_pct["retrieval"] > 60, "chance: 33 and 2"
    assert result.quality_pct == pytest.approx(np.mean(list(result.per_task_pct.values())))
    loss = suite.compare(suite.evaluate(damage(dense)), result)
    assert loss["cosine"] < 0.999 and loss["kl"] > 0
    assert loss["drop_pp"] == pytest.approx(loss["dense_pct"] - loss["pct"])
    for task in loss["per_task"].values():
        assert task["drop_pp"] == pytest.approx(task["dense_pct"] - task["pct"])


def test_batching_does_not_change_the_embedding_of_a_text(suite, dense, tokenizer, data):
    together = suite.evaluate(dense).embeddings
    item = data.splits["test"][7]
    inputs = tokenizer(data.views[1][item], return_tensors="pt")
    with torch.no_grad():
        alone = mean_pool(dense(**inputs).last_hidden_state, inputs["attention_mask"])
    np.testing.assert_allclose(together[1, 7], alone[0].numpy(), atol=1e-6)


def test_progress_ends_at_the_total(suite, dense):
    calls = []
    suite.evaluate(dense, "validation", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] and [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_probes_and_results_survive_the_disk(suite, dense, data, tokenizer, tmp_path):
    suite.save(tmp_path)
    loaded = EncoderSuite.load(tmp_path, data, tokenizer)
    result = suite.evaluate(damage(dense))
    suite.save_result(result, tmp_path / "cache" / "test.safetensors")
    again = loaded.load_result(tmp_path / "cache" / "test.safetensors")
    assert again.split == "test" and np.array_equal(again.embeddings, result.embeddings)
    assert all(np.array_equal(again.correct[task], result.correct[task]) for task in result.correct)
    assert loaded.quality(dense) == suite.evaluate(dense, "validation").quality_pct


def test_files_of_other_data_or_damaged_files_are_refused(suite, dense, data, tokenizer, tmp_path):
    path = suite.save(tmp_path)
    suite.save_result(suite.evaluate(dense, "validation"), tmp_path / "r.safetensors")
    other = dataclasses.replace(data, splits=build_data(seed=1).splits)
    with pytest.raises(ArtifactError, match="other data"):
        EncoderSuite.load(tmp_path, other, tokenizer)
    with pytest.raises(ArtifactError, match="other data"):
        EncoderSuite(other, tokenizer, suite.probes).load_result(tmp_path / "r.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="damaged"):
        EncoderSuite.load(tmp_path, data, tokenizer)
    with pytest.raises(ArtifactError, match="missing"):
        EncoderSuite.load(tmp_path / "none", data, tokenizer)


def test_a_known_loss_and_its_clustered_error():
    """Four items, both views and tasks of an item are one cluster: d = (1 + 1)/2, (1/2 + 0)/2, 0, -1/4."""
    dense = result_of([[1, 1], [1, 1], [0, 0], [0, 1]], [1, 0, 0, 0])
    other = result_of([[0, 0], [0, 1], [0, 0], [1, 1]], [0, 0, 0, 0])
    loss = compare_results(other, dense)
    d = np.array([1, 0.25, 0, -0.25])
    assert loss["drop_pp"] == pytest.approx(100 * d.mean())
    assert loss["se_pp"] == pytest.approx(100 * d.std(ddof=1) / math.sqrt(4))
    assert loss["ci95"][1] - loss["ci95"][0] == pytest.approx(2 * 1.959964 * loss["se_pp"])
    assert loss["per_task"]["topic"]["drop_pp"] == pytest.approx(25)
    assert loss["per_task"]["retrieval"]["drop_pp"] == pytest.approx(25)
    reverse = compare_results(dense, other)
    assert reverse["drop_pp"] == -loss["drop_pp"] and reverse["se_pp"] == loss["se_pp"]


def test_kl_is_that_of_the_dense_probabilities():
    dense, other = result_of([[1], [0]]), result_of([[1], [0]])
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    dense.log_probabilities["topic"] = np.log(np.tile(p, (1, 2, 1)))
    assert compare_results(other, dense)["kl"] == pytest.approx((p * np.log(p / q)).sum())


def test_results_that_cannot_be_paired_are_refused():
    with pytest.raises(MeasureError, match="not comparable"):
        compare_results(result_of([[1], [0]]), result_of([[1], [0]], split="validation"))
    with pytest.raises(MeasureError, match="not comparable"):
        compare_results(result_of([[1], [0]]), result_of([[1], [0]], [1, 1]))
    with pytest.raises(MeasureError, match="3 and 2 texts"):
        compare_results(result_of([[1], [0], [1]]), result_of([[1], [0]]))


def test_an_equal_text_counts_as_retrieved(data, tokenizer):
    """Two items with one text are one group: finding either is right, finding another group is wrong."""
    groups = np.array([0, 0, 2, 3])
    toy = dataclasses.replace(data, groups=groups, labels={}, splits={"test": np.arange(4)})
    first = np.eye(4, dtype=np.float32)
    second = first[[1, 0, 3, 2]]
    result = EncoderSuite(toy, tokenizer, {}).score(np.stack([first, second]), None, "test")
    assert result.correct["retrieval"][:, 0].tolist() == [True, True, False, False]


def test_nearest_agrees_with_the_definition_and_breaks_ties_low():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5000, 3)).astype(np.float32), rng.normal(size=(50, 3)).astype(np.float32)
    assert np.array_equal(nearest(a, b), (a @ b.T).argmax(1))
    assert nearest(np.ones((2, 1), np.float32), np.ones((3, 1), np.float32)).tolist() == [0, 0]


def test_probes_are_deterministic_and_keep_their_class_names():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    for names in ([3, 8, 20], [5, 9]):
        y = np.array(names)[np.argmax(x[:, : len(names)], axis=1)]
        probe, again = fit_probe(x, y), fit_probe(x, y)
        assert np.array_equal(probe.weight, again.weight) and probe.weight.dtype == np.float64
        assert probe.weight.shape == (len(names), 4) and probe.classes.tolist() == names
        assert (probe.classes[probe.logits(x).argmax(1)] == y).mean() > 0.9
    with pytest.raises(MeasureError, match="two classes"):
        fit_probe(x, np.zeros(90, int))


def test_log_softmax_is_stable():
    p = log_softmax(np.array([[1e4, 0.0, 1e4]]))
    np.testing.assert_allclose(np.exp(p), [[0.5, 0, 0.5]])


def test_a_classification_head_judges_its_own_task(tokenizer):
    data = build_data(views=1)
    model = build_model(BertForSequenceClassification, num_labels=CLASSES)
    suite = EncoderSuite.fit(data, tokenizer, model)
    assert suite.probes == {}
    result = suite.evaluate(model)
    inputs = tokenizer([data.views[0][i] for i in data.splits["test"]], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits.argmax(1).numpy() == data.labels["topic"][data.splits["test"]]
    assert np.array_equal(result.correct["topic"][:, 0], expected)
    assert suite.compare(suite.evaluate(damage(model)), result)["kl"] > 0


def test_a_head_for_another_task_is_ignored_and_the_encoder_probed(tokenizer):
    model = build_model(BertForSequenceClassification, num_labels=CLASSES + 1)
    suite = EncoderSuite.fit(build_data(views=1), tokenizer, model)
    assert set(suite.probes) == {"topic"} and suite.evaluate(model).head_logits is None


def test_bad_models_and_splits_are_refused(suite, dense):
    broken = copy.deepcopy(dense)
    broken.encoder.layer[0].output.dense.bias.data[0] = math.nan
    with pytest.raises(MeasureError, match="not finite"):
        suite.evaluate(broken)
    with pytest.raises(MeasureError, match="'tset' is not one of"):
        suite.evaluate(dense, "tset")
    with pytest.raises(MeasureError, match="no text"):
        embed(dense, [])
