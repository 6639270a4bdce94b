import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.models.families import find_adapter
from icd_lib.transforms.distill import _Divergence, distill
from tests.tiny_mambas import tiny_mamba, tokens
from tests.tiny_problems import assert_same_state, encode, small_batches, small_model, state_of

RATE = 3e-3


@pytest.fixture(scope="module")
def pair():
    """A dense teacher and a student that lost half of its FFN neurons and a head."""
    teacher, student = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    for axis in find_adapter(student).axes():
        if axis.kind in ("ffn", "heads"):
            compact(student, axis, np.arange(axis.size) % 4 > 0)
    return teacher, student


def distilled(pair, steps=40, seed=0, **changes):
    teacher, student = pair
    return distill(student, teacher, small_batches(), steps=steps, learning_rate=RATE, seed=seed, **changes)


def error(model, teacher):
    return sum(float((encode(model, b) - encode(teacher, b)).square().sum()) for b in small_batches())


def test_the_student_comes_closer_to_the_teacher(pair):
    teacher, student = pair
    assert error(distilled(pair), teacher) < 0.7 * error(student, teacher)


def test_a_seed_gives_the_same_weights_bit_for_bit(pair):
    first = distilled(pair, steps=8)
    assert_same_state(first, state_of(distilled(pair, steps=8)))
    other = state_of(distilled(pair, steps=8, seed=1))
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def test_teacher_and_student_are_untouched(pair):
    before = [state_of(model) for model in pair]
    distilled(pair, steps=3)
    for model, state in zip(pair, before, strict=True):
        assert_same_state(model, state)
        assert not any(p.requires_grad for p in model.parameters())


def test_only_the_blocks_learn(pair):
    learner, start = distilled(pair, steps=5).state_dict(), state_of(pair[1])
    for name, tensor in start.items():
        assert torch.equal(learner[name], tensor) == (not name.startswith("encoder.")), name


def test_the_result_is_ready_to_use(pair):
    lines = []
    learner = distilled(pair, steps=3, progress=lines.append)
    assert not learner.training
    assert not any(p.requires_grad for p in learner.parameters())
    assert lines[0].startswith("· distil step 1/3")
    assert lines[-1].startswith("· distil step 3/3")


def test_a_perfect_student_has_nothing_to_learn():
    teacher, (inputs, *_) = small_model(), small_batches()
    learner = distill(teacher, teacher, [inputs], steps=3, learning_rate=1e-6, seed=0)
    assert torch.allclose(encode(learner, inputs), encode(teacher, inputs), atol=1e-4)


def test_the_divergence_and_its_gradient_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    ours, wanted = (3 * torch.randn(6, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    ours.requires_grad_()
    logs = (ours.log_softmax(-1), wanted.log_softmax(-1))
    reference = torch.nn.functional.kl_div(*logs, reduction="batchmean", log_target=True)
    found = _Divergence.apply(ours, wanted)
    assert torch.allclose(found, reference, rtol=1e-12)
    (gradient,), (right,) = torch.autograd.grad(found, ours), torch.autograd.grad(reference, ours)
    assert torch.allclose(gradient, right, rtol=1e-9, atol=1e-15)


@pytest.fixture(scope="module")
def mambas():
    """A dense Mamba, the same one with a third of its channels gone, and text."""
    dense, smaller = (tiny_mamba(dtype=torch.float32, hidden_size=24, spread=0.1) for _ in range(2))
    for axis in find_adapter(smaller).axes():
        if axis.kind == "inner":
            compact(smaller, axis, np.arange(axis.size) % 3 > 0)
    return dense, smaller, [{"input_ids": tokens(4, 16, seed)} for seed in range(2)]


def divergence(model, dense, text):
    with torch.no_grad():
        return sum(float(_Divergence.apply(*(m(**b).logits.flatten(0, 1) for m in (model, dense)))) for b in text)


def test_bf16_products_come_as_close_to_the_teacher_and_repeat_bit_for_bit(mambas):
    dense, smaller, text = mambas
    settings = {"steps": 60, "learning_rate": RATE, "seed": 0}
    single = distill(smaller, dense, text, **settings)
    half, again = (distill(smaller, dense, text, bf16=True, **settings) for _ in range(2))
    assert_same_state(half, state_of(again))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(half.parameters(), single.parameters(), strict=True))
    before, after = divergence(smaller, dense, text), divergence(half, dense, text)
    assert after < 0.5 * before and after < 1.2 * divergence(single, dense, text)


def test_text_without_a_mask_is_text_with_a_mask_of_ones(mambas):
    dense, smaller, text = mambas
    masked = [batch | {"attention_mask": torch.ones_like(batch["input_ids"])} for batch in text]
    learners = [distill(smaller, dense, given, steps=4, learning_rate=RATE, seed=0) for given in (text, masked)]
    for plain, other in zip(*(learner.parameters() for learner in learners), strict=True):
        assert torch.allclose(plain, other, rtol=1e-4, atol=1e-6)
