"""docs/DECODER.md states its reference run's numbers and no others."""

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.metric import figure, not_measured
from icd_lib.paths import project_root
from icd_lib.records.generation import EXPORTED_ARM, DecodeArm, DecodeShape, DeployedPoint, Generation
from icd_lib.report import decoder_page
from icd_lib.report.table import Table


def test_the_page_holds_the_numbers_of_the_reference_run():
    text = (project_root() / decoder_page.PAGE).read_text(encoding="utf-8")
    assert decoder_page.with_numbers(text) == text


def test_without_its_run_there_are_none(tmp_path):
    assert decoder_page.numbers(tmp_path) == "Not run yet."
    (tmp_path / decoder_page.REFERENCE).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds no judged run"):
        decoder_page.numbers(tmp_path)


def test_what_is_exported_stands_against_every_runtime():
    def change(value):
        return figure(value, "fraction", "measured", n=9, method="ratio", ci95=(value - 0.01, value + 0.01))

    read = not_measured("bytes", "not asked")
    time = figure(9.0, "ms", "measured", n=9, method="median", ci95=(8.0, 10.0))
    arm = DecodeArm(
        label="x",
        first_ms=time,
        step_ms=time,
        first_vs_dense=change(-0.1),
        step_vs_dense=change(-0.7),
        bytes_per_token=read,
        step_vs={"other": change(-0.2)},
    )
    lost = figure(0.05, "pp", "measured", n=9, method="paired", ci95=(-0.05, 0.15))
    one = figure(1.001, "1", "measured", n=9, method="paired", ci95=(1.0, 1.002))
    told = {"label": "x", "split": "unseen", "n_tokens": 9, "drop_pp": lost, "perplexity_ratio": one, "kl": one}
    found = Generation(
        page=16,
        context=64,
        continued=8,
        store="float",
        keep=None,
        why="",
        points=[],
        lookups=[],
        clock=[DecodeShape(batch=1, context=128, arms={EXPORTED_ARM: arm})],
        deployed=[DeployedPoint(arm=EXPORTED_ARM, **told), DeployedPoint(arm="other", **told)],
    )
    assert decoder_page.exported_table(found).splitlines()[2:] == [
        "| dense in PyTorch, fp32 | -70.0 % (-71.0 … -69.0) |",
        "| dense, `other` | -20.0 % (-21.0 … -19.0) |",
    ]
    assert decoder_page.deployed_table(found).splitlines()[2:] == [
        "| **what is exported** | unseen | +0.050 pp (-0.050 … +0.150) | 1.0010 | 1.0010 |",
        "| dense, `other` | unseen | +0.050 pp (-0.050 … +0.150) | 1.0010 | 1.0010 |",
    ]


def test_a_table_in_markdown():
    table = Table("A title", ["one", "two"], [["a|b", 3]], "A note.")
    assert table.to_markdown() == "**A title**\n\n| one | two |\n|---|---|\n| a\\|b | 3 |\n\nA note."
