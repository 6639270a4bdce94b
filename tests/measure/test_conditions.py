"""Conditions: what is counted while timing, and which of it is worth a warning."""

import re
import subprocess
import sys

import pytest

from icd_lib.measure import conditions
from icd_lib.measure.conditions import clocks_locked, warnings_of, watched

QUIET = {"seconds": 1.0, "others_pct": 0.5, "stolen_pct": 0.0, "swapped_mb": 0.0, "throttled": None}


def counters(**changed):
    zero = dict.fromkeys(("time", "total", "busy", "stolen", "own", "swapped"), 0.0)
    return zero | {"throttled": 0} | changed


def test_only_what_others_took_counts_as_theirs(monkeypatch):
    end = counters(time=5.0, total=10.0, busy=7.0, own=4.0, stolen=0.5, swapped=3e6, throttled=2)
    readings = iter([counters(), end])
    monkeypatch.setattr(conditions, "_counters", lambda: next(readings))
    with conditions.watched() as found:
        assert found == {}
    expected = {"seconds": 5.0, "others_pct": 30.0, "stolen_pct": 5.0, "swapped_mb": 3.0, "throttled": 2}
    assert found == pytest.approx(expected)


def test_this_systems_counters_can_be_read():
    with watched() as found:
        sum(i * i for i in range(200_000))
    assert found.keys() == QUIET.keys() and found["seconds"] > 0


def test_what_a_process_of_our_own_takes_is_ours():
    before = conditions._counters()["own"]
    spin = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass"
    program = f"{spin}\nprint(1, flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        alive = conditions._counters()["own"]
        child.communicate(b"\n")
    assert alive - before >= 0.45
    assert conditions._counters()["own"] >= alive  # it has ended, and is counted all the same


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
    assert found.locked is locked and (word is None or word in found.reason)
    assert not clocks_locked(tmp_path, virtualised=True).locked
