"""docs/MAMBA.md states what its reference run found of generating, and no other numbers of it."""

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.metric import figure, not_measured
from icd_lib.paths import project_root
from icd_lib.records.decoding import Decoding
from icd_lib.records.generation import DecodeArm, DecodeShape
from icd_lib.report import mamba_page


def test_the_page_holds_the_numbers_of_the_reference_run():
    text = (project_root() / mamba_page.PAGE).read_text(encoding="utf-8")
    assert mamba_page.with_numbers(text) == text


def test_without_its_run_there_are_none(tmp_path):
    assert set(mamba_page.tables(tmp_path).values()) == {"Not run yet."}
    (tmp_path / mamba_page.REFERENCE).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds no judged run"):
        mamba_page.tables(tmp_path)


def test_every_arm_stands_against_dense_at_every_shape_where_it_was_timed():
    def arm(step: float) -> DecodeArm:
        change = figure(step, "fraction", "measured", n=9, method="ratio", ci95=(step - 0.01, step + 0.01))
        time = figure(9.0, "ms", "measured", n=9, method="median", ci95=(8.0, 10.0))
        read = not_measured("bytes", "not asked")
        return DecodeArm(
            label="x", first_ms=time, step_ms=time, first_vs_dense=change, step_vs_dense=change, bytes_per_token=read
        )

    both, alone = {"dense": arm(0.0), "iterative": arm(-0.1)}, {"dense": arm(0.0), "compile": arm(0.2)}
    found = Decoding(
        clock=[DecodeShape(batch=1, context=256, arms=both), DecodeShape(batch=8, context=256, arms=alone)]
    )
    assert mamba_page.changes_table(found, "per token", lambda arm: arm.step_vs_dense).splitlines() == [
        "| per token, against dense in PyTorch | 1 × 256 | 8 × 256 |",
        "|---|---|---|",
        "| `iterative` | -10.0 % (-11.0 … -9.0) | – |",
        "| `compile` | – | +20.0 % (+19.0 … +21.0) |",
    ]
