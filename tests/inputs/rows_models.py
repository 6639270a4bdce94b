"""Models and checkpoints, as users bring them."""

import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.utils.prune import random_unstructured

import icd_lib as icd
from icd_lib import api
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import ArtifactError, AxisError, ConfigError, IcdError, TransformError
from icd_lib.models.check import check_model
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.ties import ties_of
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.sparsity.allocate import LatencyTable
from icd_lib.workloads.model.setup import check_lengths
from tests.inputs.case import Case, Ground
from tests.inputs.checkpoints import loaded, written
from tests.inputs.encoders import REFUSED, SUPPORTED, batches, encoder

ONE = ("bert",)  # for what is not about the family's tiny model
QUICK = {"tile": 8, "distill_steps": 0, "strengths": (-0.02,), "max_rounds": 1, "mode": "oneshot"}


def known_machine(observed: Observed, settings, device) -> Findings:
    """Tables by hand instead of measured ones: every tile of every axis saves the same, half of 20 ms in all."""
    items = list(observed.adapter.prunable())
    tables = {}
    for item in items:
        kept = np.arange(settings.tiles[item.kind], item.elements + 1, settings.tiles[item.kind])
        tables[item.kind] = LatencyTable(item.kind, kept, 10 / len(items) * (1 - kept / item.elements))
    return Findings(tables, 20.0, {item.axis: 1.0 for item in items})


def optimized(model: nn.Module, calibration: list[dict] | None = None, quality=lambda model: 50.0):
    """What `icd.optimize` makes of the model where no clock has a say."""
    with patch.object(api, "_measure_machine", known_machine):
        return icd.optimize(model, calibration or batches(), quality=quality, **QUICK)


def is_finite_and_whole(result) -> None:
    """What every accepted model is: finite, in eval mode, with the widths that its report says."""
    model = result.model
    assert all(p.isfinite().all() for p in model.parameters()) and not any(m.training for m in model.modules())
    sizes = {axis.name: axis.size for axis in find_adapter(model).axes()}
    assert all(sizes[name] == width for name, width in result.report["widths"].items())
    assert result.report["accepted_strength"] < 0


def refused(what: str, run: Callable[[Ground], object], error: type[IcdError], *message: str, door: str = "model"):
    says = "refused, and nothing is changed"
    return Case(door, what, says, run, refused=error, message=message, families=ONE)


# --- models that look like one of a family -------------------------------------------------------------------------


def hooked(ground: Ground) -> None:
    """Somebody's adapter: every layer's hidden state is changed on its way to the next."""

    def change(module, args, out):
        first = out[0] if isinstance(out, tuple) else out
        return (first * 1.01, *out[1:]) if isinstance(out, tuple) else first * 1.01

    trunk = find_adapter(ground.model).trunk()
    layers = trunk if isinstance(trunk, nn.ModuleList) else trunk.layer
    layers[-1].register_forward_hook(change)
    check_model(ground.model, [ground.inputs])


class Around(nn.Module):
    """Somebody's own classifier around an encoder."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(32, 2)

    def forward(self, **inputs):
        return self.head(self.encoder(**inputs).last_hidden_state)


def shared_layers(ground: Ground) -> None:
    trunk = find_adapter(ground.model).trunk()
    layers = trunk if isinstance(trunk, nn.ModuleList) else trunk.layer
    layers[1] = layers[0]
    check_model(ground.model, [ground.inputs])


def shared_tensor(ground: Ground) -> None:
    first, *_, last = find_adapter(ground.model).blocks()
    same = [b for b in find_adapter(ground.model).blocks() if b.kind == first.kind][-1]
    same.consumer.weight = first.consumer.weight
    check_model(ground.model, [ground.inputs])


def int8_weights(ground: Ground) -> None:
    block = next(find_adapter(ground.model).blocks())
    block.consumer.weight = nn.Parameter(block.consumer.weight.to(torch.int8), requires_grad=False)
    check_model(ground.model, [ground.inputs])


def with_encoder_states(ground: Ground) -> None:
    model = encoder("BertModel", is_decoder=True, add_cross_attention=True)
    inputs = [batch | {"encoder_hidden_states": torch.randn(4, 5, 32)} for batch in batches()]
    optimized(model, inputs)


def masked_copies(ground: Ground) -> None:
    model = encoder("BertModel")
    random_unstructured(model.encoder.layer[0].output.dense.requires_grad_(True), "weight", 0.5)
    optimized(model)


LOOKALIKES = [
    refused(
        f"{name}, which looks like BERT",
        lambda ground, name=name: optimized(encoder(name)),
        ConfigError,
        f"no adapter knows the architecture {name}; supported: .*roberta",
    )
    for name in REFUSED
]
MODELS = [
    refused("a model of no family", lambda ground: find_adapter(nn.Linear(2, 2)), ConfigError, "Linear", "supported: "),
    Case(
        "model",
        "a model whose layers do more than its family's (adapters, hooks)",
        "refused with the block where it begins: every model is replayed block by block on your inputs first",
        hooked,
        refused=AxisError,
        message=(r"block '\w+\.1' of \w+, run alone, is not what the model computes", "differs by", "supported: "),
    ),
    refused(
        "a module of your own around an encoder",
        lambda ground: optimized(Around(encoder("BertModel"))),
        TransformError,
        "Around",
        "pass model.encoder and put the result back: model.encoder = optimized.model",
    ),
    refused(
        "a module of your own around an encoder that only looks like BERT",
        lambda ground: check_model(Around(encoder("RoFormerModel")), batches()),
        AxisError,
        "block 'heads.0' of Around",
    ),
    Case(
        "model",
        "layers that are one module, `layer[1] is layer[0]`",
        "refused with both names",
        shared_layers,
        refused=AxisError,
        message=("share weights: '.*' and '.*' are one tensor", "copy.deepcopy"),
    ),
    Case(
        "model",
        "layers that share a tensor",
        "refused with both names",
        shared_tensor,
        refused=AxisError,
        message=("share weights: '.*' and '.*' are one tensor", "copy.deepcopy"),
    ),
    Case(
        "model",
        "integer weights (quantised)",
        "refused",
        int8_weights,
        refused=AxisError,
        message=(r"\.weight is int8: quantised", "float32"),
    ),
    refused("masks of torch.nn.utils.prune", masked_copies, TransformError, "cannot be copied", "prune.remove"),
    refused(
        "a decoder with cross-attention, given `encoder_hidden_states`",
        with_encoder_states,
        AxisError,
        r"block '(heads|ffn)\.0' of BertModel",
    ),
    refused(
        "`BertForMultipleChoice`",
        lambda ground: optimized(
            encoder("BertForMultipleChoice"), [{k: v[:, None] for k, v in b.items()} for b in batches()]
        ),
        ConfigError,
        r"input_ids takes the shape \(texts, tokens\).*got \(4, 1, 12\)",
    ),
    refused(
        "a model set to flash attention without the package",
        lambda ground: optimized(flash()),
        TransformError,
        "does not run on the inputs",
    ),
    refused(
        "inputs longer than the model's positions",
        lambda ground: optimized(encoder("RobertaModel"), [{"input_ids": torch.full((2, 39), 5)}]),
        ConfigError,
        "the longest input has 39 tokens but RobertaModel has positions for 38",
        door="calibration",
    ),
    Case(
        "model",
        "a decoder BERT (`is_decoder=True`), padded rows",
        "works: its causal mask is kept",
        lambda ground: optimized(encoder("BertLMHeadModel", is_decoder=True)),
        holds=is_finite_and_whole,
        families=ONE,
    ),
]


def flash() -> nn.Module:
    model = encoder("BertModel")
    model.config._attn_implementation = "flash_attention_2"
    return model


# --- half precision --------------------------------------------------------------------------------------------------


def half(dtype: torch.dtype):
    def run(ground: Ground):
        model = encoder("BertForSequenceClassification", dtype)
        before = copy.deepcopy(model.state_dict())
        seen = []

        def quality(candidate: nn.Module) -> float:
            seen.append({p.dtype for p in candidate.parameters()})
            return float(candidate(**batches()[0]).logits.float().mean() * 0 + 50)

        result = optimized(model, quality=quality)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return result, seen, dtype

    return run


def is_half_again(found) -> None:
    result, seen, dtype = found
    is_finite_and_whole(result)
    assert (
        {p.dtype for p in result.model.parameters()} == {dtype} and seen and all(dtypes == {dtype} for dtypes in seen)
    )


HALF = [
    Case(
        "model",
        f"a model in {name}",
        f"works: computed in float32 inside, judged and given back in {name}",
        half(dtype),
        holds=is_half_again,
        families=ONE,
    )
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16))
]

# --- one list of what is supported -----------------------------------------------------------------------------------


def through_every_door(name: str):
    def run(ground: Ground):
        model = encoder(name)
        assert icd.find_axes(model, batches()[0])
        result = optimized(model)
        kept = icd.load_optimized(result.save_pretrained(ground.folder / "small"))
        stock = type(model).from_pretrained(result.save_pretrained(ground.folder / "stock", uniform=True)).eval()
        checkpoint = loaded(written(ground.folder / "checkpoint", model), dtype=torch.float32)
        check_model(checkpoint, batches())
        return model, result, kept, stock, checkpoint

    return run


def is_the_same_everywhere(found) -> None:
    model, result, kept, stock, checkpoint = found
    is_finite_and_whole(result)
    inputs = batches()[0]
    valid = inputs["attention_mask"].bool()
    first = [next(iter(model_outputs(m, inputs).values())) for m in (result.model, kept, stock)]
    assert outputs_error({"": first[1]}, {"": first[0]}) == 0.0
    assert outputs_error({"": first[2]}, {"": first[0]}) < 1e-5
    encoders = [getattr(m, "base_model", m)(**inputs).last_hidden_state[valid] for m in (model, checkpoint)]
    assert torch.equal(*encoders)


TYPES = [
    Case(
        "model",
        f"model_type `{kind}` ({name})",
        "works, in memory and as a checkpoint, and is saved with and without `uniform`",
        through_every_door(name),
        holds=is_the_same_everywhere,
        families=ONE,
    )
    for kind, names in SUPPORTED.items()
    for name in names
]

# --- ties ------------------------------------------------------------------------------------------------------------


def decoder_of(model: nn.Module) -> nn.Module:
    return model.cls.predictions.decoder


def untie(model: nn.Module) -> None:
    decoder_of(model).weight = nn.Parameter(1.5 * decoder_of(model).weight, requires_grad=False)


def tie(model: nn.Module) -> None:
    decoder_of(model).weight = model.bert.embeddings.word_embeddings.weight


def untie_bias(model: nn.Module) -> None:
    decoder_of(model).bias = nn.Parameter(1 + decoder_of(model).bias, requires_grad=False)


def saved_and_loaded(by_hand: Callable[[nn.Module], None], **config):
    def run(ground: Ground):
        model = encoder("BertForMaskedLM", torch.float64, **config)
        by_hand(model)
        found = [model, load_optimized(save_optimized(model, None, ground.folder / "small"))]
        uniform = save_optimized(model, None, ground.folder / "stock", uniform=True)
        return [*found, load_optimized(uniform), type(model).from_pretrained(uniform).eval()]

    return run


def is_tied_alike(found) -> None:
    model, *others = found
    reference = model_outputs(model, batches()[0])
    for other in others:
        assert outputs_error(model_outputs(other, batches()[0]), reference) == 0.0
        assert (decoder_of(other).weight is other.bert.embeddings.word_embeddings.weight) == (
            decoder_of(model).weight is model.bert.embeddings.word_embeddings.weight
        )
        assert other.config.tie_word_embeddings == (
            decoder_of(model).weight is model.bert.embeddings.word_embeddings.weight
        )
    assert all(ties_of(other) == ties_of(model) for other in others[:2])


TIES = [
    Case("model", what, "saved and loaded as it is: ties follow the tensors", run, holds=is_tied_alike, families=ONE)
    for what, run in (
        ("a decoder untied by hand, its config says tied", saved_and_loaded(untie)),
        ("a decoder tied by hand, its config says untied", saved_and_loaded(tie, tie_word_embeddings=False)),
        ("a decoder's bias untied by hand", saved_and_loaded(untie_bias)),
        ("a decoder as its config says", saved_and_loaded(lambda model: None)),
    )
]

# --- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoint(change: Callable[[dict, dict], None], name: str = "BertModel", **config):
    """A Case's `run`: the checkpoint with the change, loaded."""
    return lambda ground: loaded(written(ground.folder / "m", encoder(name, **config), change))


def relative(config: dict, weights: dict) -> None:
    config["position_embedding_type"] = "relative_key_query"
    weights["encoder.layer.0.attention.self.distance_embedding.weight"] = torch.randn(79, 8)


def cast(dtype: torch.dtype):
    def change(config: dict, weights: dict) -> None:
        name = "encoder.layer.1.output.dense.weight"
        weights[name] = weights[name].to(dtype)

    return change


def key(**values):
    return lambda config, weights: config.update(values)


def more(names: dict[str, torch.Tensor]):
    return lambda config, weights: weights.update(names)


def with_bom(ground: Ground):
    folder = written(ground.folder / "m", encoder("BertModel"))
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())
    return loaded(folder)


def is_the_encoder(model: nn.Module) -> None:
    plain = encoder("BertModel", torch.float64)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name).float().double()), name


def too_long(ground: Ground) -> None:
    scenario = {"data.max_length": 128, "measure.shapes": ((8, 32),)}
    check_lengths(SimpleNamespace(model=encoder("RobertaModel"), get=scenario.get))


bad_file = partial(refused, door="checkpoint")
CHECKPOINTS = [
    bad_file(
        "relative positions (`relative_key_query`)",
        checkpoint(relative),
        ArtifactError,
        "has 1 weights that BertModel does not take, first '.*distance_embedding.weight'",
        "another architecture",
    ),
    bad_file(
        "more layers than its config.json says",
        checkpoint(key(num_hidden_layers=1)),
        ArtifactError,
        "does not take, first 'encoder.layer.1",
    ),
    bad_file(
        "int8 weights",
        checkpoint(cast(torch.int8)),
        ArtifactError,
        "tensor 'encoder.layer.1.output.dense.weight' in model.safetensors is I8: quantised",
        "take the model it was made from",
    ),
    bad_file(
        "float8 weights",
        checkpoint(cast(torch.float8_e4m3fn)),
        ArtifactError,
        "tensor 'encoder.layer.1.output.dense.weight' in model.safetensors is float8_e4m3fn: quantised",
    ),
    bad_file(
        "bitsandbytes in its config.json",
        checkpoint(key(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})),
        ConfigError,
        "is quantised",
    ),
    bad_file(
        "heads that do not divide the width", checkpoint(key(num_attention_heads=5)), ArtifactError, "config.json"
    ),
    bad_file(
        "`data.max_length` above its positions",
        too_long,
        ConfigError,
        "data.max_length has 128 tokens but RobertaModel has positions for 38: set it to at most 38",
    ),
    bad_file("no heads at all", checkpoint(key(num_attention_heads=0)), ArtifactError, "does not fit its config.json"),
    bad_file("an unknown activation", checkpoint(key(hidden_act="gelo")), ArtifactError, "config.json", "gelo"),
    bad_file(
        "a model_type that only looks like BERT",
        checkpoint(lambda config, weights: None, "RoFormerModel"),
        ConfigError,
        "'roformer'",
        "takes .*'roberta'",
    ),
    *(
        Case("checkpoint", what, says, run, holds=is_the_encoder, families=ONE)
        for what, says, run in (
            ("config.json with a byte-order mark", "works", with_bom),
            (
                "flash attention in its config.json",
                "works: SDPA is taken",
                checkpoint(key(attn_implementation="flash_attention_2", _attn_implementation="flash_attention_2")),
            ),
            (
                "a pre-training head beside the encoder, and buffers of earlier versions",
                "works: the encoder is loaded",
                checkpoint(
                    more(
                        {
                            "embeddings.position_ids": torch.arange(40)[None],
                            "cls.predictions.transform.dense.weight": torch.randn(32, 32),
                            "cls.seq_relationship.bias": torch.randn(2),
                        }
                    )
                ),
            ),
        )
    ),
]
CASES = [*MODELS, *HALF, *LOOKALIKES, *TYPES, *TIES, *CHECKPOINTS]
