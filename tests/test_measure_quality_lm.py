"""A language model compared with itself loses nothing; losses, ratios and divergences come out as computed by hand."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from icd_lib.data.language import LanguageData
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.measure.quality_lm import (
    KL_BLOCKS,
    LanguageResult,
    LanguageSuite,
    compare_language_results,
    first_scored,
    kl_to_dense,
    score_blocks,
    summarise_result,
)

VOCABULARY, LENGTH, DOCUMENTS = 40, 12, 90


def build_tokenizer(bos=False):
    vocabulary = {token: i for i, token in enumerate(["</s>", "<s>", *(f"w{i}" for i in range(VOCABULARY - 2))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="</s>")


def build_data(seed=0):
    rng = np.random.default_rng(seed)
    documents = [
        " ".join(f"w{(start + step) % (VOCABULARY - 2)}" for step in np.cumsum(rng.integers(1, 3, 15)))
        for start in rng.integers(0, 30, DOCUMENTS)
    ]
    splits = {"test": np.arange(50), "validation": np.arange(50, 80), "calibration": np.arange(80, 90)}
    return LanguageData("toy", documents, np.arange(DOCUMENTS) // 2, splits, {"sha256": "toy"})


def build_mamba(seed=0, vocab_size=VOCABULARY):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0}
    model = MambaForCausalLM(MambaConfig(vocab_size=vocab_size, initializer_range=0.5, **sizes)).eval()
    return model


def build_llama(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.3, **sizes)).eval()


def damage(model, share=0.3):
    """The same model with part of every block's output removed."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.mixer.out_proj.weight[: int(share * layer.mixer.out_proj.weight.shape[0])] = 0
    return model


@pytest.fixture(scope="module")
def dense():
    return build_mamba()


@pytest.fixture(scope="module")
def suite(dense):
    return LanguageSuite.fit(build_data(), build_tokenizer(), dense, length=LENGTH)


@pytest.fixture(scope="module")
def judged(suite, dense):
    """Results of the dense model and of a damaged one on the test split."""
    return suite.evaluate(dense, "test"), suite.evaluate(damage(dense), "test")


@pytest.mark.parametrize("build, bos", [(build_mamba, False), (build_llama, True)])
def test_figures_agree_with_one_block_at_a_time(build, bos):
    model = build()
    blocks = build_data().blocks(build_tokenizer(bos), "validation", LENGTH)
    log_probs, correct = score_blocks(model, blocks)
    assert log_probs.shape == correct.shape == (len(blocks), LENGTH - 1) and first_scored(blocks) == 1
    for row in (0, 7, len(blocks) - 1):
        ids = torch.from_numpy(blocks.ids[row : row + 1])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0].double()
        for t in range(1, LENGTH):
            p = logits[t - 1].softmax(-1)
            assert log_probs[row, t - 1] == pytest.approx(float(p[ids[0, t]].log()), abs=1e-5)
            assert correct[row, t - 1] == (int(p.argmax()) == int(ids[0, t]))


def test_loss_is_the_models_own_loss(suite, dense):
    result = suite.evaluate(dense, "validation")
    ids = torch.from_numpy(suite.blocks("validation").ids)
    with torch.inference_mode():
        loss = float(dense(input_ids=ids, labels=ids).loss)
    assert math.log(result.perplexity) == pytest.approx(loss, rel=1e-5)
    assert result.n_items == ids[:, 1:].numel()
    assert result.quality_pct == suite.quality(dense) == 100 * result.correct.mean()
    assert result.per_task_pct == {"next_token": result.quality_pct}


def test_more_than_one_opening_token_is_not_scored():
    blocks = dataclasses.replace(build_data().blocks(build_tokenizer(), "validation", LENGTH), opening=3)
    whole = dataclasses.replace(blocks, opening=0)
    model = build_mamba()
    assert np.array_equal(score_blocks(model, blocks)[0], score_blocks(model, whole)[0][:, 2:])


def test_a_model_against_itself_loses_nothing(suite, judged, dense):
    found = suite.compare(judged[0], judged[0])
    assert (found["drop_pp"], found["se_pp"], found["perplexity_ratio"]) == (0.0, 0.0, 1.0)
    assert found["ci95"] == [0.0, 0.0] and found["perplexity_ratio_ci95"] == [1.0, 1.0]
    assert abs(found["kl"]) < 1e-6
    assert suite.compare(suite.evaluate(copy.deepcopy(dense), "test"), judged[0])["drop_pp"] == 0.0


def test_a_damaged_model_loses_and_diverges(suite, judged):
    found = suite.compare(judged[1], judged[0])
    assert found["kl"] > 1e-3 and found["kl_ci95"][0] < found["kl"] < found["kl_ci95"][1]
    assert found["perplexity_ratio"] == pytest.approx(judged[1].perplexity / judged[0].perplexity)
    low, high = found["perplexity_ratio_ci95"]
    assert low < found["perplexity_ratio"] < high
    assert found["drop_pp"] == pytest.approx(judged[0].quality_pct - judged[1].quality_pct)
    assert found["per_task"]["next_token"]["drop_pp"] == found["drop_pp"]
    assert found["n_items"] == judged[0].n_items and found["n_clusters"] == 25
    assert found["kl_items"] == KL_BLOCKS * (LENGTH - 1)


def test_kl_by_hand(dense):
    blocks = build_data().blocks(build_tokenizer(), "validation", LENGTH)
    other = damage(dense)
    kl = kl_to_dense(other, dense, blocks)
    ids = torch.from_numpy(blocks.ids[:1])
    with torch.inference_mode():
        p, q = (model(input_ids=ids).logits[0, 4].double().softmax(-1) for model in (dense, other))
    assert kl[0, 4] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)
    assert kl.min() > -1e-6


def test_standard_errors_are_paired_and_clustered():
    """Two clusters of two tokens; losses 1, 1 and 0, 0: mean 1/2, se = sqrt(2 (1² + 1²)) / 4 = 1/2."""
    correct = np.array([[True, True, True, True]])
    clusters = np.array([[5, 5, 9, 9]])
    flat = np.log(np.full((1, 4), 0.5, np.float32))
    one = LanguageResult("test", flat, correct, clusters)
    two = LanguageResult(
        "test", flat + np.float32([[-0.2, -0.2, 0, 0]]), ~correct | np.array([0, 0, 1, 1], bool), clusters
    )
    found = compare_language_results(two, one)
    assert found["drop_pp"] == 50.0 and found["se_pp"] == pytest.approx(50.0) and found["n_clusters"] == 2
    assert math.log(found["perplexity_ratio"]) == pytest.approx(0.1, rel=1e-6)
    assert math.log(found["perplexity_ratio_ci95"][1]) == pytest.approx(0.1 + 1.959964 * 0.1, rel=1e-5)
    assert found["kl"] is None and found["kl_items"] == 0
    alone = summarise_result(one)
    assert (alone["pct"], alone["se_pp"], alone["n_clusters"]) == (100.0, 0.0, 2)
    assert alone["perplexity"] == pytest.approx(2.0)


def test_results_survive_the_disk(suite, judged, tmp_path):
    suite.save_result(judged[1], tmp_path / "deep" / "test.safetensors")
    again = suite.load_result(tmp_path / "deep" / "test.safetensors")
    for field in dataclasses.fields(LanguageResult):
        assert np.array_equal(getattr(again, field.name), getattr(judged[1], field.name)), field.name
    assert suite.compare(again, judged[0]) == suite.compare(judged[1], judged[0])
    without = LanguageSuite(suite.data, suite.tokenizer, length=LENGTH)
    without.save_result(without.evaluate(build_mamba(), "test"), tmp_path / "plain.safetensors")
    assert without.load_result(tmp_path / "plain.safetensors").kl is None


def test_a_suite_survives_the_disk_and_is_refused_elsewhere(suite, judged, tmp_path):
    few = LanguageSuite(suite.data, suite.tokenizer, length=LENGTH, max_blocks={"test": 5})
    assert len(few.blocks("test")) == 5 and few.sha256 != suite.sha256
    few.save(tmp_path)
    again = LanguageSuite.load(tmp_path, suite.data, suite.tokenizer, suite.dense)
    assert again.sha256 == few.sha256 and again.dense is suite.dense and again.max_blocks == {"test": 5}
    with pytest.raises(ArtifactError, match="other text or another tokenizer"):
        LanguageSuite.load(tmp_path, build_data(seed=1), suite.tokenizer)
    with pytest.raises(ArtifactError, match="other text or another tokenizer"):
        LanguageSuite.load(tmp_path, suite.data, build_tokenizer(bos=True))
    suite.save_result(judged[0], tmp_path / "result.safetensors")
    with pytest.raises(ArtifactError, match="other text or tokens"):
        few.load_result(tmp_path / "result.safetensors")
    (tmp_path / "result.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="missing or damaged"):
        suite.load_result(tmp_path / "result.safetensors")


def test_progress_counts_every_token(suite, dense):
    seen = []
    suite.evaluate(dense, "validation", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == suite.blocks("validation").ids.size


def test_what_cannot_be_judged_is_refused(suite, judged, dense):
    blocks = suite.blocks("test")
    with pytest.raises(MeasureError, match="no logits per token"):
        bert = BertModel(BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
        score_blocks(bert, blocks)
    with pytest.raises(MeasureError, match="out of the model's range of 20"):
        score_blocks(build_mamba(vocab_size=20), blocks)
    with pytest.raises(MeasureError, match="60 and 40 logits"):
        kl_to_dense(build_mamba(vocab_size=60), dense, blocks)
    broken = copy.deepcopy(dense)
    with torch.no_grad():
        broken.backbone.norm_f.weight[0] = math.nan
    with pytest.raises(MeasureError, match="block 0 is not finite"):
        score_blocks(broken, blocks)
    with pytest.raises(MeasureError, match="'dev' is not one of"):
        suite.evaluate(dense, "dev")
    with pytest.raises(MeasureError, match="not comparable"):
        suite.compare(suite.evaluate(dense, "validation"), judged[0])
