"""W and π₀ are computed again, and compared with a run's own files; points of a sweep share the second computation."""

import pytest

from icd_lib.codesign.evidence import build_graphs
from icd_lib.codesign.layouts import perm_record, solve_layouts
from icd_lib.records.verdict import Determinism
from icd_lib.storage.npz import load_graph, save_graph
from icd_lib.workloads.model import validate, workload
from icd_lib.workloads.model.solve import make_inputs
from icd_lib.workloads.model.workload import ModelWorkload
from tests.report_factory import solve

SAME = Determinism(pi_hash_equal=True, w_hash_equal=True, max_metric_drift_rel=0.0)


@pytest.fixture
def laid_out(make):
    """A context whose run has the files of its graphs and of linear's layout."""

    def context(*overrides, out="runs"):
        found = make("transform.axes=[ffn]", "transform.tile=4", "solver.refine_steps=20", *overrides, out=out)
        inputs = make_inputs(found)
        graphs = build_graphs(inputs.observe(), inputs.settings.nnz_cap)
        perms, stats = solve_layouts(graphs, inputs.solver)
        for axis, graph in graphs.items():
            save_graph(found.run.path("graph", f"W.{axis}.npz"), graph)
        found.run.write_json("linear/perm_before.json", perm_record(perms, 0))
        found.run.write_json("linear/solve.json", solve("linear", True) | {"solver": stats})
        return found

    return context


@pytest.fixture
def solved(monkeypatch):
    """Counts how often W and π₀ were computed again."""
    real, count = validate.solve_again, []
    monkeypatch.setattr(validate, "solve_again", lambda context: count.append(1) or real(context))
    return count


def verdict(context):
    return validate.determinism(context, context.progress)


def test_a_run_of_its_own_solves_again_and_points_of_a_sweep_do_so_once(laid_out, solved, in_sweep):
    assert verdict(laid_out()) == verdict(laid_out()) == SAME and len(solved) == 2
    with in_sweep():
        assert verdict(laid_out()) == SAME
        other = laid_out("transform.rate=0.3", "quantization.precision=fp8_storage")
        assert verdict(other) == SAME and len(solved) == 3
        assert other.lines[-1] == "solved again by another point of this sweep: π hashes equal, W equal"
        for changed in ("seed=1", "data.calibration_texts=30", "solver.refine_steps=30", "cost.alpha=2.0"):
            assert verdict(laid_out(changed)) == SAME
        assert len(solved) == 7


def test_what_differs_from_the_sweeps_second_solve_is_noticed(laid_out, solved, in_sweep):
    with in_sweep():
        verdict(laid_out())
        changed = laid_out()
        axis, path = next((p.name[2:-4], p) for p in (changed.run.dir / "graph").glob("W.*.npz"))
        graph = load_graph(path)
        graph.data = graph.data * (1 + 1e-15)
        save_graph(path, graph)
        record = changed.run.read_json("linear/perm_before.json")
        record["axes"][axis]["hash"] = "0" * 64
        changed.run.write_json("linear/perm_before.json", record)
        solves = changed.run.read_json("linear/solve.json")
        solves["solver"][axis]["after"]["J"] *= 1.5
        changed.run.write_json("linear/solve.json", solves)
        found = verdict(changed)
    assert (found.pi_hash_equal, found.w_hash_equal) == (False, False) and len(solved) == 1
    assert found.max_metric_drift_rel == pytest.approx(1 / 3)


def test_axes_are_verified_once_in_a_sweep(make, monkeypatch, in_sweep):
    calls, entry = [], {"axis": "ffn.0", "max_rel_error": 0.1 + 0.2}
    monkeypatch.setattr(workload, "verify_axes", lambda *given: calls.append(1) or [entry])

    def certified(*overrides):
        context = make(*overrides)
        mine = ModelWorkload(context.run, context.progress)
        mine.context = context
        return mine.certify(), context.lines[-1]

    alone, said = certified()
    assert said == "1 axes verified in float64" and alone == [entry]
    with in_sweep():
        assert certified()[0] == alone and len(calls) == 2
        again, said = certified("transform.rate=0.7")
        assert again == alone and said.endswith("in float64 by another point of this sweep") and len(calls) == 2
        certified("seed=1")
    assert len(calls) == 3
