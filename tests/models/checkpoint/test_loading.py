"""A model that was saved, optimised or not, comes back as the same function, and a damaged one is refused."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from icd_lib.axes.vocab import apply_token_map, install_token_map
from icd_lib.errors import ArtifactError, ConfigError, ResourceError, TransformError
from icd_lib.models.checkpoint.loading import fetch_models, load_model, load_optimized, save_optimized
from icd_lib.models.checkpoint.source import random_checkpoint, resolve_checkpoint
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.shapes import SHAPES
from tests.tiny_decoders import tiny_decoder
from tests.tiny_words import tiny_words

HIDDEN, HEADS, FFN, VOCAB = 32, 4, 64, 40


def build(model_class=BertModel, seed=0, **options):
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        max_position_embeddings=32,
        num_labels=3,
    )
    torch.manual_seed(seed)
    model = model_class(config, **options).eval()
    for parameter in model.parameters():  # biases and norms away from their trivial initial values
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def build_tokenizer(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCAB - 5))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    return transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))


@pytest.fixture
def tokenizer(tmp_path):
    return build_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(0, VOCAB, (3, 10), generator=generator), "attention_mask": mask}


def shrink(linear, *, rows=None, columns=None):
    weight = linear.weight.data
    if rows is not None:
        weight, linear.bias = weight[rows], nn.Parameter(linear.bias.data[rows].clone())
    if columns is not None:
        weight = weight[:, columns]
    linear.weight = nn.Parameter(weight.clone())
    linear.out_features, linear.in_features = weight.shape


def prune(model, layer=0, heads=(0, 3), ffn=20, dims=None):
    """Keep some heads, some dims of each and `ffn` neurons of one layer, the way compaction does."""
    block = model.base_model.encoder.layer[layer]
    inner, size = block.attention.self, HIDDEN // HEADS
    dims = list(range(size)) if dims is None else dims
    kept = torch.tensor([h * size + d for h in heads for d in dims])
    for linear in (inner.query, inner.key, inner.value):
        shrink(linear, rows=kept)
    shrink(block.attention.output.dense, columns=kept)
    inner.num_attention_heads, inner.attention_head_size, inner.all_head_size = len(heads), len(dims), len(kept)
    shrink(block.intermediate.dense, rows=torch.arange(ffn))
    shrink(block.output.dense, columns=torch.arange(ffn))
    return model


def output(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def write_checkpoint(folder, model=None, tokenizer=True):
    (model or build()).save_pretrained(folder)
    if tokenizer:
        build_tokenizer(folder)
    return resolve_checkpoint(str(folder))


# --- load_model -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_written_by_save_pretrained_loads_as_the_same_function(tmp_path, inputs):
    model = build()
    loaded, tokenizer = load_model(write_checkpoint(tmp_path / "m", model))
    assert torch.equal(output(loaded, inputs), output(model, inputs))
    assert tokenizer("w1 w2")["input_ids"] == [2, 6, 7, 3]
    assert not loaded.training and loaded.config._attn_implementation == "sdpa"


def test_a_sharded_checkpoint_loads(tmp_path, inputs):
    model = build()
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    build_tokenizer(tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors.index.json").exists()
    loaded, _ = load_model(resolve_checkpoint(str(tmp_path / "m")))
    assert torch.equal(output(loaded, inputs), output(model, inputs))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_decoder_loads_in_what_is_asked_for_whatever_it_is_stored_in(tmp_path, stored, tied):
    words, sizes = tiny_words(), {"vocab_size": 264, "tie_word_embeddings": tied}
    model = tiny_decoder(dtype=stored, **sizes)
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    words.save_pretrained(tmp_path / "m")
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
    loaded, _ = load_model(resolve_checkpoint(str(tmp_path / "m"), family="llama"))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    expected = tiny_decoder(dtype=torch.float32, **sizes)  # not model.float(), whose rotary angles were rounded too
    expected.load_state_dict(model.state_dict())
    inputs = {"input_ids": torch.arange(3, 12)[None], "use_cache": False}
    assert torch.equal(output(loaded, inputs), output(expected, inputs))


def test_dtype_is_the_one_asked_for(tmp_path):
    loaded, _ = load_model(write_checkpoint(tmp_path / "m"), dtype=torch.float64)
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}


def test_a_classification_head_is_kept_and_a_pretraining_head_left_out(tmp_path, inputs):
    classifier = build(BertForSequenceClassification)
    loaded, _ = load_model(write_checkpoint(tmp_path / "c", classifier))
    assert torch.equal(output(loaded, inputs), output(classifier, inputs))
    masked = build(BertForMaskedLM)
    loaded, _ = load_model(write_checkpoint(tmp_path / "m", masked))
    assert type(loaded) is BertModel and loaded.pooler is None
    assert torch.equal(output(loaded, inputs), output(masked.bert, inputs))


def test_a_missing_weight_is_an_error_that_names_it(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "m")
    weights = load_file(checkpoint.path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, checkpoint.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load_model(checkpoint)


def test_weights_of_another_size_are_an_error(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "m")
    config = json.loads((checkpoint.path / "config.json").read_text())
    (checkpoint.path / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ArtifactError, match="config.json"):
        load_model(checkpoint)


def test_a_missing_or_oversized_tokenizer_is_an_error(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "m", tokenizer=False)
    with pytest.raises(ResourceError, match=r"tokenizer\.save_pretrained"):
        load_model(checkpoint)
    with build_tokenizer(tmp_path / "m") and (tmp_path / "m" / "vocab.txt").open("a") as file:
        file.write("\nextra")
    with pytest.raises(ConfigError, match="41 tokens"):
        load_model(checkpoint)


def test_random_weights_depend_on_the_seed_alone(monkeypatch):
    tiny = {"vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2}
    for key, value in (tiny | {"intermediate_size": 24}).items():
        monkeypatch.setitem(SHAPES["minilm-l6"].config, key, value)
    state = torch.random.get_rng_state()
    (a, _), (b, _), (c, _) = (load_model(random_checkpoint("minilm-l6", seed)) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    weight = "encoder.layer.0.output.dense.weight"
    assert torch.equal(a.state_dict()[weight], b.state_dict()[weight])
    assert not torch.equal(a.state_dict()[weight], c.state_dict()[weight])
    assert a.config.num_hidden_layers == 6 and a.config.hidden_size == 16


def test_fetch_models_reports_each_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    write_checkpoint(tmp_path / "m")
    lines = []
    found = fetch_models(["org/none", str(tmp_path / "m")], report=lines.append)
    assert "not found" in found[0]["reason"] and found[1]["source"] == "path"
    assert len(lines) == 2 and "path" in lines[1]


# --- optimised models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model_class, options",
    [
        (BertModel, {}),
        (BertModel, {"add_pooling_layer": False}),
        (BertForSequenceClassification, {}),
        (BertForMaskedLM, {}),
    ],
)
def test_an_uneven_model_comes_back_bit_for_bit(tmp_path, tokenizer, inputs, model_class, options):
    model = prune(prune(build(model_class, **options)), layer=1, heads=(1, 2, 3), ffn=33, dims=[0, 2, 3, 5, 7])
    save_optimized(model, tokenizer, tmp_path / "out", {"note": "x"})
    loaded = load_optimized(tmp_path / "out")
    assert type(loaded) is model_class and not loaded.training
    assert torch.equal(output(loaded, inputs), output(model, inputs))
    assert loaded.base_model.encoder.layer[1].intermediate.dense.out_features == 33
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("w1")["input_ids"] == [2, 6, 3]
    record = json.loads((tmp_path / "out" / "icd.json").read_text())
    assert record["meta"] == {"note": "x"} and record["format"] == "icd/v1"
    assert any(key.endswith("layer.1.intermediate.dense.weight") for key in record["widths"])


def test_a_dense_model_round_trips_and_records_no_difference(tmp_path, tokenizer, inputs):
    model = build()
    save_optimized(model, tokenizer, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "icd.json").read_text())
    assert record["attributes"] == [] and record["widths"] == {}
    assert torch.equal(output(load_optimized(tmp_path / "out"), inputs), output(model, inputs))


def test_masked_lm_ties_survive(tmp_path, tokenizer):
    save_optimized(prune(build(BertForMaskedLM)), tokenizer, tmp_path / "out")
    loaded = load_optimized(tmp_path / "out")
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


def test_a_token_map_survives_and_is_folded_when_uniform(tmp_path, tokenizer, inputs):
    model, expected = build(), None
    expected = output(model, inputs)
    embedding = model.embeddings.word_embeddings
    perm = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(2))
    install_token_map(embedding)
    embedding.weight.data = embedding.weight.data[perm]
    apply_token_map(embedding, torch.argsort(perm))
    assert torch.equal(output(model, inputs), expected)
    save_optimized(model, tokenizer, tmp_path / "out")
    assert torch.equal(output(load_optimized(tmp_path / "out"), inputs), expected)
    save_optimized(model, tokenizer, tmp_path / "plain", uniform=True)
    assert torch.equal(output(AutoModel.from_pretrained(tmp_path / "plain"), inputs), expected)


def test_uniform_loads_in_plain_transformers_and_is_the_same_function(tmp_path, tokenizer, inputs):
    model = prune(prune(build().double(), ffn=20, dims=[1, 3, 4]), layer=1, heads=(2,), ffn=33)
    expected = output(model, inputs)
    save_optimized(model, tokenizer, tmp_path / "out", uniform=True)
    for loaded in (AutoModel.from_pretrained(tmp_path / "out", dtype=torch.float64), load_optimized(tmp_path / "out")):
        assert loaded.config.intermediate_size == 33
        torch.testing.assert_close(output(loaded, inputs), expected, rtol=1e-12, atol=1e-12)
    assert model.encoder.layer[0].intermediate.dense.out_features == 20, "the given model stays as it is"


def test_uniform_of_a_dense_model_changes_nothing():
    model = build()
    padded = to_uniform(model).state_dict()
    assert all(torch.equal(padded[key], value) for key, value in model.state_dict().items())


def test_saving_refuses_foreign_folders_and_classes_and_leaves_nothing(tmp_path, tokenizer):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ArtifactError, match="not empty"):
        save_optimized(build(), tokenizer, tmp_path / "mine")
    with pytest.raises(ArtifactError, match="is a file"):
        save_optimized(build(), tokenizer, tmp_path / "mine" / "thesis.txt")
    with pytest.raises(TransformError, match="Linear"):
        save_optimized(nn.Linear(2, 2), tokenizer, tmp_path / "other")
    with pytest.raises(ValueError):
        save_optimized(build(), tokenizer, tmp_path / "nan", {"x": float("nan")})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "tokenizer"]
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_saving_again_replaces_the_earlier_model(tmp_path, tokenizer, inputs):
    save_optimized(build(seed=0), tokenizer, tmp_path / "out")
    second = prune(build(seed=1))
    save_optimized(second, tokenizer, tmp_path / "out")
    assert torch.equal(output(load_optimized(tmp_path / "out"), inputs), output(second, inputs))


@pytest.fixture
def saved(tmp_path, tokenizer):
    return save_optimized(prune(build()), tokenizer, tmp_path / "out")


def edit_record(folder, **changes):
    record = json.loads((folder / "icd.json").read_text())
    (folder / "icd.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_or_truncated_file_is_refused(saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-8])
    with pytest.raises(ArtifactError, match="sha256"):
        load_optimized(saved)
    (saved / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="sha256"):
        load_optimized(saved)
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_optimized(saved)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": "icd/v9"}, "icd/v9"),
        ({"architecture": "os"}, "architecture 'os'"),
        ({"architecture": "pipeline"}, "architecture 'pipeline'"),
        ({"options": {"trust": True}}, "unknown options"),
        ({"attributes": [["encoder.layer.9.attention.self", "num_attention_heads", 2]]}, "layer.9"),
        ({"attributes": [["encoder.layer.0.attention.self", "forward", 2]]}, "not a number"),
        ({"attributes": [["encoder.layer.0.attention.self", "num_attention_heads", "2"]]}, "not a number"),
    ],
)
def test_a_tampered_record_is_refused(saved, changes, message):
    edit_record(saved, **changes)
    with pytest.raises(ArtifactError, match=message):
        load_optimized(saved)


def test_a_missing_or_broken_record_is_refused(saved):
    (saved / "icd.json").write_text('{"format": ')
    with pytest.raises(ArtifactError, match="save_optimized"):
        load_optimized(saved)
    (saved / "icd.json").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_optimized(saved)


@pytest.mark.parametrize("shape, message", [([FFN * 10**6, HIDDEN], "larger"), ([HIDDEN], "larger")])
def test_shapes_beyond_the_config_are_refused_before_allocation(shape, message):
    from icd_lib.models.checkpoint.optimized import _fit_shapes

    with pytest.raises(ArtifactError, match=message):
        _fit_shapes(build(), {"encoder.layer.0.intermediate.dense.weight": shape})


def test_weights_that_do_not_belong_are_refused(saved):
    from icd_lib.models.checkpoint.files import hash_files

    weights = load_file(saved / "model.safetensors")
    weights["stranger"] = torch.zeros(1)
    del weights["pooler.dense.bias"]
    save_file(weights, saved / "model.safetensors")
    edit_record(saved, sha256=hash_files([saved / "model.safetensors"]))
    with pytest.raises(ArtifactError, match="pooler.dense.bias.*stranger"):
        load_optimized(saved)
