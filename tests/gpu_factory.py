"""What the counters of a GPU leave in a run: made-up numbers, the figures of them as the stages make them."""

from icd_lib.experiment.counters import energy_by_windows, hit_change
from icd_lib.measure.board_energy import energy_figure
from icd_lib.measure.comparison import relative
from icd_lib.measure.profiled import eager_form, means
from icd_lib.measure.statistics import ratio_of_means
from icd_lib.metric import figure
from icd_lib.records.counted import (
    ENERGY,
    NCU,
    POWER,
    BoardEnergy,
    BoardState,
    Counted,
    CountedArm,
    NcuRecord,
    Reading,
    as_csv,
)
from icd_lib.records.measured import MEASURED, Measured
from icd_lib.runtimes.cuda import cuda_runtimes
from icd_lib.storage.record_json import as_json, from_json

RATES = {"dense": 66.0, "linear": 66.2, "oneshot": 70.0, "iterative": 78.0, "same_transform": 66.4}
WATTS = {"dense": 300.0, "linear": 295.0, "oneshot": 280.0, "iterative": 240.0, "same_transform": 290.0}
ROW = cuda_runtimes()["cuda_graph_bf16"]
FORM, NOTE = eager_form(ROW)


def counted() -> Counted:
    """Two profiles of each arm."""
    arms = {}
    for arm, rate in RATES.items():
        records = [
            NcuRecord(
                metrics={
                    "l2_hit_pct": figure(value, "%", "measured", n=152, method="ncu"),
                    "l2_read_mb": figure(4500.0, "MB", "measured", n=152, method="ncu"),
                    "dram_read_mb": figure(1800.0, "MB", "measured", n=152, method="ncu"),
                },
                kernels=152,
                passes=3,
                replay="kernel",
                cache_control="none",
                clock_control="none",
                version="2025.3.1.0",
                command=["ncu", "python3"],
            )
            for value in (rate, rate + 0.1)
        ]
        arms[arm] = CountedArm(figures=means(records, FORM, NOTE), rounds=records)
    return Counted(form=FORM.label, note=NOTE, narrow_pp=1.0, warm_calls=3, arms=arms)


def joules() -> dict[str, list[float]]:
    """J per token of three windows of every arm and of dense a second time."""
    windows = {arm: [watts * 1e-6 * (1 + step / 1000) for step in (0, 1, 3)] for arm, watts in WATTS.items()}
    return windows | {"dense_again": [value * 1.0005 for value in reversed(windows["dense"])]}


def readings() -> list[Reading]:
    """Four readings of every phase, one after the other."""
    phases = ["idle before", *WATTS, "dense_again", "idle after"]
    watts = WATTS | {"dense_again": WATTS["dense"]}
    return [
        Reading(
            0.1 * (4 * i + k), phase, watts.get(phase, 80.0), None, 1980, 3201, 40 + i, 0x4 if phase in watts else 0x1
        )
        for i, phase in enumerate(phases)
        for k in range(4)
    ]


def energy() -> BoardEnergy:
    idle = {when: figure(80.0, "W", "measured", n=1, method="NVML") for when in ("before", "after")}
    state = BoardState(
        readings=4,
        sm_mhz=(1755, 1980),
        power_w=(240.0, 300.0),
        temperature_c=(44, 44),
        event_reasons=["software power cap"],
    )
    windows = joules()
    return BoardEnergy(
        counter="NVML total energy consumption",
        windows=3,
        window_s=5.0,
        settle_s=1.0,
        idle_w=idle,
        integrated_rel=-0.012,
        board=dict.fromkeys(windows, state),
        aa_control=relative(ratio_of_means(windows["dense_again"], windows["dense"])),
    )


def counters() -> dict:
    """What measure.json holds of them."""
    found, how, windows = counted(), energy(), joules()
    return {
        "l2_hit_pct": {arm: entry.figures["l2_hit_pct"] for arm, entry in found.arms.items()},
        "energy": {arm: energy_figure(windows[arm], how) for arm in RATES},
        "rounds": {
            "l2_hit_pct": {arm: entry.hit_pct for arm, entry in found.arms.items()},
            "energy_j_per_token": windows,
        },
    }


def changes(measure: dict, other: str) -> dict:
    """What the verdict holds of iterative against another arm."""
    report = from_json(Measured, as_json(measure), MEASURED)
    return {"l2_pp": hit_change(report, other), "ept_rel": energy_by_windows(report, other)}


def files() -> dict:
    """Path → record or text of the files beside measure.json."""
    return {NCU: counted(), ENERGY: energy(), POWER: as_csv(readings())}
