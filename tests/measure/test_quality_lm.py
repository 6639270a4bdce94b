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

from icd_lib.data.domains import DomainText
from icd_lib.data.language import LanguageData, domain_blocks
from icd_lib.errors import ArtifactError, MeasureError, NotFinite
from icd_lib.measure.logits import DenseLogits
from icd_lib.measure.quality_lm import (
    KL_BLOCKS,
    LanguageResult,
    LanguageSuite,
    SplitResult,
    compare_language_results,
    first_scored,
    judge_blocks,
    score_blocks,
    summarise_result,
)
from icd_lib.workloads.model.setup import own_quality
from icd_lib.workloads.model.solve import judgement_of

VOCABULARY, LENGTH, DOCUMENTS = 40, 12, 90


def build_tokenizer(bos=False):
    vocabulary = {token: i for i, token in enumerate(["</s>", "<s>", *(f"w{i}" for i in range(VOCABULARY - 2))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="</s>")


def build_data(seed=0):
    """Chapters of a toy corpus."""
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


def build_domain(name, documents, seed=0):
    """Six texts per document."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, VOCABULARY - 2, (6 * documents, 9))
    texts = [" ".join(f"w{i}" for i in row) for row in rows]
    return DomainText(name, texts, {}, np.arange(6 * documents) // 6, same_document=True)


def build_judged(seed=0, bos=False):
    """One domain to validate on, two that are unseen."""
    tokenizer = build_tokenizer(bos)
    others = {"films": build_domain("films", 12, seed + 1), "news": build_domain("news", 20, seed + 2)}
    return {
        "validation": {"verses": build_data(seed).blocks(tokenizer, "validation", LENGTH)},
        "unseen": domain_blocks(tokenizer, others, LENGTH, 999),
        "selection": {},
    }


@pytest.fixture(scope="module")
def suite(dense):
    return LanguageSuite(build_judged(), dense)


@pytest.fixture(scope="module")
def judged(suite, dense):
    """Results of the dense model and of a damaged one on unseen text."""
    return suite.evaluate(dense, "unseen"), suite.evaluate(damage(dense), "unseen")


@pytest.mark.parametrize("build, bos", [(build_mamba, False), (build_llama, True)])
def test_figures_agree_with_one_block_at_a_time(build, bos):
    model = build()
    blocks = build_data().blocks(build_tokenizer(bos), "validation", LENGTH)
    log_probs, correct, _ = score_blocks(model, blocks)
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
    blocks = suite.judged["validation"]["verses"]
    result = judge_blocks(dense, blocks)
    ids = torch.from_numpy(blocks.ids)
    with torch.inference_mode():
        loss = float(dense(input_ids=ids, labels=ids).loss)
    assert math.log(result.perplexity) == pytest.approx(loss, rel=1e-5)
    assert result.n_items == ids[:, 1:].numel()
    assert result.quality_pct == suite.quality(dense) == 100 * result.correct.mean()


def test_more_than_one_opening_token_is_not_scored():
    blocks = dataclasses.replace(build_data().blocks(build_tokenizer(), "validation", LENGTH), opening=3)
    whole = dataclasses.replace(blocks, opening=0)
    model = build_mamba()
    assert np.array_equal(score_blocks(model, blocks)[0], score_blocks(model, whole)[0][:, 2:])


def test_a_model_against_itself_loses_nothing(suite, judged, dense):
    for result in (judged[0], suite.evaluate(copy.deepcopy(dense), "unseen")):
        found = suite.compare(result, judged[0])
        assert (found["own"]["drop_pp"], found["own"]["se_pp"], found["own"]["ci95"]) == (0.0, 0.0, [0.0, 0.0])
        assert found["perplexity_ratio"] == {"value": 1.0, "ci95": [1.0, 1.0]}
        assert found["perplexity"] == found["dense_perplexity"]
        assert abs(found["kl"]["value"]) < 1e-6


def test_a_damaged_model_loses_and_diverges_and_every_domain_weighs_the_same(suite, judged):
    dense, damaged = judged
    found = suite.compare(damaged, dense)
    assert (found["split"], found["n_items"]) == ("unseen", dense.n_items)
    domains = found["domains"]
    assert list(domains) == ["films", "news"] and domains["films"]["n"] != domains["news"]["n"]
    for name, entry in domains.items():
        before, after = dense.domains[name], damaged.domains[name]
        assert entry["own"]["drop_pp"] == pytest.approx(before.quality_pct - after.quality_pct)
        assert entry["own"] == entry["own_labelled"] and entry["dropin"] is None and entry["cosine"] is None
        assert entry["perplexity_ratio"] == pytest.approx(after.perplexity / before.perplexity)
        assert (entry["perplexity"], entry["dense_perplexity"]) == (after.perplexity, before.perplexity)
        assert after.kl.shape == (KL_BLOCKS, LENGTH - 1) and entry["kl"] == pytest.approx(after.kl.mean(), rel=1e-4)
        (task,) = entry["tasks"].values()
        assert task["own"]["drop_pp"] == entry["own"]["drop_pp"] and task["n"] == entry["n"] == after.n_items
    own = found["own"]
    assert own["drop_pp"] == pytest.approx(np.mean([entry["own"]["drop_pp"] for entry in domains.values()]))
    assert own["se_pp"] == pytest.approx(math.hypot(*(entry["own"]["se_pp"] for entry in domains.values())) / 2)
    assert own["ci95"][0] < own["drop_pp"] < own["ci95"][1] and own["pct"] == pytest.approx(
        np.mean([result.quality_pct for result in damaged.domains.values()])
    )
    assert found["own_labelled"] == own and found["dropin"] is None and found["cosine"] is None
    assert found["kl"]["value"] == pytest.approx(np.mean([entry["kl"] for entry in domains.values()]))
    assert found["kl"]["value"] > 1e-3 and found["kl"]["ci95"][0] < found["kl"]["value"] < found["kl"]["ci95"][1]
    ratio = found["perplexity_ratio"]
    assert ratio["value"] == pytest.approx(found["perplexity"] / found["dense_perplexity"])
    assert ratio["ci95"][0] < ratio["value"] < ratio["ci95"][1]
    assert found["perplexity"] == pytest.approx(
        math.sqrt(damaged.domains["films"].perplexity * damaged.domains["news"].perplexity)
    )
    worst = max(domains, key=lambda name: domains[name]["own"]["drop_pp"])
    assert found["worst_domain"] == worst


def test_the_loop_and_the_setup_read_the_comparison(suite, judged, dense):
    judgement = judgement_of(suite.compare(judged[1], judged[0]))
    assert judgement.detail["perplexity_ratio"] > 1 and judgement.detail["kl"] > 0 and "cosine" not in judgement.detail
    context = type("context", (), {"suite": suite})
    described = own_quality(context, "unseen", judged[0])
    assert described["domains"]["news"]["quality_pct"] == judged[0].domains["news"].quality_pct


def test_kl_by_hand(dense):
    blocks = build_data().blocks(build_tokenizer(), "validation", LENGTH)
    other = damage(dense)
    kl = score_blocks(other, blocks, DenseLogits(dense))[2]
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
    one = LanguageResult(flat, correct, clusters)
    two = LanguageResult(flat + np.float32([[-0.2, -0.2, 0, 0]]), ~correct | np.array([0, 0, 1, 1], bool), clusters)
    found = compare_language_results(two, one)
    assert found["drop_pp"] == 50.0 and found["se_pp"] == pytest.approx(50.0)
    assert found["log_ratio"] == pytest.approx(0.1, rel=1e-6) and found["log_ratio_se"] == pytest.approx(0.1, rel=1e-6)
    assert found["kl"] is None
    over = LanguageSuite({}).compare(
        SplitResult("unseen", {"a": two, "b": one}), SplitResult("unseen", dict(a=one, b=one))
    )
    assert over["own"]["drop_pp"] == 25.0 and over["own"]["se_pp"] == pytest.approx(25.0)
    assert math.log(over["perplexity_ratio"]["value"]) == pytest.approx(0.05, rel=1e-6)
    assert math.log(over["perplexity_ratio"]["ci95"][1]) == pytest.approx(0.05 + 1.959964 * 0.05, rel=1e-5)
    assert over["kl"] is None and over["worst_domain"] == "a"
    assert (over["dense_perplexity"], over["perplexity"]) == pytest.approx((2.0, 2.0 * math.exp(0.05)))
    alone = summarise_result(one)
    assert (alone["pct"], alone["se_pp"], alone["n_clusters"]) == (100.0, 0.0, 2)
    assert alone["perplexity"] == pytest.approx(2.0)


def test_a_perplexity_that_no_float_holds_is_refused(suite, judged):
    news = judged[0].domains["news"]
    lost = SplitResult("unseen", {"news": dataclasses.replace(news, log_probs=news.log_probs - np.float32(1000))})
    with pytest.raises(NotFinite, match="the loss rose by 1000 nats per token"):
        suite.compare(lost, SplitResult("unseen", {"news": news}))


def test_results_survive_the_disk(suite, judged, tmp_path):
    suite.save_result(judged[1], tmp_path / "deep" / "unseen.safetensors")
    again = suite.load_result(tmp_path / "deep" / "unseen.safetensors")
    assert again.split == "unseen" and list(again.domains) == ["films", "news"]
    for name, result in again.domains.items():
        for field in dataclasses.fields(LanguageResult):
            assert np.array_equal(getattr(result, field.name), getattr(judged[1].domains[name], field.name)), field.name
    assert suite.compare(again, judged[0]) == suite.compare(judged[1], judged[0])
    without = LanguageSuite(suite.judged)
    without.save_result(without.evaluate(build_mamba(), "unseen"), tmp_path / "plain.safetensors")
    assert without.load_result(tmp_path / "plain.safetensors").domains["news"].kl is None


def test_where_strengths_are_chosen_there_is_no_kl(suite, dense, tmp_path):
    choosing = LanguageSuite(suite.judged, dense, choosing="validation")
    other = build_mamba()
    for split, has_kl in (("validation", False), ("unseen", True)):
        found = choosing.evaluate(other, split)
        compared = choosing.compare(found, choosing.evaluate(dense, split))
        assert (compared["kl"] is not None) is has_kl
        whole = suite.compare(suite.evaluate(other, split), suite.evaluate(dense, split))
        assert compared["own"] == whole["own"] and compared["perplexity_ratio"] == whole["perplexity_ratio"]
        choosing.save_result(found, tmp_path / "found.safetensors")
        if not has_kl:
            assert choosing.load_result(tmp_path / "found.safetensors").domains["verses"].kl is None
            with pytest.raises(ArtifactError, match="other text or tokens"):
                suite.load_result(tmp_path / "found.safetensors")


def test_results_of_other_text_or_tokens_are_refused(suite, judged, tmp_path):
    path = tmp_path / "result.safetensors"
    suite.save_result(judged[0], path)
    fewer = suite.judged | {"unseen": {"films": suite.judged["unseen"]["films"]}}
    moved = {name: dataclasses.replace(x, cluster=x.cluster + 1) for name, x in suite.judged["unseen"].items()}
    for other in (build_judged(seed=5), build_judged(bos=True), fewer, suite.judged | {"unseen": moved}, {}):
        with pytest.raises(ArtifactError, match="other text or tokens"):
            LanguageSuite(other).load_result(path)
    assert LanguageSuite(build_judged()).sha256s == suite.sha256s
    path.write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="missing or damaged"):
        suite.load_result(path)


def test_progress_counts_every_token(suite, dense):
    seen = []
    suite.evaluate(dense, "unseen", lambda done, total: seen.append((done, total)))
    total = sum(blocks.ids.size for blocks in suite.judged["unseen"].values())
    assert seen[-1] == (total, total) and seen == sorted(seen) and len(seen) == len(set(seen)) >= 2


def test_what_cannot_be_judged_is_refused(suite, judged, dense):
    blocks = suite.judged["unseen"]["news"]
    with pytest.raises(MeasureError, match="no logits per token"):
        bert = BertModel(BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
        score_blocks(bert, blocks)
    with pytest.raises(MeasureError, match="out of the model's range of 20"):
        score_blocks(build_mamba(vocab_size=20), blocks)
    with pytest.raises(MeasureError, match="60 and 40 logits"):
        score_blocks(build_mamba(vocab_size=60), blocks, DenseLogits(dense))
    broken = copy.deepcopy(dense)
    with torch.no_grad():
        broken.backbone.norm_f.weight[0] = math.nan
    with pytest.raises(NotFinite, match="block 0 is not finite"):
        score_blocks(broken, blocks)
    with pytest.raises(MeasureError, match="'dev' is not one of"):
        suite.evaluate(dense, "dev")
    with pytest.raises(MeasureError, match=r"no text is judged as 'selection'.*data\.selection"):
        suite.evaluate(dense, "selection")
    with pytest.raises(MeasureError, match="not comparable"):
        suite.compare(suite.evaluate(dense, "validation"), judged[0])
    films, news = judged[0].domains.values()
    with pytest.raises(MeasureError, match="judge both models on the same blocks"):
        compare_language_results(films, news)
    with pytest.raises(MeasureError, match="not of the same documents"):
        compare_language_results(dataclasses.replace(news, clusters=news.clusters + 1), news)
