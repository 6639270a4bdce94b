"""Arguments, calibration and `quality` as users give them to `icd.optimize` and the other functions of `icd_lib`."""

import math
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader
from transformers import BatchEncoding

import icd_lib as icd
from icd_lib.errors import ConfigError, MeasureError, SolverNotConverged, TransformError
from icd_lib.models.families import find_adapter
from tests.inputs.case import Case, Ground

SHORT = {"tile": 4, "distill_steps": 1, "strengths": (-0.05,), "max_rounds": 1, "mode": "oneshot"}

JUDGED = {"strengths": (0.0,)}  # an attempt that keeps everything: judged whatever this machine's clock says


def ask(ground: Ground, calibration=None, quality=lambda model: 50.0, **arguments):
    """What `icd.optimize` gives, and the words of its warnings."""
    given = [ground.inputs] if calibration is None else calibration
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = icd.optimize(ground.model, given, quality=quality, **SHORT | arguments)
    return found, [str(warning.message) for warning in told if warning.category is UserWarning]


def argument(what: str, *message: str, door: str = "argument", error=ConfigError, **arguments) -> Case:
    """A row for arguments that are refused, with the error's words."""
    says = f"refused: {message[0]}" if len(message) == 1 else f"refused, with {message[0]}"
    patterns = message if len(message) == 1 else message[1:]
    return Case(door, what, says.replace("\\", ""), lambda ground: ask(ground, **arguments), error, patterns)


def inputs_case(what: str, says: str, make: Callable[[dict], object], *message: str, error=ConfigError) -> Case:
    """A row for calibration that is refused."""
    return Case("calibration", what, says, lambda ground: ask(ground, make(ground.inputs)), error, message)


def accepted(what: str, says: str, make: Callable[[dict], object]) -> Case:
    """A row for calibration that works as a list of dicts does."""

    def holds(found) -> None:
        result, _ = found
        sizes = {item.axis: item.elements for item in find_adapter(result.model).prunable()}
        assert result.report["attempts"] and result.report["widths"] == sizes

    return Case("calibration", what, says, lambda ground: ask(ground, make(ground.inputs)), holds=holds)


def loader(inputs: dict) -> DataLoader:
    """Each text by itself, joined by the loader's own rule."""
    texts = [{name: value[row] for name, value in inputs.items()} for row in range(3)]
    return DataLoader(texts, batch_size=2, shuffle=True)


def with_key(inputs: dict, name: str, value) -> list[dict]:
    return [{**inputs, name: value}]


def state_after(ground: Ground, quality) -> dict:
    """What is left of the caller's things after `icd.optimize` with this quality."""
    ground.model.train()
    next(iter(ground.model.parameters())).requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in ground.model.state_dict().items()}
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    draws = [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]  # noqa: NPY002
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    threads = torch.get_num_threads()
    result, raised = None, None
    try:
        result, _ = ask(ground, quality=quality, **JUDGED)
    except KeyboardInterrupt as error:
        raised = error
    return {
        "draws": (draws, [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]),  # noqa: NPY002
        "switches": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads() == threads),
        "same": all(torch.equal(before[name], tensor) for name, tensor in ground.model.state_dict().items()),
        "training": all(module.training for module in ground.model.modules()),
        "trains": next(iter(ground.model.parameters())).requires_grad,
        "result": result,
        "raised": raised,
    }


def nothing_changed(found: dict) -> None:
    first, then = found["draws"]
    assert first == then, "random generators are as before"
    assert found["switches"] == (True, torch.float32, True)
    assert found["same"] and found["training"] and found["trains"]
    if found["raised"] is None:
        assert not any(module.training for module in found["result"].model.modules())
        assert next(iter(found["result"].model.parameters())).requires_grad


def was_interrupted(found: dict) -> None:
    assert isinstance(found["raised"], KeyboardInterrupt)
    nothing_changed(found)


def careless(model) -> float:
    """Leaves behind whatever a quality of one's own may leave behind, and spoils the model it got."""
    model.train()
    model.requires_grad_(True)
    model.half()
    for parameter in model.parameters():
        parameter.data.zero_()
    torch.rand(7), np.random.rand(7), random.random()  # noqa: NPY002
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    return 50.0


def interrupted() -> Callable:
    """A quality that is interrupted when it judges its first candidate."""
    calls = []

    def quality(model) -> float:
        calls.append(model.train())
        torch.manual_seed(1)
        torch.set_grad_enabled(False)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return 50.0

    return quality


def in_turn(*values: float) -> Callable:
    """A quality that returns one value after the other."""
    left = iter(values)
    return lambda model: next(left)


def drawn(ground: Ground) -> list[float]:
    """What a quality that draws at random drew, call after call."""
    values = []

    def quality(model) -> float:
        values.append(float(torch.rand(())) + float(np.random.rand()) + random.random())  # noqa: NPY002
        return 50 + values[-1]

    ask(ground, quality=quality, **JUDGED)
    return values


def same_draws(values: list[float]) -> None:
    assert len(values) > 1 and len(set(values)) == 1, values


def told(*patterns: str) -> Callable:
    """That a warning holds all of these words."""

    def holds(found) -> None:
        _, warned = found
        assert any(all(word in line for word in patterns) for line in warned), warned

    return holds


def silent(found) -> None:
    assert not found[1], found[1]


def under(context: Callable, ground: Ground):
    """`icd.optimize` called where the caller has set something."""
    with context():
        return ask(ground)


def unchanged_widths(found) -> None:
    result, _ = found
    assert result.report["attempts"] and result.report["widths"]


def whole_loop_in_double(ground: Ground):
    torch.set_default_dtype(torch.float64)
    try:
        return ask(ground)
    finally:
        torch.set_default_dtype(torch.float32)


def saved_at_home(ground: Ground) -> tuple[Path, bool, bool]:
    """Saved below `~`: where it lies, whether it is read back, and whether the working folder has something new."""
    before = os.environ.get("HOME"), os.getcwd()
    os.environ["HOME"] = str(ground.folder / "home")
    work = ground.folder / "work"
    work.mkdir()
    os.chdir(work)
    try:
        folder = icd.save_optimized(ground.model, None, "~/models/m")
        read = icd.load_optimized("~/models/m")
        same = all(torch.equal(a, b) for a, b in zip(read.parameters(), ground.model.parameters(), strict=True))
        return folder, same, any(work.iterdir())
    finally:
        os.chdir(before[1])
        if before[0] is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before[0]


def at_home(found) -> None:
    folder, same, stray = found
    assert folder.parts[-3:] == ("home", "models", "m") and folder.is_dir() and same and not stray


ARGUMENTS = [
    argument("an argument that there is not", "the nearest name", r"unknown key 'tyle'; did you mean 'tile'\?", tyle=4),
    argument("`budget=`", "the right name", r"unknown key 'budget'; did you mean 'budget_pp'\?", budget=0.1),
    argument("`quality_budget_pp=`", "the name it has here", "is called budget_pp here", quality_budget_pp=0.3),
    argument("a mode with a typo", "the nearest", "one of linear, oneshot, iterative", "'iterative'", mode="iterativ"),
    argument(
        "`latency_target_rel=0.3` (a rise)", "the bounds", "at least -1, at most 0.*got 0.3", latency_target_rel=0.3
    ),
    argument("`latency_target_rel=-30` (percent)", "the bounds", "at least -1.*got -30", latency_target_rel=-30),
    argument("`latency_target_rel=nan`", "the number", "finite number; got nan", latency_target_rel=math.nan),
    argument("`strengths=(0.3,)`", "the bounds", r"strengths\[0\].*at most 0; got 0.3", strengths=(0.3,)),
    argument("`strengths` not finite", "which", r"strengths\[1\].*finite.*nan", strengths=(-0.1, math.nan)),
    argument("`axes=('nope',)`", "the kinds there are", r"axes\[0\] takes one of ffn.*got 'nope'", axes=("nope",)),
    argument("`axes='ffn'`, a text for a list", "what it takes", "axes takes a list.*got 'ffn'", axes="ffn"),
    argument(
        "`budget_pp=nan` or infinite", "the number", "budget_pp takes a finite number; got nan", budget_pp=math.nan
    ),
    argument("`budget_pp=-1`", "the bounds", "budget_pp is out of range.*at least 0", budget_pp=-1),
    argument("`seed=-1`", "the bounds", "seed is out of range.*at least 0.*got -1", seed=-1),
    argument("`tile=0`", "the bounds", "tile is out of range: it takes an integer, at least 1; got 0", tile=0),
    argument("`distill_lr=inf`", "the number", "distill_lr takes a finite number; got inf", distill_lr=math.inf),
    argument("`progress` that is no function", "what it takes", "progress takes a function.*got 3", progress=3),
    argument(
        "`min_cosine`, `dropin_budget_pp`, `max_perplexity_ratio`, `selection_z`",
        "why they would have no effect",
        "min_cosine has no effect here",
        min_cosine=0.9,
    ),
    Case(
        "argument",
        "kinds of axes that the model does not have",
        "refused, with the kinds it has",
        lambda ground: ask(ground, axes=("inner",)),
        ConfigError,
        ("takes kinds that .* has, .*ffn", "got inner"),
        families=("bert", "toy"),
    ),
    Case(
        "argument",
        "`progress=None`",
        "works: nothing is said",
        lambda ground: ask(ground, progress=None),
        holds=unchanged_widths,
    ),
    Case(
        "argument",
        "something that is no `torch.nn.Module` for a model",
        "refused",
        lambda ground: icd.optimize("model", [ground.inputs], quality=lambda model: 50.0),
        ConfigError,
        (r"model takes a torch.nn.Module, got 'model' \(str\)",),
        families=("bert",),
    ),
    Case(
        "argument",
        "a width that no tile divides (an FFN of 100 with `tile=16`), or of one tile and less",
        "works on the other axes; a `UserWarning`, the report and a run's last lines name axis, width, tile and cure",
        lambda ground: ask(ground, tile=10**6, latency_target_rel=-0.05),
        holds=told("no more than one tile of 1000000", "set tile (transform.tile) to"),
    ),
    Case(
        "argument",
        "a call under `torch.no_grad()`",
        "works: the loop has its own switches",
        lambda ground: under(torch.no_grad, ground),
        holds=unchanged_widths,
    ),
    Case(
        "argument",
        "a call under `torch.inference_mode()`",
        "works: the loop has its own switches",
        lambda ground: under(torch.inference_mode, ground),
        holds=unchanged_widths,
    ),
    Case(
        "argument",
        "a call with float64 as torch's default",
        "works: the loop has its own switches",
        whole_loop_in_double,
        holds=unchanged_widths,
    ),
    Case(
        "argument",
        "a path that begins with `~`",
        "the home folder, wherever a path can be given",
        saved_at_home,
        holds=at_home,
        families=("bert", "mamba"),
    ),
    Case(
        "argument",
        "a time budget of `icd.fit_permutation` that is not finite",
        "refused",
        lambda ground: icd.fit_permutation(sp.csr_array(np.ones((3, 3)) - np.eye(3)), time_budget_s=math.inf),
        ConfigError,
        ("time_budget_s is a finite number of seconds >= 0, got inf",),
        families=("bert",),
    ),
    Case(
        "argument",
        "a graph with NaN or infinity",
        "refused, with the edge",
        lambda ground: icd.fit_permutation(sp.csr_array(np.array([[0, math.inf], [math.inf, 0]]))),
        SolverNotConverged,
        (r"W\[0, 1\] = inf is not finite; drop the edge",),
        families=("bert",),
    ),
    Case(
        "argument",
        "`icd.CostConfig` with a number that is not finite",
        "refused",
        lambda ground: icd.CostConfig(alpha=math.nan),
        ConfigError,
        ("cost.alpha is .*got nan",),
        families=("bert",),
    ),
]


def with_nan(ground: Ground):
    with torch.no_grad():
        next(iter(ground.model.parameters())).view(-1)[0] = math.nan
    return ask(ground)


CALIBRATION = [
    accepted("one dict instead of a list", "works: it is one batch", lambda inputs: inputs),
    accepted("a `DataLoader` that yields dicts", "works", loader),
    accepted("a generator", "works: it is read once", lambda inputs: (batch for batch in [inputs, inputs])),
    accepted("`BatchEncoding`, as tokenizers give it", "works", lambda inputs: [BatchEncoding(inputs)]),
    accepted(
        "arrays of numpy", "works: they become tensors", lambda inputs: [{k: v.numpy() for k, v in inputs.items()}]
    ),
    accepted(
        "lists of numbers", "works: they become tensors", lambda inputs: [{k: v.tolist() for k, v in inputs.items()}]
    ),
    accepted(
        "batches of different lengths", "works", lambda inputs: [inputs, {k: v[:, -9:] for k, v in inputs.items()}]
    ),
    accepted(
        "no attention_mask", "works: every position is a token", lambda inputs: [{"input_ids": inputs["input_ids"]}]
    ),
    inputs_case(
        "nothing", "refused", lambda inputs: [], "calibration is empty: pass at least one", error=TransformError
    ),
    inputs_case("`None`, a text, a number", "refused", lambda inputs: 3, "calibration takes dicts.*got 3"),
    inputs_case("tuples, as a `TensorDataset` gives them", "refused", lambda inputs: [(1, 2)], "batch 0.*is a tuple"),
    inputs_case(
        "a tensor", "refused", lambda inputs: inputs["input_ids"], "batch 0 of calibration is a Tensor", "tokenizer"
    ),
    inputs_case(
        "only `inputs_embeds`",
        "refused: token ids are what every family reads",
        lambda inputs: [{"inputs_embeds": torch.zeros(2, 3, 4)}],
        "has no input_ids, only inputs_embeds",
    ),
    inputs_case(
        "lists of different lengths",
        "refused, with the cure",
        lambda inputs: [{"input_ids": [[1, 2], [3]]}],
        "padding=True",
    ),
    inputs_case(
        "columns of text beside the tensors",
        "refused, with the name",
        lambda inputs: with_key(inputs, "text", ["a", "b", "c"]),
        "batch 0 of calibration: text is no tensor",
    ),
    inputs_case(
        "one text without a batch dimension",
        "refused, with the cure",
        lambda inputs: [{"input_ids": inputs["input_ids"][0]}],
        r"takes the shape \(texts, tokens\)",
        r"input_ids\[None\]",
    ),
    inputs_case(
        "input_ids that are not whole numbers",
        "refused",
        lambda inputs: with_key(inputs, "input_ids", inputs["input_ids"].float()),
        r"whole numbers \(int64\); got torch.float32",
    ),
    inputs_case(
        "token ids that the model does not have",
        "refused, with the id and the size of the vocabulary",
        lambda inputs: with_key(inputs, "input_ids", inputs["input_ids"] + 10**6),
        "batch 0.*input_ids has 100.*vocabulary of .* has .* tokens",
    ),
    inputs_case(
        "a mask of three dimensions (of pairs)",
        "refused",
        lambda inputs: with_key(inputs, "attention_mask", torch.ones(3, 5, 5)),
        "attention_mask takes the shape of input_ids.*got shape",
    ),
    inputs_case(
        "a mask with other numbers than 0 and 1",
        "refused",
        lambda inputs: with_key(inputs, "attention_mask", torch.full(tuple(inputs["input_ids"].shape), 0.5)),
        "takes 1 for a token and 0 for padding",
    ),
    inputs_case(
        "a single token in all",
        "refused",
        lambda inputs: [{"input_ids": inputs["input_ids"][:1, :1]}],
        "calibration has 1 token that .* pass more text",
        error=TransformError,
    ),
    inputs_case(
        "the same token everywhere",
        "refused: nothing varies, so nothing can be learned",
        lambda inputs: [{"input_ids": torch.ones(4, 1, dtype=torch.long)}],
        "does not vary over the calibration's tokens.*pass other text",
        error=TransformError,
    ),
    Case(
        "model",
        "weights with NaN or infinity",
        "refused, with the parameter",
        with_nan,
        ConfigError,
        ("of the model holds NaN or infinity",),
    ),
]


def bad_quality(what: str, value, *message: str) -> Case:
    return Case(
        "quality",
        what,
        "refused: it must return a finite percentage",
        lambda ground: ask(ground, quality=lambda model: value),
        MeasureError,
        (*message, "for the dense model; it must return a finite percentage"),
        families=("bert",),
    )


QUALITY = [
    argument(
        "`None`, or no function", "what it takes", "quality takes a function.*got None", door="quality", quality=None
    ),
    bad_quality("NaN or infinity", math.nan, "returned nan"),
    bad_quality("true or false", True, "returned True"),
    bad_quality("a text", "93 %", "returned '93 %'"),
    bad_quality("nothing", None, "returned None"),
    bad_quality("a complex number", 50 + 0j, "complex"),
    bad_quality("several numbers", np.ones(3), "ndarray"),
    Case(
        "quality",
        "a tensor or a number of numpy",
        "works",
        lambda ground: [
            ask(ground, quality=lambda model, kind=kind: kind(50.0)) for kind in (torch.tensor, np.float32)
        ],
        holds=lambda found: [unchanged_widths(one) for one in found],
        families=("bert",),
    ),
    Case(
        "quality",
        "fractions (0.93) with a budget in points",
        "works, with a `UserWarning` to return percent",
        lambda ground: ask(ground, quality=lambda model: 0.93),
        holds=told("every value of quality lies in [0, 1]", "0.93", "return 100 times as much"),
    ),
    Case(
        "quality",
        "percent, one of them below 1",
        "works without a word",
        lambda ground: ask(ground, quality=in_turn(0.5, *[1.5] * 9), budget_pp=10.0, **JUDGED),
        holds=silent,
        families=("bert",),
    ),
    Case(
        "quality",
        "one that trains, halves or zeroes the model it gets, draws numbers, switches gradients off, sets threads",
        "works: it gets a copy, and all of that is put back",
        lambda ground: state_after(ground, careless),
        holds=nothing_changed,
    ),
    Case(
        "quality",
        "one that is interrupted, or raises",
        "the interrupt or the error goes on to the caller, whose model, modes and random numbers are as before",
        lambda ground: state_after(ground, interrupted()),
        holds=was_interrupted,
    ),
    Case(
        "quality",
        "one that draws at random",
        "works: every call begins with the caller's random generators, so all models are judged by the same draws",
        drawn,
        holds=same_draws,
    ),
]
CASES = ARGUMENTS + CALIBRATION + QUALITY
