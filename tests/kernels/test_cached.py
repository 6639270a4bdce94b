"""The compiled int8 products equal those in torch, per dtype, for any shape and number of threads."""

import pytest
import torch

from icd_lib.kernels import cached
from icd_lib.kernels.cached import int8_mix, int8_mix_ref, int8_scores, int8_scores_ref
from icd_lib.runtimes.threads import torch_threads

SHAPES = [(1, 1, 1, 1, 1, 1), (2, 3, 2, 40, 4, 6), (1, 3, 3, 17, 16, 64), (2, 1, 1, 33, 32, 80)]  # B G r pages page d


def drawn(batch, groups, heads, pages, page, size, dtype, spare=3):
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator}
    codes = [
        torch.randint(-127, 128, (batch, groups, pages + spare, page, size), dtype=torch.int8, **draw) for _ in "kv"
    ]
    scales = [torch.rand(batch, groups, pages + spare, *last, **draw) for last in ((1, size), (page, 1))]
    scales = [(10 ** (6 * scale - 4)).clamp(2.0**-14).half() for scale in scales]  # 6e-5 to 100
    slots = pages * page + 2
    query = torch.randn(batch, groups, heads, size, dtype=torch.float64, **draw).to(dtype)
    weights = torch.rand(batch, groups, heads, slots, dtype=torch.float64, **draw).to(dtype)
    return query, weights, codes, scales, slots


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, least", [(torch.float32, 3e-6), (torch.float64, 1e-14), (torch.bfloat16, 2e-2)])
def test_equals_the_reference(shape, dtype, least):
    query, weights, codes, scales, slots = drawn(*shape, dtype)
    pages, coded = shape[3], shape[3] * shape[4]
    found = int8_scores(query, codes[0], scales[0], pages, slots)
    assert found.dtype == dtype and found.shape == (*shape[:3], slots)
    expected = int8_scores_ref(query.double(), codes[0], scales[0], pages, slots)[..., :coded]
    assert (found[..., :coded] - expected).abs().max() <= least * expected.abs().max()
    found, expected = (
        int8_mix(weights, codes[1], scales[1], pages),
        int8_mix_ref(weights.double(), codes[1], scales[1], pages),
    )
    assert found.dtype == dtype and (found - expected).abs().max() <= least * expected.abs().max()


def test_reference_is_the_plain_product():
    query, weights, codes, scales, slots = drawn(2, 3, 2, 40, 4, 6, torch.float64)
    keys, values = ((c * s.double())[:, :, :40].flatten(2, 3) for c, s in zip(codes, scales, strict=True))
    expected = torch.einsum("bgrd,bgnd->bgrn", query, keys)
    assert torch.allclose(int8_scores_ref(query, codes[0], scales[0], 40, slots)[..., :160], expected, rtol=1e-12)
    expected = torch.einsum("bgrn,bgnd->bgrd", weights[..., :160], values)
    assert torch.allclose(int8_mix_ref(weights, codes[1], scales[1], 40), expected, rtol=1e-12)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(cached, "_SINGLE_THREAD", 0)
    query, weights, codes, scales, slots = drawn(2, 3, 2, 40, 16, 64, torch.float32)
    results = []
    for threads in (1, 2, 2):
        with torch_threads(threads):
            mixed = int8_mix(weights, codes[1], scales[1], 40)
            results.append((int8_scores(query, codes[0], scales[0], 40, slots)[..., :640], mixed))
    for scores, mixed in results[1:]:
        assert torch.equal(scores, results[0][0]) and torch.equal(mixed, results[0][1])
