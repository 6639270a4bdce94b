"""One mode on a table: permute → transform → (iterative: re-permute → measure → accept or roll back)."""

import dataclasses

import numpy as np
import scipy.sparse as sp

from icd_lib.axes.permutation import hash_permutation, pack_alive
from icd_lib.codesign.layouts import layouts_folder, perm_record, solve_layout
from icd_lib.errors import AxisError
from icd_lib.measure.comparison import relative
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.metric import Figure
from icd_lib.records.attempts import Change, Pair, Round, Validation
from icd_lib.records.reasons import Reason
from icd_lib.solver.cost import CostReport
from icd_lib.storage.record_json import as_json
from icd_lib.workloads.rows.arms import Arm
from icd_lib.workloads.rows.context import AXIS, SAME_WORK, TableContext
from icd_lib.workloads.rows.frame import shrunk_cost, table_cost
from icd_lib.workloads.rows.graph import save_graph

NOT_JUDGED = Validation(reason=SAME_WORK)
TRIAL_ROUNDS = 15  # interleaved rounds in which a new layout is tried before it is accepted


@dataclasses.dataclass
class Solution:
    """Result of one mode: π₀, the layout that is kept, the solver's statistics, and every round with its fate."""

    before: np.ndarray
    after: np.ndarray
    stats: dict
    rounds: list[Round]


def solve_mode(context: TableContext, mode: str) -> dict:
    """Solve `mode`, write <mode>/*; returns what <mode>/solve.json holds."""
    masked, _ = context.build_graph(context.seen.keep(context.alive))
    solution = {"linear": solve_linear, "oneshot": solve_oneshot, "iterative": solve_iterative}[mode](context, masked)
    return write_solution(context, mode, masked, solution)


def solve_linear(context: TableContext, masked: sp.csr_array) -> Solution:
    """Permute by π₀, then transform; only tiles that are wholly dead can go."""
    first, stats = first_layout(context, "linear")
    return Solution(first, first, stats, [one_step(context, "transform in layout π₀, drop the wholly dead tiles")])


def solve_oneshot(context: TableContext, masked: sp.csr_array) -> Solution:
    """Transform and remove the dead rows, in the original order; no layout is solved."""
    identity = np.arange(context.size)
    told = one_step(context, "transform, remove the dead rows, keep the original order")
    return Solution(identity, pack_alive(identity, context.alive), {}, [told])


def solve_iterative(context: TableContext, masked: sp.csr_array) -> Solution:
    """Permute by π₀, transform; then solve W′ for π₁, measure, and accept or roll back, while it pays."""
    first, stats = first_layout(context, "iterative")
    best, rounds = first, []
    for number in range(1, context.get("codesign.max_rounds") + 1):
        context.progress(f"round {number}: solving W′ for a layout of the {int(context.alive.sum()):,} living rows")
        candidate, solver = relayout(context, masked, best, number)
        done = dataclasses.replace(judge(context, masked, first, best, candidate, number), solver=solver)
        rounds.append(done)
        report_round(context, done)
        if not done.accepted:
            break
        best = candidate
    return Solution(first, best, stats, rounds)


def first_layout(context: TableContext, mode: str) -> tuple[np.ndarray, dict]:
    """π₀: the layout the scenario reuses, or W of the seen events solved."""
    given = context.given_layout(mode)
    if given is not None:
        context.progress("π₀ is reused (solver.reuse_perm)")
        return given, {}
    kept = layouts_folder(context.run.dir, context.get("solver.cache"))
    first, stats = solve_layout(context.graph, context.solver_settings(context.cost), keep=kept)
    again = "kept from before, " if stats["cached"] else ""
    context.progress(f"π₀ {again}solved in {stats['elapsed_s']:.1f} s by {stats['winner']}")
    return first, {AXIS: stats}


def relayout(context: TableContext, masked: sp.csr_array, now: np.ndarray, number: int) -> tuple[np.ndarray, dict]:
    """π₁: W′ among the living rows, solved from their present order; the dead ones follow, in the present order."""
    living = np.flatnonzero(context.alive)
    rank = np.empty(context.size, dtype=np.int64)
    rank[living] = np.arange(len(living))
    start = rank[now[context.alive[now]]]
    settings = context.solver_settings(shrunk_cost(context.cost, len(living), context.size))
    settings = dataclasses.replace(settings, seed=settings.seed + number)
    solved, stats = solve_layout(masked[living][:, living], settings, start, start)
    return np.concatenate([living[solved], now[~context.alive[now]]]), stats


def judge(context: TableContext, masked, first, now, candidate, number: int) -> Round:
    """One round: J and C on W′ against the present layout, a trial of both on the clock, and what speaks against."""
    arms = [Arm.of(pi, context.alive, context.tile) for pi in (now, candidate)]
    before, after = (table_cost(masked, arm, context.cost, first) for arm in arms)
    trial = try_out(context, *arms)
    reasons = objections(before, after, trial, context.get("codesign.epsilon_j"))
    return Round(
        what=f"round {number}: solve W′ of the living rows, remove the dead ones",
        strength=context.get("transform.dead_share"),
        accepted=not reasons,
        reasons=tuple(reasons),
        change=Change(C=after.C - before.C, Q=after.Q - before.Q, J=after.J - before.J),
        objective={AXIS: Pair.of(before, after)},
        latency_rel=trial,
        validation=NOT_JUDGED,
    )


def objections(before: CostReport, after: CostReport, trial: Figure, epsilon_j: float) -> list[Reason]:
    """Why a layout is not accepted (empty: it is): J must fall, C must not rise, the clock must not show a rise."""
    reasons = []
    if after.J - before.J > -epsilon_j:
        change = after.J - before.J
        text = f"J changed by {change:+.4f}; it must fall by at least {epsilon_j}"
        reasons.append(Reason("layout", text, change, -epsilon_j))
    if after.C - before.C > 1e-9:
        text = f"J fell while C rose by {after.C - before.C:+.4f}; such a layout is never accepted on J alone"
        reasons.append(Reason("layout", text, after.C - before.C, 0.0))
    if trial.ci95[0] > 0:
        text = f"the measured latency rose by {100 * trial.value:+.1f} %"
        reasons.append(Reason("latency", text, trial.ci95[0], 0.0))
    return reasons


def try_out(context: TableContext, now: Arm, candidate: Arm) -> Figure:
    """Latency of the candidate relative to the present table on the seen events, interleaved."""
    arms = {"now": now.runner(context, context.seen), "candidate": candidate.runner(context, context.seen)}
    seed = context.get("seed")
    samples = measure_interleaved(arms, repeats=TRIAL_ROUNDS, warmup=3, seed=seed)
    resamples = context.get("measure.bootstrap")
    return relative(paired_ratio(samples["candidate"], samples["now"], seed=seed, resamples=resamples))


def one_step(context: TableContext, what: str) -> Round:
    """The only round of a mode that does not loop."""
    strength = context.get("transform.dead_share")
    return Round(what=what, strength=strength, accepted=True, reasons=(), validation=NOT_JUDGED)


def report_round(context: TableContext, done: Round) -> None:
    """Say and log what became of a round."""
    change = f"ΔC {done.change.C:+.4f}, ΔQ {done.change.Q:+.4f}, ΔJ {done.change.J:+.4f}"
    context.progress(f"{done.fate} ({change}, latency {100 * done.latency_rel.value:+.1f} % in the trial)")
    context.run.log("02_solve[iterative]", event="round", **as_json(dataclasses.replace(done, solver=None)))


def write_solution(context: TableContext, mode: str, masked: sp.csr_array, solution: Solution) -> dict:
    """Save permutations, W′, the mask and the story of the mode."""
    run, seed = context.run, context.get("seed")
    before, after = solution.before, solution.after
    run.write_json(f"{mode}/perm_before.json", perm_record({AXIS: before}, seed))
    run.write_json(f"{mode}/perm_after.json", perm_record({AXIS: after}, seed))
    save_graph(run, mode, masked)
    arm = Arm.of(after, context.alive, context.tile)
    kept_rows = {
        "D": context.size,
        "alive": np.flatnonzero(context.alive),
        "order": arm.order,
        "lost_accesses": context.pruned.loss,
    }
    run.write_json(f"{mode}/transform_meta.json", {"axes": {AXIS: kept_rows}, "delta_layout": True})
    first = Arm.of(before, context.alive, context.tile)
    pair = Pair.of(*(table_cost(masked, layout, context.cost, before) for layout in (first, arm)))
    kept = any(done.accepted for done in solution.rounds)
    report = {
        "mode": mode,
        "accepted_strength": context.get("transform.dead_share") if kept else 0.0,
        "widths": {AXIS: arm.places},
        "sizes": arm.sizes(context.tile, context.get("workload.row_bytes")),
        "plan": None,
        "validation": None,
        "attempts": solution.rounds,
        "objective": {"mean": pair, "axes": {AXIS: pair}},
        "cost": vars(context.cost),
        "solver": solution.stats,
        "certificates": certificates(context, before, after),
    }
    run.write_json(f"{mode}/solve.json", report)
    return as_json(report)


def certificates(context: TableContext, before: np.ndarray, after: np.ndarray) -> list[dict]:
    """The checksum of the surviving work in the original order, in π₀ and in the layout that is kept: all equal."""
    entries = []
    for name, pi in (("original order", np.arange(context.size)), ("π₀", before), ("kept layout", after)):
        checksum = Arm.of(pi, context.alive, context.tile).runner(context, context.seen)()
        entries.append(
            {
                "axis": AXIS,
                "layout": name,
                "size": context.size,
                "checksum": f"{checksum:.0f}",
                "perm_hash": hash_permutation(pi),
            }
        )
    if len({entry["checksum"] for entry in entries}) > 1:
        raise AxisError(f"a layout of the table changed its checksum: {[entry['checksum'] for entry in entries]}")
    return entries
