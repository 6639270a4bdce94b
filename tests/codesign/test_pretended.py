"""The whole loop on a pretended GPU: nothing that it computes with is left on the CPU, and all comes back there."""

import pytest
import torch
from torch import nn

import icd_lib as icd
from tests.pretended import DEVICE, There, pretending
from tests.tiny_encoders import batch, tiny_bert
from tests.tiny_mambas import tiny_mamba, tokens

pytestmark = pytest.mark.slow

SETTINGS = {"tile": 8, "budget_pp": 5.0, "distill_steps": 2}


def bert():
    return tiny_bert(), [batch(4, 12, padded=True, seed=seed) for seed in range(2)], {}


def mamba():
    texts = [{"input_ids": tokens(4, 7, seed), "use_cache": False} for seed in range(2)]
    return tiny_mamba(dtype=torch.float32), texts, {"axes": ["inner", "state"], "tile": 5}


@pytest.mark.parametrize(
    ("make", "how"),
    [(bert, {"mode": "linear"}), (bert, {"mode": "oneshot"}), (bert, {}), (mamba, {})],
    ids=["bert-linear", "bert-oneshot", "bert", "mamba"],
)
def test_what_it_does_there_is_what_it_does_here(make, how):
    model, batches, settings = make()
    settings = SETTINGS | {"rate": 0.25} | settings | how
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = []

    def quality(candidate: nn.Module) -> float:
        seen.append({parameter.device.type for parameter in candidate.parameters()})
        with torch.no_grad():
            candidate(**batches[0])
        return 50.0

    with pretending():
        there = icd.optimize(model, batches, quality=quality, device="cuda", **settings)
    here = icd.optimize(model, batches, quality=quality, **settings)
    assert seen and all(devices == {"cpu"} for devices in seen), "a judge gets its models where the given one lies"
    assert not any(isinstance(tensor, There) for tensor in [*there.model.parameters(), *there.model.buffers()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert there.report["widths"] == here.report["widths"]
    assert all(entry["max_rel_error"] < 1e-12 for entry in there.report["certificates"])
    with torch.no_grad():
        outputs = [next(iter(one.model(**batches[0]).values())) for one in (there, here)]
    # Layouts are solved from sums in another order, so single weights lie elsewhere; the function hardly differs.
    assert float((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max()) < 0.02


def test_a_search_for_strength_runs_there_too():
    model, batches, _ = bert()
    lines = []
    with pretending():
        found = icd.optimize(
            model, batches, quality=lambda candidate: 50.0, device="cuda", progress=lines.append, **SETTINGS
        )
    assert lines[0] == f"device {DEVICE.name} ({DEVICE.label}): {DEVICE.why}"
    assert found.report["accepted_strength"] < 0
