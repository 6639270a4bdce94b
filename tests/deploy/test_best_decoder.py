"""What a decoder's run leaves: nothing that loses more than the budget, in PyTorch or as it would be exported."""

from types import SimpleNamespace

import pytest

from icd_lib.deploy import best_decoder
from icd_lib.errors import ResourceError
from icd_lib.metric import figure
from icd_lib.records.generation import EXPORTED_ARM, DeployedPoint


def lost_pp(value: float):
    return figure(value, "pp", "measured", n=9, method="paired", ci95=(value - 0.1, value + 0.1))


def point(arm: str, split: str, value: float) -> DeployedPoint:
    one = figure(1.0, "1", "measured", n=9, method="paired", ci95=(0.9, 1.1))
    return DeployedPoint(
        arm=arm, label="x", split=split, n_tokens=9, drop_pp=lost_pp(value), perplexity_ratio=one, kl=one
    )


@pytest.mark.parametrize(
    "plain, deployed, refused",
    [
        (0.3, [], "in PyTorch"),
        (0.05, [point(EXPORTED_ARM, "unseen", 0.3)], "as it would be exported"),
        (
            0.05,
            [point(EXPORTED_ARM, "unseen", 0.05), point(EXPORTED_ARM, "seen", 0.3), point("dense", "unseen", 0.3)],
            None,
        ),
    ],
)
def test_what_loses_too_much_is_not_left(plain, deployed, refused, monkeypatch):
    results = SimpleNamespace(
        solves={"iterative": None},
        is_changed=lambda mode: True,
        lost=lambda mode: {"unseen": SimpleNamespace(own=None, n_items=9)},
        judging="unseen",
        budget_pp=0.1,
    )
    monkeypatch.setattr(best_decoder, "lost", lambda own, count: lost_pp(plain))
    monkeypatch.setattr(best_decoder, "generation_of", lambda given: SimpleNamespace(deployed=deployed))
    reached = RuntimeError("the export begins")

    def begin(run, progress):
        raise reached

    monkeypatch.setattr(best_decoder, "make_context", begin)
    if refused is None:
        with pytest.raises(RuntimeError, match="the export begins"):
            best_decoder.export_best_decoder(None, results, "best", print)
        return
    with pytest.raises(
        ResourceError, match=rf"loses \+0\.30 pp on unseen text {refused}, more than the budget of 0\.1"
    ):
        best_decoder.export_best_decoder(None, results, "best", print)
