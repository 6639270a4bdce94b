"""ncu's CSV: sums over kernels, not means of percentages; and the reason where there is nothing to read."""

import pytest

from icd_lib.errors import MeasureError
from icd_lib.measure.l2 import DRAM_BYTES, HIT, MISS, l2_hit_pct, ncu_command, ncu_reason, parse_ncu_csv

REPORT = f'''==PROF== Connected to process 7
"ID","Kernel Name","{HIT}","{MISS}","{DRAM_BYTES}"
"","","sector","sector","byte"
"0","gemm","9,000","1,000","1,500,000"
"1","tiny","0","10","500,000"
'''


def test_hit_rate_weighs_kernels_by_their_sectors():
    figures = parse_ncu_csv(REPORT)
    assert figures["l2_hit_pct"].value == pytest.approx(100 * 9000 / 10010)
    assert figures["l2_hit_pct"].n == 2 and figures["l2_hit_pct"].kind == "measured"
    assert figures["dram_read_mb"].value == 2.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks"),
        (REPORT.replace(MISS, "other"), MISS),
        ("\n".join(REPORT.splitlines()[:3]), "no kernel"),
        (REPORT.replace('"9,000"', '"n/a"'), "n/a"),
        (REPORT.replace("9,000", "0").replace("1,000", "0").replace('"10"', '"0"'), "no L2 read"),
    ],
)
def test_unusable_reports_are_refused(text, says):
    with pytest.raises(MeasureError, match=says):
        parse_ncu_csv(text)


def test_command_profiles_the_pushed_range_only_and_leaves_the_caches_alone():
    command = ncu_command(["python", "bench.py"], "out")
    assert command[command.index("--nvtx-include") + 1] == "icd_measure/"
    assert command[command.index("--cache-control") + 1] == "none" and command[-2:] == ["python", "bench.py"]


def test_without_a_driver_the_figure_says_so(tmp_path):
    assert "driver" in ncu_reason(tmp_path / "params")
    item = l2_hit_pct()
    assert item.is_missing and item.value is None and item.reason


def test_bytes_in_other_units_are_the_same_bytes_and_an_unknown_unit_is_refused():
    scaled = REPORT.replace('"sector","sector","byte"', '"sector","sector","Mbyte"')
    scaled = scaled.replace("1,500,000", "1.5").replace("500,000", "0.5")
    assert parse_ncu_csv(scaled)["dram_read_mb"].value == pytest.approx(2.0)
    with pytest.raises(MeasureError, match="in 'furlong', expected one of sector, byte"):
        parse_ncu_csv(REPORT.replace('"byte"', '"furlong"'))


def test_a_report_without_a_row_of_units_is_read_in_base_units():
    lines = REPORT.splitlines(keepends=True)
    assert parse_ncu_csv("".join(lines[:2] + lines[3:]))["dram_read_mb"].value == 2.0
