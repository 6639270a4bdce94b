"""A run's best export: the fastest runtime whose judged quality holds, with the run's own figures, or the reason."""

import json
from types import SimpleNamespace

import pytest

from icd_lib.deploy import best, verify
from icd_lib.deploy.record import check_export
from icd_lib.deploy.target import find_target
from icd_lib.errors import ResourceError
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.report.index import index_page
from icd_lib.report.results import Results
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from tests.report_factory import write_run
from tests.tiny_domains import toy_encoder, toy_tokenizer


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A made-up finished run whose model is a real one."""
    folder = write_run(tmp_path / "outputs" / "bert")
    change(folder, "config.lock.json", lambda lock: lock["config"].update(model={"family": "bert"}))
    tokenizer = toy_tokenizer(tmp_path)
    save_optimized(toy_encoder(), tokenizer, folder / "iterative" / "model")
    checkpoint = SimpleNamespace(path=None, name="org/toy", sha256="ab" * 32)
    context = SimpleNamespace(checkpoint=checkpoint, tokenizer=tokenizer)
    monkeypatch.setattr(best, "make_context", lambda run, progress: context)
    monkeypatch.setattr(verify, "python_with", lambda users: None)
    return Run(load_scenario("bert"), folder)


def change(folder, rel, how):
    path = folder / rel
    value = json.loads(path.read_text())
    how(value)
    path.write_text(json.dumps(value))


def lose(value):
    """Let the model lose so much of its own quality in the runtime that was judged."""

    def how(ladder):
        ladder["fastest"]["quality"]["iterative"]["own"]["drop_pp"] = value

    return how


def in_eager(value):
    def how(measured):
        measured["quality"]["iterative"]["unseen"]["own"]["drop_pp"] = value

    return how


def timed(ladder, runtime, shape, median_ms, vs_eager):
    """Let the result take so long in a runtime at a shape, and so much relative to what ran beside it."""
    shapes = ladder["runtimes"][runtime]["shapes"]
    entry = shapes.setdefault(shape, json.loads(json.dumps(shapes["8x128"])))["arms"]["iterative"]
    entry["latency_ms"] |= {"value": median_ms, "ci95": [median_ms - 0.1, median_ms + 0.1]}
    entry["vs_eager"] |= {"value": vs_eager, "ci95": [vs_eager - 0.01, vs_eager + 0.01]}


def other_at_1x32(ladder):
    """A second shape, at which another runtime is faster, judged on both splits."""
    ladder["runtimes"]["onnxruntime_int8"] = {**ladder["runtimes"]["eager"], "label": "ONNX Runtime int8"}
    ladder["runtimes"] = json.loads(json.dumps(ladder["runtimes"]))
    for runtime, first, second in (
        ("eager", -0.4, -0.2),
        ("openvino_bf16", -0.7, -0.5),
        ("onnxruntime_int8", -0.6, -0.8),
    ):
        timed(ladder, runtime, "8x128", 10 + 10 * first, first)
        timed(ladder, runtime, "1x32", 10 + 10 * second, second)
    lost = ladder["fastest"]["quality"]["iterative"]
    other = json.loads(json.dumps(lost))
    other["own"]["drop_pp"] = 0.03
    ladder["fastest_at"] = {"1x32": {"runtime": "onnxruntime_int8", "quality": {"iterative": other}}}
    ladder["fastest"]["more"] = {"seen": json.loads(json.dumps(other))}


def test_order_is_by_the_ratio_to_what_was_timed_beside_it_and_not_by_the_medians(run):
    change(run.dir, "measure/ladder.json", lambda ladder: timed(ladder, "eager", "8x128", 1.0, -0.4))
    assert best.choose_runtime(Results.load(run.dir)).name == "openvino_bf16"
    change(run.dir, "measure/ladder.json", lambda ladder: timed(ladder, "eager", "8x128", 6.0, -0.8))
    assert best.choose_runtime(Results.load(run.dir)).name == "eager"


def test_what_is_faster_at_another_shape_is_named_with_the_command_that_exports_it(run):
    change(run.dir, "measure/ladder.json", other_at_1x32)
    results = Results.load(run.dir)
    row = best.choose_runtime(results)
    found = best.other_shapes(run, results, row, needs_text=True)
    assert row.name == "openvino_bf16" and list(found) == ["1x32"]
    command = "icd export outputs/bert/iterative/model --runtime onnxruntime --precision int8 --calibrate TEXTS.txt"
    assert found["1x32"]["runtime"] == "onnxruntime_int8"
    assert found["1x32"]["command"] == f"{command} --out best_onnxruntime_int8"
    quantised = best.other_shapes(run, results, row, needs_text=False)["1x32"]["command"]
    assert "--calibrate" not in quantised and quantised.endswith("--out best_onnxruntime_int8")
    notes = best.card_of(run, results, row, found, "org/toy, sha256 ab").notes
    assert notes[-2].startswith(f"This export is for 8x128: {row.label} is the fastest there")
    assert "At 1x32 the same model is faster in ONNX Runtime, int8" in notes[-1] and "−80.0 %" in notes[-1]
    run.write_json(
        "best.json",
        {"status": "exported", "label": "a", "card": "best/README.md", "lines": [], "other_shapes": found},
    )
    assert found["1x32"]["command"] in index_page(results, {})

    def ruin(ladder):
        ladder["fastest_at"]["1x32"]["quality"]["iterative"]["own"]["drop_pp"] = 0.4

    change(run.dir, "measure/ladder.json", ruin)
    results = Results.load(run.dir)
    assert best.other_shapes(run, results, row, needs_text=True) == {"1x32": {"runtime": row.name, "label": row.label}}
    notes = best.card_of(run, results, row, best.other_shapes(run, results, row, needs_text=True), "org/toy").notes
    assert notes[-1] == "At 1x32: this one is the fastest there too."


def test_the_card_says_what_the_graph_takes_when_it_is_compiled_for_any_shape(run):
    change(run.dir, "measure/ladder.json", other_at_1x32)
    results = Results.load(run.dir)
    row = best.choose_runtime(results)
    (told,) = (note for note in best.card_of(run, results, row, {}, "org/toy").notes if "any shape" in note)
    assert row.fits_shapes and told.endswith("against the dense model in PyTorch, fp32: not measured.")

    def deployed(setup):
        setup["deploy"] = {"runtime": row.name, "label": row.label, "precision": "bf16", "asked": ["auto", "auto"]}
        setup["deploy"]["why"] = "the fastest"

    change(run.dir, "setup/setup.json", deployed)
    change(run.dir, "verdict.json", lambda verdict: verdict.update(any_shape_vs_eager=verdict["placebo"]))
    results = Results.load(run.dir)
    (told,) = (note for note in best.card_of(run, results, row, {}, "org/toy").notes if "any shape" in note)
    assert "PyTorch, fp32: 8x128: " in told and "not measured" not in told


def test_where_other_text_was_judged_in_the_runtime_the_card_has_it(run):
    change(run.dir, "measure/ladder.json", other_at_1x32)
    results = Results.load(run.dir)
    row = best.choose_runtime(results)
    lost = best.card_of(run, results, row, {}, "org/toy").losses
    found = {(one.split, one.reading): one.figure.value for one in lost if one.where == "this runtime"}
    assert found["seen", "own"] == 0.03 and found["unseen", "own"] == 0.06


@pytest.mark.wide
def test_the_fastest_runtime_that_was_judged_is_exported_with_the_runs_figures(run):
    try:
        find_target("openvino", "bf16")
    except ResourceError as error:
        pytest.skip(error.args[0])
    best.export_best(run, lambda line: None)
    told = run.read_json("best.json")
    assert told["status"] == "exported" and told["runtime"] == "openvino_bf16", told
    assert told["lines"][1] == 'model = SentenceTransformer("best", backend="openvino")'
    assert check_export(run.dir / "best")["precision"] == "bf16"
    card = (run.dir / "best" / "README.md").read_text()
    assert 'SentenceTransformer("outputs/bert/best", backend="openvino")' in card
    assert "- Made from: org/toy, sha256 abababababab" in card and "# toy, made smaller by ICD" in card
    assert "| 8x128 | the dense model in PyTorch, fp32 | −70.0 % (−72.0 to −68.0 %) |" in card
    assert "| unseen | own | this runtime | +0.060 pp" in card
    assert "| seen | own | this runtime | not measured: in this runtime it was judged on unseen text only |" in card
    assert "without AMX; 2 threads" in card
    assert "python run_all.py --scenario bert" in card and str(run.dir.parent) not in card
    page = index_page(Results.load(run.dir), {})
    assert "best/README.md is its model card" in page
    best.export_best(run, lambda line: None)  # the earlier one is replaced
    assert check_export(run.dir / "best")


def test_a_runtime_that_loses_more_than_the_budget_is_left_for_one_that_does_not(run):
    assert best.choose_runtime(Results.load(run.dir)).name == "openvino_bf16"
    change(run.dir, "measure/ladder.json", lose(0.11))
    assert best.choose_runtime(Results.load(run.dir)).name == "eager"
    change(run.dir, "measure/measure.json", in_eager(0.12))
    with pytest.raises(ResourceError, match=r"openvino_bf16 loses \+0.11 pp, more than the budget of 0.1; eager loses"):
        best.choose_runtime(Results.load(run.dir))


def test_one_that_rounds_is_not_exported_unjudged(run):
    change(run.dir, "measure/ladder.json", lambda ladder: ladder.update(fastest=None))
    assert best.choose_runtime(Results.load(run.dir)).name == "eager"


def test_a_model_that_was_rounded_and_not_pruned_is_exported_too(run):
    def unpruned(solve):
        solve["accepted_strength"] = 0.0
        next(entry for entry in solve["attempts"][1:] if entry["accepted"])["strength"] = 0.0

    change(run.dir, "iterative/solve.json", unpruned)
    assert best.choose_runtime(Results.load(run.dir)).name == "openvino_bf16"


@pytest.mark.parametrize(
    "prepare, reason",
    [
        (lambda folder: (folder / "iterative/model/icd.json").unlink(), "iterative left no model"),
        (lambda folder: (folder / "measure/ladder.json").unlink(), "no runtime was measured"),
        (
            lambda folder: change(folder, "iterative/solve.json", lambda solve: solve.update(accepted_strength=0.0)),
            "no smaller model was accepted",
        ),
        (
            lambda folder: change(
                folder, "config.lock.json", lambda lock: lock["config"]["model"].update(family="mamba")
            ),
            "a language model is not exported",
        ),
        (
            lambda folder: change(folder, "measure/measure.json", lambda m: m.update(quality={"reason": "no weights"})),
            "quality was not judged: no weights",
        ),
        (lambda folder: (folder / "best").write_text("mine"), "is a file or a link"),
    ],
)
def test_what_stands_against_it_is_told_and_does_not_fail_the_run(run, prepare, reason):
    prepare(run.dir)
    best.export_best(run, lambda line: None)
    told = run.read_json("best.json")
    assert told["status"] == "not_exported" and reason in told["reason"]
    assert not (run.dir / "best").is_dir()
    assert "Not exported for a runtime: " in index_page(Results.load(run.dir), {})
