"""The weights of J from measurement: a ridge regression of what pilot layouts cost on their C, Q and R_align.

Over the pilots, Δtarget = a ΔC + b ΔR_align - m ΔQ with a, b, m >= 0, where Δ is relative to the order as it is. The
signs are those of J, so the fit of the latency *is* a set of weights: (alpha, beta, mu) = (a, b, m), scaled to the sum
of the given ones, so that J keeps its scale and gamma_s its meaning. The ridge shrinks towards the proportions of the
given weights: where C and Q fall and rise together, so that the pilots cannot tell them apart, nothing changes. R_stab
counts moves away from an earlier layout, which no hardware can feel: its weight stays.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy.optimize import nnls

from icd_lib.codesign.pilots import pilot_layouts
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.graph.contract import check_w
from icd_lib.solver.cost import CostConfig, evaluate_cost
from icd_lib.storage.machine import cpu_model, keep, read_kept

LEAST_R2 = 0.6
LATENCY_PERCENTILE = 10
TARGETS = {"latency_ms": "relative", "l1_hit_pct": "pp", "l2_hit_pct": "pp", "energy_j": "relative"}
# What weighs on each term of J: C and R_align count as they are, Q with a minus.
TERMS = (("C", "alpha", 1), ("R_align", "beta", 1), ("Q", "mu", -1))
PENALTIES = tuple(10.0**power for power in range(-5, 2))
KIND = "calibration"


@dataclass(frozen=True)
class Pilot:
    """One layout: its name, its cost, per target what was measured (None: not measured), and the raw latencies.

    The latency among the targets is the 10th percentile of the samples: other processes can only add to a sample, so
    that a machine which is busy during most of them still gives the same figure.
    """

    name: str
    C: float
    Q: float
    R_align: float
    R_stab: float
    targets: dict[str, float | None]
    samples_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Calibration:
    """What the pilots say about J.

    pilots[0] is the order as it is, which every Δ is relative to. r2: cross-validated (leave-one-out) R² per target,
    None where the target was not measured or did not vary. slopes: Δtarget per Δ of C, R_align and Q. weights: the
    given cost with alpha, beta, mu of the latency fit, or unchanged if `kept_defaults`; `reason` says why.
    """

    pilots: list[Pilot]
    r2: dict[str, float | None]
    slopes: dict[str, dict[str, float]]
    weights: CostConfig
    kept_defaults: bool
    reason: str

    def changes(self, name: str) -> np.ndarray:
        """Δ of every pilot against the first, float64 (pilots,): of C, Q, R_align, R_stab, or of a target.

        Latency and energy as a fraction of the first pilot's, hits in percentage points.
        Raises `MeasureError` for a target that was not measured.
        """
        if name not in TARGETS:
            values = np.array([getattr(pilot, name) for pilot in self.pilots])
            return values - values[0]
        values = [pilot.targets.get(name) for pilot in self.pilots]
        if any(value is None for value in values):
            raise MeasureError(f"{name} was not measured of every pilot, so it has no changes")
        return _change(np.array(values, dtype=np.float64), name)

    def predicted(self, target: str) -> np.ndarray:
        """Δtarget of every pilot as the fit over all of them has it, float64 (pilots,), 0 for the first."""
        return sum(slope * self.changes(term) for term, slope in self.slopes[target].items())

    def to_json(self) -> dict:
        """Plain values for a JSON file; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: dict) -> "Calibration":
        """The calibration that `to_json` wrote; `ArtifactError` when something is missing."""
        try:
            fields = {field.name: entry[field.name] for field in dataclasses.fields(cls)}
            pilots = [Pilot(**pilot) for pilot in entry["pilots"]]
            return cls(**fields | {"pilots": pilots, "weights": CostConfig(**entry["weights"])})
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"this is not a calibration ({error!r}); calibrate again") from error

    def save(self, key: dict) -> bool:
        """Keep it for this machine under `key` (see `calibration_key`); False where the cache cannot be written."""
        return keep(KIND, key, self.to_json())

    @classmethod
    def load(cls, key: dict) -> "Calibration | None":
        """The calibration kept under exactly this key, or None; one that cannot be read counts as none."""
        entry = read_kept(KIND, key)
        try:
            return None if entry is None else cls.from_json(entry)
        except ArtifactError:
            return None


def calibrate(
    W,
    measure: Callable[[Sequence[np.ndarray]], list[dict]],
    *,
    cost: CostConfig = CostConfig(),  # noqa: B008 (frozen)
    pilots: int = 20,
    seed: int = 0,
    layouts: dict[str, np.ndarray] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Weights of J for the graph W (csr (D, D)) from `pilots` layouts that `measure` measures.

    measure   layouts -> for each {"latency_ms": samples} and, where known, "l1_hit_pct", "l2_hit_pct", "energy_j";
              timed interleaved (`icd_lib.workloads.rows.measure_layouts` makes one for a table)
    layouts   layouts that exist already, by name; they take the place of pilots (one called "search" saves the search)

    The penalty of a ridge is chosen by leave-one-out within the pilots it is fitted on, so R² judges that too. The
    given weights are kept, and `reason` says so, when R² of the latency is 0.6 or less.
    Raises `MeasureError` when the measurements do not fit the layouts, `ConfigError` with fewer than 8 pilots,
    `SolverNotConverged` on a bad W, `AxisError` on a bad layout.
    """
    graph = check_w(W)
    tried = pilot_layouts(graph, cost, pilots, seed, layouts, progress)
    if progress:
        progress(f"measuring {len(tried)} pilot layouts")
    measured = _check_measured(measure(list(tried.values())), list(tried))
    first = next(iter(tried.values()))
    reports = [evaluate_cost(graph, pi, cost, first) for pi in tried.values()]
    observed = [
        Pilot(name, report.C, report.Q, report.R_align, report.R_stab, targets, samples)
        for name, report, (targets, samples) in zip(tried, reports, measured, strict=True)
    ]
    return fit_weights(observed, cost)


def fit_weights(pilots: list[Pilot], cost: CostConfig) -> Calibration:
    """The regression of `calibrate` on pilots that have been measured; the first is the order as it is."""
    terms = np.array([[sign * getattr(pilot, term) for term, _, sign in TERMS] for pilot in pilots])
    terms -= terms[0]
    prior = np.array([getattr(cost, weight) for _, weight, _ in TERMS], dtype=np.float64)
    r2, slopes = {}, {}
    for target in TARGETS:
        values = [pilot.targets.get(target) for pilot in pilots]
        change = None if any(value is None for value in values) else _change(np.array(values), target)
        if change is None or np.ptp(change) == 0:
            r2[target] = None
            continue
        # More hits are better: like latency and energy, misses are what J should rise with.
        better = -1 if target.endswith("_hit_pct") else 1
        r2[target] = _validated_r2(terms, better * change, prior)
        fitted = better * _fit(terms, better * change, prior)[0]
        slopes[target] = {term: float(sign * a) for (term, _, sign), a in zip(TERMS, fitted, strict=True)}
    weights, reason = _weights(r2["latency_ms"], slopes.get("latency_ms"), cost)
    return Calibration(pilots, r2, slopes, weights or cost, weights is None, reason)


def calibration_key(W, cost: CostConfig, **settings) -> dict:
    """Key for `Calibration.save` and `load`: this machine's processor, W, the cost's geometry, and your settings."""
    graph = check_w(W)
    digest = hashlib.sha256(str(graph.shape).encode())
    for array, dtype in ((graph.indptr, "<i8"), (graph.indices, "<i8"), (graph.data, "<f8")):
        digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return {"cpu": cpu_model(), "w_sha256": digest.hexdigest(), "cost": asdict(cost), **settings}


def _weights(r2: float | None, slopes: dict | None, cost: CostConfig) -> tuple[CostConfig | None, str]:
    """The calibrated cost, or None where the given one is kept; and why."""
    if r2 is None:
        return None, "the latency did not vary over the pilots; the given weights are kept"
    if r2 <= LEAST_R2:
        return None, (
            f"poor fit: cross-validated R² of the latency is {r2:.2f}, not above {LEAST_R2}; the given weights are kept"
        )
    raw = {weight: abs(slopes[term]) for term, weight, _ in TERMS}
    if sum(raw.values()) == 0:
        return None, "no weights of the signs of J explain the latency; the given weights are kept"
    scale = sum(getattr(cost, weight) for weight in raw) / sum(raw.values())
    weights = {weight: value * scale for weight, value in raw.items()}
    words = ", ".join(f"{weight} {value:.3g}" for weight, value in weights.items())
    return dataclasses.replace(cost, **weights), f"cross-validated R² of the latency is {r2:.2f}: {words} from the fit"


def _change(values: np.ndarray, target: str) -> np.ndarray:
    """Change against the first: as a fraction of it, or in the target's own unit for percentages."""
    difference = values - values[0]
    return difference / values[0] if TARGETS[target] == "relative" else difference


def _fit(terms: np.ndarray, change: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes (3,) and intercept of the ridge with the largest penalty that is as good as the best.

    As good: the mean squared leave-one-out error is within one standard error of the least one (Breiman et al. 1984).
    """
    squares = np.array([_left_out_errors(terms, change, prior, penalty) ** 2 for penalty in PENALTIES])
    mean, best = squares.mean(axis=1), int(np.argmin(squares.mean(axis=1)))
    bound = mean[best] + squares[best].std(ddof=1) / math.sqrt(len(change))
    return _ridge(terms, change, prior, max(penalty for penalty, m in zip(PENALTIES, mean, strict=True) if m <= bound))


def _validated_r2(terms: np.ndarray, change: np.ndarray, prior: np.ndarray) -> float:
    """1 - sum of squared leave-one-out errors / total sum of squares, the penalty chosen anew without each pilot."""
    errors = []
    for i in range(len(change)):
        others = np.arange(len(change)) != i
        slopes, intercept = _fit(terms[others], change[others], prior)
        errors.append(change[i] - terms[i] @ slopes - intercept)
    return float(1 - np.sum(np.square(errors)) / np.sum((change - change.mean()) ** 2))


def _left_out_errors(terms: np.ndarray, change: np.ndarray, prior: np.ndarray, penalty: float) -> np.ndarray:
    """Error of the ridge over the other pilots on each pilot, (pilots,)."""
    errors = np.empty(len(change))
    for i in range(len(change)):
        others = np.arange(len(change)) != i
        slopes, intercept = _ridge(terms[others], change[others], prior, penalty)
        errors[i] = change[i] - terms[i] @ slopes - intercept
    return errors


def _ridge(terms: np.ndarray, change: np.ndarray, prior: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Slopes a (3,) and intercept c of the ridge towards a multiple s of the prior, by non-negative least squares.

    argmin over a >= 0, s >= 0 and c of |change - terms a - c|² / n + penalty |a - s prior|². The terms are not
    rescaled: one that the pilots hardly varied keeps the prior's proportion instead of a weight made of noise.
    """
    n, width = terms.shape
    middle, level = terms.mean(axis=0), change.mean()
    shrink = math.sqrt(penalty * n) * np.column_stack([np.eye(width), -prior])
    rows = np.vstack([np.column_stack([terms - middle, np.zeros(n)]), shrink])
    solution, _ = nnls(rows, np.concatenate([change - level, np.zeros(width)]))
    slopes = solution[:width]
    return slopes, float(level - middle @ slopes)


def _check_measured(measured, names: list[str]) -> list[tuple[dict[str, float | None], list[float]]]:
    """Per layout its targets and its samples; `MeasureError` names the first layout that is wrong."""
    if len(measured) != len(names):
        raise MeasureError(f"measure was given {len(names)} layouts and returned {len(measured)} results")
    return [_check_one(result, name) for result, name in zip(measured, names, strict=True)]


def _check_one(result: dict, name: str) -> tuple[dict[str, float | None], list[float]]:
    samples = np.asarray(result.get("latency_ms", ()), dtype=np.float64)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all() or (samples <= 0).any():
        raise MeasureError(f"pilot {name!r}: latency_ms is a list of positive samples in ms, got {samples.tolist()}")
    targets = {"latency_ms": float(np.percentile(samples, LATENCY_PERCENTILE))}
    for target in list(TARGETS)[1:]:
        value = result.get(target)
        if value is not None and not math.isfinite(value):
            raise MeasureError(f"pilot {name!r}: {target} is a finite number or None, got {value!r}")
        targets[target] = None if value is None else float(value)
    return targets, samples.tolist()
