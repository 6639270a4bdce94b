"""Options of measuring."""

from typing import Annotated, Any, Literal

from icd_lib.options import OMITTED, OneOf, Section, Shape, option
from icd_lib.runtimes import OWN, RUNTIMES

# Options of a GPU alone, which a run on a CPU has no key for: what they are where a scenario does not say, and where a
# quick run does not.
ON_GPU: dict[str, tuple[Any, Any]] = {
    "ncu_rounds": (5, 2),
    "ncu_budget_s": (900.0, 120.0),
    "ncu_replay": ("kernel", "kernel"),
    "energy_windows": (5, 2),
    "energy_window_s": (5.0, 5.0),
}


def _on_gpu(name: str, doc: str, **limits):
    usual, quick = (f"{value:g}" if isinstance(value, int | float) else value for value in ON_GPU[name])
    in_quick = "" if quick == usual else f", {quick} in a quick run"
    return option(OMITTED, f"{doc}; {usual} where it does not say{in_quick}", **limits)


class MeasureOptions(Section):
    """How often and where models are measured, and what is measured beside latency."""

    shapes: tuple[Shape, ...] = option(((8, 128), (1, 32)), "batch and length of every latency measurement", least=1)
    repeats: int = option(40, "interleaved rounds", low=3)
    max_repeats: int = option(120, "rounds that may be taken where the noise asks for more", low=3)
    detect_rel: float = option(
        0.02, "change of latency that the rounds have to be able to detect", unit="fraction", above=0, high=1
    )
    warmup: int = option(8, "rounds that are thrown away first", low=0)
    bootstrap: int = option(2000, "bootstrap resamples", low=100)
    ladder: bool = option(True, "measure the other runtimes too")
    ncu: bool = option(
        True, "ask for L2 counters (NVIDIA Nsight Compute); false leaves L2 not measured", also="ncu_enable"
    )
    ncu_rounds: int = _on_gpu("ncu_rounds", "profiles of each arm on a GPU, at most", low=1, high=100)
    ncu_budget_s: float = _on_gpu("ncu_budget_s", "that profiles may take in all on a GPU", unit="s", above=0)
    ncu_replay: Literal["kernel", "application"] = _on_gpu(
        "ncu_replay", "what ncu runs again for each of a kernel's passes: that kernel, or the whole program"
    )
    energy: bool = option(
        True, "ask for energy counters (RAPL, NVML); false leaves energy not measured", also="power_enable"
    )
    energy_windows: int = _on_gpu("energy_windows", "energy windows of each arm on a GPU", low=1, high=1000)
    energy_window_s: float = _on_gpu(
        "energy_window_s", "length of one on a GPU; less than 5 is for trying things out", unit="s", above=0, high=600
    )
    clocks: Literal["auto", "unlocked", "fixed"] = option(
        "auto",
        "whether clocks count as fixed: as found, not at all, or a GPU's locked for the measurement",
        also="fixed_clock",
        also_means={True: "fixed", False: "unlocked"},
    )
    runtimes: tuple[Annotated[str, OneOf(RUNTIMES)], ...] = option(tuple(OWN), "runtimes of the ladder")


class DecodeOptions(Section):
    """How fast a model with a state generates, beside how fast it reads; the section asks for it."""

    clock: tuple[Shape, ...] = option(
        ((1, 256), (8, 256), (1, 2048), (2, 256), (4, 256), (16, 256)),
        "batch and prompt of every measurement of decoding; those of the first one's prompt are the throughput curve",
        least=1,
    )
    peers: tuple[Annotated[str, OneOf("icd_lib.decoding:IN_PROCESS")], ...] = option(
        (), "runtimes in which dense decodes beside the arms, and the result too (in OpenVINO as it is exported)"
    )
    rounds: int = option(3, "interleaved rounds of every prompt", low=1)
    steps: int = option(24, "decoded tokens of a round", unit="tokens", low=2)
    greedy: int = option(64, "tokens that two layouts of one model continue texts by, which have to be the same", low=1)
