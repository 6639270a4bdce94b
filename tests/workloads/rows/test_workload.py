"""The stages of a table: real accesses, layouts, checksums and clocks, small enough to run in seconds."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.sparse as sp
from table_factory import open_small, run_stages, without_veto

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.layouts import perm_record
from icd_lib.errors import ArtifactError, AxisError, ConfigError, MeasureError, ResourceError
from icd_lib.graph.events import Events
from icd_lib.metric import figure
from icd_lib.records.verdict import Determinism
from icd_lib.run.artifacts import open_run
from icd_lib.solver.cost import CostConfig, CostReport, evaluate_cost
from icd_lib.stages import report
from icd_lib.workloads.rows import address_stream, graph, measure, validate
from icd_lib.workloads.rows.arms import Arm, compared_arms, control_arms, load_layout
from icd_lib.workloads.rows.context import TableContext, reused_layout
from icd_lib.workloads.rows.events import cut_events, hash_events, join_events, load_events, split_events
from icd_lib.workloads.rows.frame import shrunk_cost, table_cost
from icd_lib.workloads.rows.solve import objections

pytestmark = pytest.mark.wide

SOLVED = ("setup", "graph", "solve[linear]", "solve[oneshot]", "solve[iterative]")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Kept figures of these tests only; whatever else runs beside them, the machine counts as quiet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(graph, "disturbances", lambda conditions: [])
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A solved run."""
    run = open_small(tmp_path_factory.mktemp("table"))
    with without_veto():
        run_stages(run, *SOLVED)
    return run


@pytest.fixture(scope="module")
def measured(run):
    return run_stages(run, "measure")


@pytest.fixture(scope="module")
def verdict(run, measured):
    return run_stages(run, "validate")


def few_events():
    ids = [0, 3, 3, 1, 2, 4, 0]
    return Events(np.array(ids), np.array([0, 2, 2, 5, 6, 7]), np.array([8.0, 8, 16, 8, 8]), 6)


def test_cut_and_join_are_inverse_and_the_split_keeps_order_and_every_access():
    events = few_events()
    again = join_events([cut_events(events, 0, 3), cut_events(events, 3, 5)])
    assert hash_events(again) == hash_events(events)
    seen, unseen = split_events(events, 0.4)
    assert (seen.count, unseen.count) == (3, 2)
    assert np.concatenate([seen.ids, unseen.ids]).tolist() == events.ids.tolist()
    assert split_events(events, 0.9)[0].count == 1  # never empty on either side


def test_the_hash_of_events_sees_ids_borders_bytes_and_size():
    events = few_events()
    others = [
        Events(events.ids[::-1], events.offsets, events.nbytes, 6),
        Events(events.ids, np.array([0, 1, 2, 5, 6, 7]), events.nbytes, 6),
        Events(events.ids, events.offsets, 2 * events.nbytes, 6),
        Events(events.ids, events.offsets, events.nbytes, 7),
    ]
    assert len({hash_events(item) for item in [events, *others]}) == 5


def recorded(**given):
    settings = {"workload.kind": "trace", "workload.max_accesses": 10**6, **given}
    return settings.get


def test_a_trace_is_read_up_to_the_limit_in_whole_events(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"ids": [i, i + 1, 9], "bytes": 8}) + "\n" for i in range(5)))
    events, origin = load_events(recorded(**{"graph.trace": str(path)}))
    assert (events.count, events.size, origin["cut_short"]) == (5, 10, False)
    events, origin = load_events(recorded(**{"graph.trace": str(path), "workload.max_accesses": 10}))
    assert (events.count, events.accesses, origin["cut_short"]) == (3, 9, True)
    with pytest.raises(ConfigError, match=r"max_accesses of 4 takes in 1 event"):
        load_events(recorded(**{"graph.trace": str(path), "workload.max_accesses": 4}))


def test_a_bad_trace_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"ids": [1, 2], "bytes": 8}\n{"ids": [1, -2], "bytes": 8}\n')
    with pytest.raises(ArtifactError, match="line 2"):
        load_events(recorded(**{"graph.trace": str(path)}))
    with pytest.raises(ArtifactError, match="cannot read"):
        load_events(recorded(**{"graph.trace": str(tmp_path / "none.jsonl")}))


def test_linear_keeps_every_tile_with_a_living_row_and_iterative_only_the_living(run):
    context = TableContext(run)
    alive = context.alive
    assert alive.sum() == context.size // 2
    first = load_layout(run, "linear")
    tiles = alive[first].reshape(-1, context.tile).any(axis=1).sum()
    places = {mode: run.read_json(f"{mode}/solve.json")["sizes"]["rows"] for mode in ("linear", "oneshot", "iterative")}
    assert places["linear"] == tiles * context.tile > places["iterative"]
    assert places["oneshot"] == places["iterative"] == alive.sum()  # both whole tiles: D / 2 is a multiple of g
    last = load_layout(run, "iterative")
    assert sorted(last.tolist()) == list(range(context.size))
    assert alive[last[: alive.sum()]].all()
    assert np.array_equal(load_layout(run, "oneshot")[: alive.sum()], np.flatnonzero(alive))


def test_the_recorded_objective_is_that_of_the_stored_layouts_on_w_after_the_transform(run):
    context = TableContext(run)
    masked, _ = context.build_graph(context.seen.keep(context.alive))
    before, after = (load_layout(run, "iterative", name) for name in ("perm_before", "perm_after"))
    stored = run.read_json("iterative/solve.json")["objective"]["mean"]
    for name, pi in (("before", before), ("after", after)):
        arm = Arm.of(pi, context.alive, context.tile)
        assert vars(table_cost(masked, arm, context.cost, before)) == pytest.approx(stored[name])
    assert stored["after"]["C"] < stored["before"]["C"]


def test_a_round_that_does_not_pay_is_rolled_back_and_its_reason_kept(run, tmp_path):
    stubborn = open_small(tmp_path, "codesign.epsilon_j=10")
    solve = run_stages(stubborn, "setup", "graph", "solve[iterative]")
    assert solve["accepted_strength"] == 0.0
    assert [entry["accepted"] for entry in solve["attempts"]] == [False]
    assert "it must fall by at least 10" in solve["attempts"][0]["reasons"][0]
    assert np.array_equal(*(load_layout(stubborn, "iterative", name) for name in ("perm_before", "perm_after")))
    logged = [json.loads(line) for line in (stubborn.dir / "run.log").read_text().splitlines()]
    assert logged[-1]["meta"]["accepted"] is False and "solver" not in logged[-1]["meta"]


@pytest.mark.parametrize(
    ("change_c", "change_j", "interval", "words"),
    [
        (-0.1, -0.1, (-0.2, 0.1), []),
        (-0.1, -0.0001, (-0.2, 0.1), ["J changed"]),
        (0.1, -0.1, (-0.2, 0.1), ["C rose"]),
        (-0.1, -0.1, (0.01, 0.1), ["latency rose by +5.0 %"]),
        (0.1, 0.1, (0.01, 0.1), ["J changed", "C rose", "latency rose"]),
    ],
)
def test_each_condition_of_acceptance_has_its_own_objection(change_c, change_j, interval, words):
    before, after = CostReport(0.5, 0.1, 0, 0, 0.4), CostReport(0.5 + change_c, 0.1, 0, 0, 0.4 + change_j)
    found = objections(before, after, figure(0.05, "fraction", "measured", ci95=interval), 1e-3)
    assert len(found) == len(words) and all(word in reason.text for word, reason in zip(words, found, strict=True))


def test_all_arms_with_one_mask_have_one_checksum_and_another_one_is_refused(measured):
    assert all(found.equal for found in measured.equality.values())
    sums = {label: dict(arms) for label, arms in measured.checksums.items()}
    assert sums["chained"]["dense"] != sums["chained"]["linear"]
    sums["overlapped"]["packed"] = "17"
    with pytest.raises(MeasureError, match=r"packed \(overlapped\) has checksum 17"):
        measure.equality(sums, {"dense", "dense_again", "permuted"})


def test_lines_per_event_agree_with_counting_them_one_by_one(run):
    context = TableContext(run)
    arm = control_arms(context)["packed"]
    left = context.workload(context.seen).keep(arm.alive)
    addresses, line = address_stream(left, arm.rows), context.levels[0].line_bytes
    counts = []
    for start, end in zip(left.events.offsets[:-1], left.events.offsets[1:], strict=True):
        lines = {int(address) // line for address in addresses[start:end]}
        counts += [len(lines)] if lines else []
    assert measure.lines_per_event(context, arm, context.seen).value == pytest.approx(np.mean(counts))


def test_figures_say_what_they_are_and_raw_samples_are_kept(run, measured):
    samples = run.read_json("measure/samples.json")["shapes"]
    for label, arms in measured.latency.shapes.items():
        for arm, entry in arms.items():
            assert entry.latency_ms.kind == "measured" and entry.latency_ms.n == 6
            assert np.median(samples[label][arm]) == entry.latency_ms.value
    figures = run.read_json("iterative/metrics.json")
    assert figures["l2_hit_pct"]["kind"] == "simulated" and figures["energy_j_per_token"]["kind"] == "modelled"
    assert figures["quality_pct"]["kind"] == "not_measured" and "by construction" in figures["quality_pct"]["reason"]
    assert run.read_json("dense/metrics.json")["objective"] is None


def test_the_verdict_repeats_the_solve_and_judges_the_cost(verdict):
    assert verdict.determinism == Determinism(pi_hash_equal=True, w_hash_equal=True, max_metric_drift_rel=0.0)
    assert verdict.judged["delta_c_rel"].value == verdict.cost.delta_c_rel < -0.1
    assert verdict.smoke.checks["delta_c_rel"] == "pass"
    assert set(verdict.smoke.checks) == {"delta_c_rel", "delta_q"}
    assert verdict.section("same_quality").l2_pp.kind == "simulated"


def test_determinism_notices_another_graph(run, verdict):
    context = TableContext(run)
    context.__dict__["graph"] = 2 * context.graph
    assert validate.determinism(context).w_hash_equal is False


def test_one_mode_alone_gets_its_pages_at_every_point_and_a_verdict(tmp_path):
    alone = open_small(tmp_path, "calibration.pilots=0")
    run_stages(alone, "setup")
    report.write_index(alone)
    run_stages(alone, "graph", "solve[linear]")
    report.write_index(alone)
    assert "This run has not been judged yet" in (alone.dir / "index.html").read_text()
    verdict = run_stages(alone, "measure", "validate")
    assert verdict.section("vs_dense").latency_rel.is_missing
    assert verdict.smoke.status == "partial" and alone.read_json("verdict.json")["calibration"] is None
    assert "packed" in alone.read_json("measure/measure.json")["sizes"]
    first, second, *_ = report.run_stage(alone, lambda line: None)["headline"]
    assert first.startswith("No result for iterative") and "the untouched table" in second
    assert "calibration.pilots: 0" in (alone.dir / "report.html").read_text()


def test_a_stream_without_pairs_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "single.jsonl"
    path.write_text("".join(json.dumps({"ids": [i % 50], "bytes": 8}) + "\n" for i in range(200)))
    settings = [f"graph.trace={path}", "calibration.pilots=0"]
    with pytest.raises(ConfigError, match="graph.window=8"):
        run_stages(open_run("trace", settings, out=tmp_path / "out"), "setup", "graph")
    windowed = open_run("trace", [*settings, "graph.window=3"], out=tmp_path / "out")
    run_stages(windowed, "setup", "graph")
    assert windowed.read_json("graph/w.meta.json")["rows"]["nnz"] > 0


def test_the_calibrated_weights_are_used_only_when_the_fit_is_good_and_wanted(run):
    found = run.read_json("graph/calibration.json")
    context = TableContext(run)
    other = found | {"kept_defaults": False, "weights": found["weights"] | {"alpha": 0.7, "mu": 0.8}}
    run.write_json("graph/calibration.json", other)
    try:
        assert (TableContext(run).cost.alpha, TableContext(run).cost.mu) == (0.7, 0.8)
        assert TableContext(run).cost.g == context.given_cost.g
        unwanted = open_small(run.dir.parent, "calibration.apply=false")
        assert TableContext(unwanted).cost == TableContext(unwanted).given_cost
        run.write_json("graph/calibration.json", other | {"kept_defaults": True})
        assert TableContext(run).cost == context.given_cost
    finally:
        run.write_json("graph/calibration.json", found)


def test_pilots_are_kept_per_machine(run, tmp_path, monkeypatch):
    again = open_small(tmp_path)
    monkeypatch.setattr(graph, "measure_pilots", lambda *_: pytest.fail("measured again"))
    run_stages(again, "setup", "graph")
    assert again.read_json("graph/calibration.json") == run.read_json("graph/calibration.json")
    with pytest.raises(pytest.fail.Exception):
        run_stages(open_small(tmp_path / "new", "graph.remeasure=true"), "setup", "graph")


def test_pilots_of_a_busy_machine_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(graph, "disturbances", lambda conditions: ["load: other programs took 60 %"])
    run_stages(open_small(tmp_path), "setup", "graph")
    assert not list(tmp_path.glob("cache/calibration-*"))


def test_the_cost_of_a_table_that_lost_nothing_is_the_plain_cost(run):
    context = TableContext(run)
    first, pi = (load_layout(run, "linear"), np.random.default_rng(1).permutation(context.size))
    whole = Arm.of(pi, np.ones(context.size, dtype=bool), context.tile)
    assert table_cost(context.graph, whole, context.cost, first) == evaluate_cost(
        context.graph, pi, context.cost, first
    )


def test_dropped_tiles_bring_what_lies_behind_them_nearer():
    alive = np.array([True, True, False, False, False, False, True, True])
    graph = sp.csr_array(([1.0, 1.0], ([0, 7], [7, 0])), shape=(8, 8))
    cost, identity = CostConfig(g=2, k=4, v=1, lam=9), np.arange(8)
    assert evaluate_cost(graph, identity, cost).C == 1.0  # three tiles apart, the longest distance there is
    assert table_cost(graph, Arm.of(identity, alive, 2), cost, identity).C == pytest.approx(1 / 3)


def test_a_plain_solve_of_the_shrunk_cost_minimises_the_tables_own(run):
    context = TableContext(run)
    masked, _ = context.build_graph(context.seen.keep(context.alive))
    living = np.flatnonzero(context.alive)
    cost = dataclasses.replace(context.cost, gamma_s=0.0)
    plain = shrunk_cost(cost, len(living), context.size)
    orders = [np.random.default_rng(seed).permutation(len(living)) for seed in range(3)]
    packed = [np.concatenate([living[order], np.flatnonzero(~context.alive)]) for order in orders]
    arms = [Arm.of(pi, context.alive, context.tile) for pi in packed]
    theirs = [table_cost(masked, arm, cost, packed[0]).J for arm in arms]
    ours = [evaluate_cost(masked[living][:, living], order, plain).J for order in orders]
    assert ours == pytest.approx(theirs)


def test_blocks_are_pages_where_the_scenario_leaves_them_open(run, tmp_path):
    assert TableContext(run).given_cost.k == 2048 * 16 // 4096
    other = open_small(tmp_path, "cost.k=5")
    run_stages(other, "setup")
    assert TableContext(other).given_cost.k == 5


class TestReusedLayouts:
    """`--reuse-perm`: taken when it fits exactly, refused otherwise."""

    def write(self, folder, pi, axis="rows", tag="perm_before"):
        record = perm_record({axis: np.asarray(pi)}, 0)
        path = folder / f"{tag}.json"
        path.write_text(json.dumps(record))
        return path

    def test_it_is_taken_from_a_file_or_a_run_folder(self, run, tmp_path):
        pi = load_layout(run, "linear", "perm_before")
        assert np.array_equal(reused_layout(str(run.dir), "linear", 2048), pi)
        assert np.array_equal(reused_layout(str(self.write(tmp_path, pi)), "linear", 2048), pi)

    def test_the_solve_stage_starts_from_it(self, tmp_path):
        path = self.write(tmp_path, np.arange(2048)[::-1])
        reusing = open_small(tmp_path / "out", f"solver.reuse_perm={path}", "calibration.pilots=0")
        solve = run_stages(reusing, "setup", "graph", "solve[linear]")
        assert solve["solver"] == {}
        assert load_layout(reusing, "linear").tolist() == list(range(2047, -1, -1))

    @pytest.mark.parametrize(
        ("pi", "words"),
        [
            ([0, 1, 1], "appears more than once"),
            ([0, 1], "has 3 elements but the permutation has 2"),
            ([0, 1, 3], "outside 0..2"),
        ],
    )
    def test_what_is_no_permutation_of_these_rows_is_refused(self, tmp_path, pi, words):
        with pytest.raises(AxisError, match=words):
            reused_layout(str(self.write(tmp_path, pi)), "linear", 3)

    def test_a_layout_that_does_not_match_its_hash_is_refused(self, tmp_path):
        path = self.write(tmp_path, [2, 0, 1])
        path.write_text(path.read_text().replace("[2, 0, 1]", "[1, 0, 2]"))
        with pytest.raises(ArtifactError, match="does not match its hash"):
            reused_layout(str(path), "linear", 3)

    def test_layouts_of_a_model_are_refused(self, tmp_path):
        with pytest.raises(AxisError, match="ffn.0"):
            reused_layout(str(self.write(tmp_path, [0, 1, 2], "ffn.0")), "linear", 3)


def test_a_layout_changed_on_disk_is_not_measured(run, tmp_path):
    rel = "linear/perm_after.json"
    kept = (run.dir / rel).read_text()
    record = json.loads(kept)
    pi = record["axes"]["rows"]["pi"]
    pi[0], pi[1] = pi[1], pi[0]
    try:
        run.write_json(rel, record)
        with pytest.raises(ArtifactError, match="does not match its hash"):
            compared_arms(TableContext(run))
    finally:
        (run.dir / rel).write_text(kept)


def test_damaged_events_are_refused(run):
    path = run.dir / "setup" / "events.npz"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(ArtifactError, match="damaged"):
            _ = TableContext(run).events
        path.unlink()
        with pytest.raises(ArtifactError, match="missing"):
            _ = TableContext(run).events
    finally:
        path.write_bytes(kept)


def test_hidden_caches_are_stood_in_for_and_said(run, monkeypatch):
    from icd_lib.workloads.rows import context

    def hidden():
        raise ResourceError("this machine hides its caches")

    monkeypatch.setattr(context, "machine_caches", hidden)
    made = TableContext(run)
    assert [level.name for level in made.levels] == ["L1d", "L2"] and "hides its caches" in made.levels_note


def test_arms_place_every_living_row_once(run):
    context = TableContext(run)
    for name, arm in (compared_arms(context) | control_arms(context)).items():
        placed = np.sort(arm.rows[arm.alive])
        assert placed[0] >= 0 and len(np.unique(placed)) == arm.alive.sum(), name
        assert arm.places == arm.rows.max() + 1
    again = control_arms(TableContext(run))["placebo"]
    assert hash_permutation(again.pi) == hash_permutation(control_arms(context)["placebo"].pi)
