"""A model with a state in every row that generates: eager's logits and tokens, from kernels and from a graph."""

from contextlib import closing

import numpy as np
import pytest
import torch

from icd_lib.decoding import DECODERS, REFERENCE
from icd_lib.decoding.bytes import bytes_per_token, state_bytes_of, weight_bytes_of
from icd_lib.decoding.grouped import exported_rows
from icd_lib.decoding.openvino import FP32, INT8
from icd_lib.decoding.prompt import pad_left
from icd_lib.decoding.stateful import constant_bytes, stateful_graph
from icd_lib.errors import ResourceError
from icd_lib.kernels import use_fast_scan
from icd_lib.models.grouped import grouped_modules
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.rounding import Recipe, round_embeddings, round_weights
from tests.tiny_grouped import batches
from tests.tiny_mambas import LAYERS, make_uneven, tiny_mamba

pytestmark = pytest.mark.wide

STEPS = 12
PROMPTS = [[1, 7, 9, 30, 12], [1, 4], [1, 44, 45, 46, 47, 48, 49, 50, 51]]
IDS, MASK = pad_left(PROMPTS)
EVEN = np.array([[1, 7, 9, 30], [1, 4, 22, 60]])
MODELS = {
    "stock scan": lambda: tiny_mamba(dtype=torch.float32),
    "fast scan": lambda: use_fast_scan(tiny_mamba(dtype=torch.float32)),
    "uneven": lambda: use_fast_scan(make_uneven(tiny_mamba(dtype=torch.float32))),
    "untied": lambda: use_fast_scan(tiny_mamba(dtype=torch.float32, tie_word_embeddings=False)),
}
ROWS = ("eager_bf16", pytest.param("compile", marks=pytest.mark.slow), "openvino", "openvino_bf16")


def text_of(decoder, ids, mask=None, given=None):
    """Logits (B, STEPS, V) after the prompts and after each token, its own or the given ones."""
    found = [decoder.prefill(ids, mask)]
    for step in range(STEPS - 1):
        found.append(decoder.step(found[-1].argmax(-1) if given is None else given[:, step]))
    return np.stack(found, axis=1)


def prepared(name, model):
    row = DECODERS[name]
    try:
        row.check()
        return row.prepare(model, threads=1)
    except ResourceError as error:
        pytest.skip(f"{name} is not available here: {error.args[0]}")


def apart(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("kind", MODELS)
def test_eager_says_what_the_model_says_of_the_whole_text(kind):
    model = MODELS[kind]()
    with closing(DECODERS[REFERENCE].prepare(model)) as decoder:
        found = text_of(decoder, EVEN)
        text = np.concatenate([EVEN, found.argmax(-1)], axis=1)[:, :-1]
        with torch.inference_mode():
            whole = model(torch.from_numpy(text), use_cache=False).logits[:, EVEN.shape[1] - 1 :].numpy()
        assert apart(found, whole) < 1e-4
        for row, prompt in enumerate(PROMPTS):
            alone = text_of(decoder, [prompt])
            assert apart(text_of(decoder, IDS, MASK)[row], alone[0]) < 1e-4


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_eager_says(name, kind):
    model = MODELS[kind]()
    DECODERS[name].reset()
    with closing(DECODERS[REFERENCE].prepare(model)) as eager:
        expected = {"padded": text_of(eager, IDS, MASK), "even": text_of(eager, EVEN)}
    with closing(prepared(name, model)) as decoder:
        found = {
            "padded": text_of(decoder, IDS, MASK, expected["padded"].argmax(-1)),
            "even": text_of(decoder, EVEN, None, expected["even"].argmax(-1)),
        }
        again = text_of(decoder, EVEN, None, expected["even"].argmax(-1))
    for key, logits in expected.items():
        assert apart(found[key], logits) < DECODERS[name].tolerance, key
        if DECODERS[name].precision == "fp32":
            assert np.array_equal(found[key].argmax(-1), logits.argmax(-1)), key
    assert np.array_equal(again, found["even"]), "a new text knows nothing of the last"


def test_texts_are_read_in_pieces_too():
    model = MODELS["uneven"]()
    ids = np.random.default_rng(0).integers(0, 61, (2, 21))
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    try:
        request = FP32.open(FP32.graph(model), 1, last=False).create_infer_request()
    except ResourceError as error:
        pytest.skip(error.args[0])
    from icd_lib.decoding.openvino import OpenVinoDecoder

    for pieces in (1, 2, 21):
        assert apart(OpenVinoDecoder(request).whole(ids, pieces), expected) < 1e-4


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_weights_in_groups_are_packed_and_multiplied_as_they_are(bits):
    dense = tiny_mamba(dtype=torch.float32, hidden_size=48)
    model = round_weights(dense, batches(), Recipe(spec_of=lambda name: Spec(bits, 16), order="stored")).model
    round_embeddings(model, Spec(8, 16, searched=False))
    use_fast_scan(model)
    assert exported_rows(model) == (INT8.name,)
    try:
        graph = INT8.graph(model)
    except ResourceError as error:
        pytest.skip(error.args[0])
    packed = sum(
        module.weight.numel() * (bits if name.count("mixer") else 8) // 8
        for name, module in grouped_modules(model).items()
    )
    saved = constant_bytes(stateful_graph(model)) - constant_bytes(graph)
    whole = sum(4 * module.weight.numel() for module in grouped_modules(model).values())
    assert 0.6 * (whole - packed) < saved < whole - packed, "scales and zeros lie beside the codes"
    with closing(DECODERS[REFERENCE].prepare(model)) as eager, closing(FP32.prepare(model, threads=1)) as decoder:
        expected = text_of(eager, EVEN)
        assert apart(text_of(decoder, EVEN, None, expected.argmax(-1)), expected) < 1e-4


def test_a_token_reads_the_weights_and_a_state_of_one_size():
    model = MODELS["uneven"]()
    mixers = [layer.mixer for layer in model.backbone.layers]
    states = sum(4 * mixer.A_log.numel() + 4 * 4 * mixer.conv1d.in_channels for mixer in mixers)
    assert len(mixers) == LAYERS and state_bytes_of(model, 4) == states
    assert weight_bytes_of(model) == sum(parameter.nbytes for parameter in model.parameters())
    with closing(DECODERS[REFERENCE].prepare(model)) as decoder:
        assert decoder.positions is None and decoder.cache_bytes == 0
        moved = [
            bytes_per_token(decoder.weight_bytes, decoder.cache_bytes, 8, length, decoder.state_bytes)
            for length in (256, 2048)
        ]
    assert moved[0].value == moved[1].value == decoder.weight_bytes / 8 + states
