"""What every row that generates keeps: eager's logits and tokens, batches of any lengths, texts one after another."""

from contextlib import closing

import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.decoding import DECODERS, REFERENCE
from icd_lib.decoding.prompt import pad_left
from icd_lib.deploy.gguf import ARCHITECTURES, write_gguf
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.models.families import find_adapter
from tests.tiny_decoders import VOCAB, tiny_decoder

pytestmark = pytest.mark.wide

STEPS = 32
PROMPTS = [[1, 7, 9, 30, 12], [1, 4], [1, 44, 45, 46, 47, 48, 49, 50, 51]]
IDS, MASK = pad_left(PROMPTS)
EVEN = np.array([[1, 7, 9, 30], [1, 4, 22, 60]])


def uneven():
    """A decoder whose layers have lost different FFN neurons and KV groups."""
    model = tiny_decoder(dtype=torch.float32)
    axes = {axis.name: axis for axis in find_adapter(model).axes()}
    for name, dead in (("ffn.0", [3, 4, 20]), ("ffn.1", list(range(9))), ("kv_groups.1", [1])):
        alive = np.ones(axes[name].size, dtype=bool)
        alive[dead] = False
        compact(model, axes[name], alive)
    return model


MODELS = {
    "llama": lambda: tiny_decoder(dtype=torch.float32),
    "qwen2": lambda: tiny_decoder("qwen2", dtype=torch.float32),
    "qwen3, untied": lambda: tiny_decoder("qwen3", dtype=torch.float32, tie_word_embeddings=False),
    "gemma": lambda: tiny_decoder("gemma", dtype=torch.float32),
    "uneven": uneven,
}


def text_of(decoder, ids, mask=None, given=None):
    """Logits (B, STEPS, V) after the prompts and after each token, its own or the given ones."""
    found = [decoder.prefill(ids, mask)]
    for step in range(STEPS - 1):
        found.append(decoder.step(found[-1].argmax(-1) if given is None else given[:, step]))
    return np.stack(found, axis=1)


def prepared(name, model, tmp_path):
    row = DECODERS[name]
    try:
        row.check()
        options = {"threads": 1}
        if row.engine == "llamacpp":
            if model.config.model_type not in ARCHITECTURES:
                pytest.skip(f"{model.config.model_type} has no GGUF file")
            options |= {
                "file": write_gguf(model, None, tmp_path / "model.gguf", kind="f32").path,
                "texts": 3,
                "context": 64,
            }
        return row.prepare(model, **options)
    except ResourceError as error:
        if name == REFERENCE:
            raise
        pytest.skip(f"{name} is not available here: {error.args[0]}")


# torch.compile builds C++ for every length that it meets.
@pytest.fixture(params=[pytest.param(row, marks=[pytest.mark.slow] * (row == "compile")) for row in DECODERS])
def name(request):
    DECODERS[request.param].reset()
    return request.param


def test_a_row_says_what_it_is(name):
    row = DECODERS[name]
    assert row.name == name and row.label and row.tolerance > 0 and name.startswith(row.engine)


ALIKE = ("qwen2", "qwen3, untied", "gemma")  # what they have of their own is in `eager` and in the tests of axes too


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ALIKE)) for kind in MODELS])
def test_it_says_what_eager_says(name, kind, tmp_path):
    model = MODELS[kind]()
    with closing(DECODERS[REFERENCE].prepare(model)) as eager:
        expected = {"padded": text_of(eager, IDS, MASK), "even": text_of(eager, EVEN)}
    with closing(prepared(name, model, tmp_path)) as decoder:
        found = {
            "padded": text_of(decoder, IDS, MASK, expected["padded"].argmax(-1)),
            "even": text_of(decoder, EVEN, None, expected["even"].argmax(-1)),
        }
    for key, logits in expected.items():
        assert found[key].shape == logits.shape and found[key].dtype == np.float32
        apart = np.abs(found[key] - logits).max() / np.abs(logits).max()
        assert apart < DECODERS[name].tolerance, f"{key}: {apart}"
        if DECODERS[name].precision == "fp32":
            assert np.array_equal(found[key].argmax(-1), logits.argmax(-1)), key


WINDOWED = {
    "mistral, sliding": lambda: tiny_decoder("mistral", dtype=torch.float32, sliding_window=6),
    "qwen2, some layers sliding": lambda: tiny_decoder(
        "qwen2", dtype=torch.float32, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
}


@pytest.mark.parametrize("kind", [*MODELS, *WINDOWED])
def test_eager_says_what_whole_passes_without_a_cache_say(kind):
    model = (MODELS | WINDOWED)[kind]()
    with closing(DECODERS[REFERENCE].prepare(model)) as eager:
        together = text_of(eager, IDS, MASK)
    tokens = together.argmax(-1)
    for row, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            whole = model(torch.tensor([prompt + tokens[row, :-1].tolist()]), use_cache=False).logits[0].numpy()
        apart = np.abs(whole[len(prompt) - 1 :] - together[row]).max()
        assert apart < 1e-4 * np.abs(whole).max(), f"prompt {row}: {apart}"


def test_a_padded_text_goes_on_as_it_does_alone(name, tmp_path):
    model = MODELS["llama"]()
    with closing(prepared(name, model, tmp_path)) as decoder:
        together = text_of(decoder, IDS, MASK)
        tokens = together.argmax(-1)
        for row, prompt in enumerate(PROMPTS):
            alone = text_of(decoder, [prompt], None, tokens[row : row + 1])
            assert np.abs(alone[0] - together[row]).max() < DECODERS[name].tolerance * np.abs(alone).max()


def test_a_new_text_knows_nothing_of_the_last(name, tmp_path):
    model = MODELS["llama"]()
    with closing(prepared(name, model, tmp_path)) as decoder:
        first = decoder.prefill(EVEN).copy()
        decoder.step([5, 6])
        decoder.prefill([[2, 3, 4]])
        assert np.array_equal(decoder.prefill(EVEN), first)
        decoder.reset()
        with pytest.raises(ConfigError, match="call prefill first"):
            decoder.step([5, 6])


def test_greedy_is_the_likeliest_token_after_the_likeliest(name, tmp_path):
    with closing(prepared(name, MODELS["llama"](), tmp_path)) as decoder:
        tokens = decoder.greedy(IDS, 8, MASK)
        assert np.array_equal(tokens, text_of(decoder, IDS, MASK)[:, :8].argmax(-1))
        stop = tuple(np.unique(tokens[:, 2]).tolist())
        assert 1 <= decoder.greedy(IDS, 8, MASK, stop).shape[1] <= 3


def test_a_text_ends_at_the_models_positions(name, tmp_path):
    with closing(prepared(name, MODELS["llama"](), tmp_path)) as decoder:
        positions = decoder.positions
        assert positions == 64
        decoder.prefill(np.full((1, positions - 1), 3))
        decoder.step([4])
        with pytest.raises(ConfigError, match="reached the model's 64 positions"):
            decoder.step([5])
        with pytest.raises(ConfigError, match="65 tokens and the model 64 positions"):
            decoder.prefill(np.full((1, positions + 1), 3))
        with pytest.raises(ConfigError, match="2 tokens were given for 1 texts"):
            decoder.prefill([[1, 2]])
            decoder.step([3, 4])


def test_it_says_how_many_bytes_a_token_moves(name, tmp_path):
    model = MODELS["uneven"]()
    with closing(prepared(name, model, tmp_path)) as decoder:
        whole = sum(parameter.nbytes for parameter in model.parameters())
        assert decoder.weight_bytes is None or 0 < decoder.weight_bytes <= 1.5 * whole
        if decoder.cache_bytes is not None:
            numbers = 2 * 6 * (3 + 2)  # keys and values, of six dims, in three and in two groups
            assert decoder.cache_bytes / numbers in (1, 2, 4)
    assert VOCAB == model.config.vocab_size
