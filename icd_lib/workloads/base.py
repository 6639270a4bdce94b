"""What the stages ask of a workload: its arms, how an arm is run, and what is known of them besides the clock."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from icd_lib.measure.latency import TimeRound
from icd_lib.metric import Figure
from icd_lib.records.measured import Measured
from icd_lib.run.artifacts import Run


@dataclass(frozen=True)
class Timed:
    """Arms to be timed against each other: `items` (tokens, events) are done by one call of a runner.

    time_round: the runners' clock, as in `measure_interleaved`
    """

    label: str
    words: str
    items: int
    runners: Mapping[str, Callable[[], object]]
    time_round: TimeRound | None = None


class Workload(ABC):
    """One run's workload. An arm is whatever the workload makes of it: a model, or a layout of a table.

    lays_out: whose rows of arms and comparisons it has; item: what throughput counts.
    """

    lays_out: ClassVar[str]
    item: ClassVar[str]

    def __init__(self, run: Run, progress: Callable[[str], None] = print):
        self.run, self.progress = run, progress

    def get(self, path: str):
        """A value of the scenario."""
        return self.run.scenario.get(path)

    @property
    @abstractmethod
    def threads(self) -> int:
        """Threads that an arm is run on."""

    @property
    def device(self) -> str:
        """Where arms are run, as torch names it."""
        return "cpu"

    @property
    def is_on_gpu(self) -> bool:
        """Whether arms are run on an NVIDIA GPU."""
        return self.device.startswith("cuda")

    # Stage 00
    @abstractmethod
    def describe(self) -> dict:
        """What setup.json holds besides the machine: {"model", "badges", …}; may write setup/*."""

    # Stage 01
    @abstractmethod
    def certify(self) -> list[dict]:
        """Prove every axis with a random layout: {"axis", "kind", "size", …} each; `AxisError` if one is refused."""

    @abstractmethod
    def write_graphs(self) -> dict:
        """Write W of every axis that is laid out to graph/W.<axis>.npz; axis → what w.meta.json says of it."""

    @abstractmethod
    def learn(self) -> dict:
        """Measure what the solve stages go by and write it to graph/*; returns it by name."""

    # Stage 02
    @abstractmethod
    def solve(self, mode: str) -> dict:
        """Solve a mode and write <mode>/*; returns what <mode>/solve.json holds."""

    # Stage 03
    @abstractmethod
    def compared(self) -> dict[str, object]:
        """Dense and every mode that was solved."""

    @abstractmethod
    def controls(self) -> dict[str, object]:
        """The controls that this run can have."""

    @abstractmethod
    def timed(self, arms: dict[str, object]) -> Iterator[Timed]:
        """What is timed, the first is judged; asked for the next when one has been timed."""

    @abstractmethod
    def measured(self, compared: dict[str, object], controls: dict[str, object], latency: dict) -> dict:
        """What measure.json holds besides latency: {"quality", "equality", "sizes", "energy", "controls", …}."""

    @abstractmethod
    def metrics(self, arm: str, report: Measured) -> dict:
        """What <arm>/metrics.json holds of this workload: hits, energy, quality, sizes, loss against dense."""

    def ladder(self, compared: dict[str, object]) -> dict | None:
        """The arms in other runtimes, None where there are none."""
        return None

    def generation(self, compared: dict[str, object]) -> dict | None:
        """What the arms' caches lose and how fast they generate, None where nothing generates."""
        return None

    def decoding(self, compared: dict[str, object], controls: dict[str, object]) -> dict | None:
        """How fast arms with a state generate, None where none does or none is asked for."""
        return None

    # Stage 04
    @abstractmethod
    def claim(self, sections: dict[str, dict], report: Measured) -> None:
        """Add to the comparisons' sections what belongs to a claim: hits, energy, what is lost against dense."""

    @abstractmethod
    def evidence(self, report: Measured) -> dict:
        """What verdict.json holds besides comparisons and gates: {"determinism", "prediction", …}."""

    @abstractmethod
    def closing(self, sections: dict[str, dict], judged: dict[str, Figure]) -> dict:
        """What is added to the verdict when the gates have judged the figures `judged`."""
