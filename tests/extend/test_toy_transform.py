"""A transform in one file of its own runs through the loop: its groups lie side by side, the function stays."""

import json
import os
import pkgutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.permutation import hash_permutation
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.loop import at_dense_shape, solve
from icd_lib.errors import ConfigError
from icd_lib.models.families import find_adapter
from icd_lib.paths import project_root
from icd_lib.report.full_report import draw_all
from icd_lib.report.results import Results
from icd_lib.run.scenario import load_scenario
from icd_lib.stages.report import further_panels
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.transforms import TRANSFORMS, further_transforms
from icd_lib.transforms.effects import Groups
from icd_lib.workloads.model.solve import transform_record
from tests.extend.toy_transform import Toy
from tests.report_factory import write_run
from tests.tiny_problems import assert_same_state, small_batches, small_problem, state_of

pytestmark = pytest.mark.wide

MODES = ("linear", "oneshot", "iterative")


def toy_problem(*names, bits=6, **changes):
    """Sparsity and the toy, or those named, on the tiny encoder."""
    rows = tuple(TRANSFORMS[name] for name in names or ("sparsity", "toy"))
    problem = small_problem(transforms=rows, **({"distill_steps": 0, "strengths": (-0.3,)} | changes))
    return replace(problem, inputs=replace(problem.inputs, sections={"toy": {"bits": bits, "group": 8}}))


@pytest.mark.parametrize("mode", MODES)
def test_two_transforms_run_one_after_the_other(mode):
    problem = toy_problem()
    dense = state_of(problem.inputs.dense)
    solution = solve(problem, mode)
    best = solution.best
    assert_same_state(problem.inputs.dense, dense)
    assert [entry["what"] for entry in solution.attempts] == ["draft", "attempt"] and best.strength == -0.3
    assert list(best.metas) == ["sparsity", "toy"] and best.plan.to_json()["bits"] == 6
    assert best.plan.predicted_latency_rel == solution.attempts[-1]["predicted_latency_rel"] <= -0.3
    for axis in ("ffn.0", "ffn.1"):
        assert best.widths[axis] < 48 and best.metas["toy"].axes[axis].size == best.widths[axis]
        assert sorted(solution.perms_after[axis]) == list(range(48))
    for number, layer in enumerate(best.model.encoder.layer):
        groups = best.effects[f"ffn.{number}"].permuted(best.origin[f"ffn.{number}"]).groups
        first = layer.output.dense.weight[:, torch.from_numpy(groups == 0)]
        assert first.shape[1] == 8 and len(torch.unique(first)) <= 2**6 + 1, "a group has one scale"
        assert is_contiguous(groups) or mode == "oneshot", "today's practice leaves them where they are"


def test_the_layout_is_solved_again_and_the_function_is_unchanged_by_it():
    problem = toy_problem("toy")
    solution = solve(problem, "iterative")
    best, first = solution.best, solution.perms_before
    rounded, meta = Toy().draft(evidence_of(problem), best.plan, problem.inputs.dense)
    for batch in small_batches():
        wanted, got = (model_outputs(model, batch) for model in (rounded, best.model))
        assert outputs_error(got, wanted) <= 1e-5, "only the layout differs"
    for axis in ("ffn.0", "ffn.1"):
        groups = meta.axes[axis].groups
        assert not is_contiguous(groups[first[axis]]) and is_contiguous(groups[best.origin[axis]])
        assert isinstance(best.effects[axis], Groups) and np.array_equal(best.effects[axis].groups, groups)
        assert hash_permutation(solution.perms_after[axis]) != hash_permutation(first[axis])
    assert set(best.changes) == {"ffn.0", "ffn.1"}, "heads were not touched"
    assert all(certificate["max_rel_error"] <= 1e-6 for certificate in solution.certificates)


def evidence_of(problem):
    return Toy().evidence(problem.given(Toy()))


def is_contiguous(groups):
    return np.count_nonzero(np.diff(groups)) == len(np.unique(groups)) - 1


def test_what_is_left_after_both_computes_the_same_at_dense_shape():
    problem = toy_problem()
    solution = solve(problem, "iterative")
    whole = at_dense_shape(solution.best.origin, solution.best.model, problem.inputs.dense, solution.perms_before)
    for batch in small_batches():
        wanted, got = (model_outputs(model, batch) for model in (solution.best.model, whole))
        assert outputs_error(got, wanted) <= 1e-5


def test_a_refused_candidate_is_rolled_back_with_both_transforms():
    problem = toy_problem()
    problem = replace(problem, inputs=replace(problem.inputs, judge=lambda model: Judgement(9.0, 0.0)))
    solution = solve(problem, "iterative")
    assert solution.best.metas == {} and not any(entry["accepted"] for entry in solution.attempts)
    sizes = {axis.name: axis.size for axis in find_adapter(solution.best.model).axes()}
    assert all(sizes[axis] == width for axis, width in solution.best.widths.items())


def test_the_file_holds_what_every_transform_did():
    problem = toy_problem()
    solution = solve(problem, "iterative")
    record = json.loads(json.dumps(transform_record(problem, solution)))
    assert [entry["name"] for entry in record["transforms"]] == ["sparsity", "toy"]
    back = Toy().load(record["transforms"][-1])
    assert np.array_equal(back.axes["ffn.1"].groups, solution.best.metas["toy"].axes["ffn.1"].groups)
    alone = transform_record(problem, solve(toy_problem("sparsity"), "linear"))["transforms"]
    assert [entry["name"] for entry in alone] == ["sparsity"]


def test_a_scenario_without_its_section_does_not_run_it():
    assert [row.name for row in further_transforms({"seed": 0, "toy": {"bits": 4}})] == ["toy"]
    assert further_transforms({"seed": 0, "transform": {}}) == []


def test_naming_the_module_is_enough():
    code = "from icd_lib.transforms import TRANSFORMS; print(*TRANSFORMS); print(TRANSFORMS['toy'].options)"
    environment = os.environ | {"ICD_EXTENSIONS": "tests.extend.toy_transform", "PYTHONPATH": str(project_root())}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["sparsity", "masked", "quantization", "toy", "toy"]


def test_its_section_is_an_option_of_a_scenario_that_gives_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("toy: {bits: 4}")
    assert load_scenario(path).config["toy"] == {"bits": 4, "group": 8}
    assert "toy" not in load_scenario("bert").config
    with pytest.raises(ConfigError, match="toy.bits is out of range: it takes an integer, at least 2, at most 8"):
        load_scenario(path, ["toy.bits=1"])


def test_its_figure_stands_in_the_report_of_a_run_that_has_its_section(tmp_path):
    problem = toy_problem("toy")
    folder = write_run(tmp_path / "run")
    record = transform_record(problem, solve(problem, "iterative"))
    atomic_write(folder / "iterative" / "transform_meta.json", to_json(record))
    assert further_panels(Results.load(folder)) == []
    results = replace(Results.load(folder), lock={"scenario": "run", "config": {"toy": {"bits": 6, "group": 8}}})
    drawn = draw_all(results, further_panels(results))
    assert drawn["panel_0"].name == "toy_groups"


@pytest.mark.parametrize("name", ["sparsity", "toy"])
def test_every_panel_can_be_called(name):
    assert all(callable(pkgutil.resolve_name(place)) for place in TRANSFORMS[name].panels)
