"""Conditions: what is counted while timing, and which of it is worth a warning."""

import re
import subprocess
import sys

import pytest

from icd_lib.measure.conditions import clocks_locked, warnings_of, watched

QUIET = {"seconds": 1.0, "others_pct": 0.5, "stolen_pct": 0.0, "swapped_mb": 0.0, "throttled": None}


def test_another_program_is_counted_and_this_one_is_not():
    with watched() as own:
        sum(i * i for i in range(3_000_000))
    with watched() as theirs:
        subprocess.run([sys.executable, "-c", "sum(i*i for i in range(8_000_000))"], check=True)
    assert own["seconds"] > 0 and own["stolen_pct"] >= 0
    assert theirs["others_pct"] >= 0
    assert own.keys() == theirs.keys() == QUIET.keys()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"others_pct": 30.0}, "load: other programs took 30 %"),
        ({"stolen_pct": 10.0}, "load: the host took 10 %"),
        ({"swapped_mb": 12.0}, "swap: 12 MB"),
        ({"throttled": 3}, "throttling: .* 3 times"),
    ],
)
def test_what_disturbs_is_named(change, word):
    (warning,) = warnings_of(QUIET | change, 40)
    assert re.search(word, warning)


def test_a_quiet_machine_is_not_warned_about_and_few_rounds_are():
    assert warnings_of(QUIET, 40) == []
    assert warnings_of(QUIET, 8) == ["few samples: 8 rounds, fewer than 20"]


@pytest.mark.parametrize(
    ("files", "locked", "word"),
    [
        ({}, False, "no clock governor"),
        ({"cpu0/cpufreq/scaling_governor": "powersave"}, False, "'powersave'"),
        ({"cpu0/cpufreq/scaling_governor": "performance", "intel_pstate/no_turbo": "0"}, False, "turbo"),
        ({"cpu0/cpufreq/scaling_governor": "performance", "intel_pstate/no_turbo": "1"}, True, None),
        ({"cpu0/cpufreq/scaling_governor": "performance", "cpufreq/boost": "0"}, True, None),
    ],
)
def test_clocks_count_as_fixed_only_where_the_system_says_so(tmp_path, files, locked, word):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = clocks_locked(tmp_path)
    assert found["locked"] is locked and (word is None or word in found["reason"])
    assert not clocks_locked(tmp_path, virtualised=True)["locked"]
