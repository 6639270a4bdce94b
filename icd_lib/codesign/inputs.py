"""What is given to the loop: the dense model, its text, the judge of quality, and the scenario's numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from icd_lib.codesign.finite import find_not_finite
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.options import Settings
from icd_lib.errors import NotFinite
from icd_lib.records.attempts import Validation
from icd_lib.records.losses import Loss
from icd_lib.storage.record_json import as_json
from icd_lib.transforms.observed import Observed


@dataclass(frozen=True)
class Judgement:
    """Quality lost against dense where strengths are chosen, percentage points, with its paired standard error."""

    drop_pp: float
    se_pp: float
    detail: dict = field(default_factory=dict)

    def bound(self, z: float) -> float:
        return self.drop_pp + z * self.se_pp

    def record(self) -> Validation:
        """As it goes into files; `detail` names further fields of the record."""
        losses = {key: Loss(**self.detail[key]) for key in ("own_labelled", "dropin") if self.detail.get(key)}
        return Validation(drop_pp=self.drop_pp, se_pp=self.se_pp, **self.detail | losses)

    def to_json(self) -> dict:
        """The record as an object of JSON."""
        return as_json(self.record())


@dataclass(frozen=True, eq=False)
class Inputs:
    """A dense model that is never changed, and everything needed to judge changed copies of it.

    batches: the model's own inputs, unlabelled, for calibration; example: one of them for equality checks; sections:
    values of the scenario's sections that belong to transforms from outside; keep_moments, keep_layouts: where the
    moments and the solved layouts lie, or will.
    """

    dense: nn.Module
    batches: list[dict]
    distill_batches: list[dict]
    example: dict
    judge: Callable[[nn.Module], Judgement]
    settings: Settings
    solver: SolverSettings
    sections: Mapping[str, object] = field(default_factory=dict)
    log: Callable[..., None] = lambda event, **meta: None
    progress: Callable[[str], None] = lambda line: None
    keep_moments: Path | None = None
    keep_layouts: Path | None = None

    def options(self, section: str) -> object:
        """The values of a transform's section; those of the project's own are among the settings."""
        return self.sections.get(section, self.settings)

    def judged(self, model: nn.Module) -> Judgement:
        """What the judge says of a candidate; `NotFinite`, before it is asked, where that has numbers that are none.

        A judge whose figures are no numbers raises the same.
        """
        if broken := find_not_finite(model, [self.example, *self.batches]):
            raise NotFinite(f"the candidate is not finite: {broken} holds NaN or infinity")
        return self.judge(model)

    def observe(self) -> Observed:
        """The dense model on the batches; nothing is computed yet."""
        return Observed(self.dense, self.batches, self.distill_batches, self.settings.ridge, self.keep_moments)
