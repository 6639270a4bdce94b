"""The command `icd` and what its subcommands print."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.exceptions import TyperException

from icd_lib.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, IcdError, InternalError
from icd_lib.execute.account import some_account
from icd_lib.execute.output import steady_output
from icd_lib.progress import DETAIL
from icd_lib.version import VERSION

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a trained model faster by re-optimising its memory layout, and measure what that gave.",
)

ALL_TO_RUN = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Target = Annotated[float | None, typer.Option(help="latency to reach, relative to dense; -0.3 is 30 % less")]
Budget = Annotated[float | None, typer.Option(help="percentage points that the judge may fall")]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    with steady_output(), some_account():
        return _main(argv)


def _main(argv: list[str] | None) -> int:
    try:
        return app(argv, prog_name="icd", standalone_mode=False) or EXIT_OK
    except TyperException as error:
        print(f"icd: {error.format_message()}; icd --help lists what there is", file=sys.stderr)
        return ConfigError.exit_code
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:  # the outermost boundary: Python's own exit code for a bug is 1, which means "gate not met" here
        traceback.print_exc()
        return InternalError.exit_code


@app.command("run", context_settings=ALL_TO_RUN)
def run_command(context: typer.Context) -> int:
    """Run a scenario: the same options as run_all.py (icd run --help)."""
    from icd_lib.execute.command_line import main as run_scenario

    return run_scenario(context.args, prog="icd run")


@app.command("optimize")
def optimize_command(
    model: Annotated[str, typer.Argument(help="a folder, a hub id, or the name of an embedded model")],
    calibrate: Annotated[str, typer.Option(help="text of one's own: .txt, one text a line, .jsonl or .csv")],
    out: Annotated[str, typer.Option(help="folder for the faster copy")],
    target: Target = None,
    budget: Budget = None,
    quality: Annotated[str | None, typer.Option(help="a judge of one's own: module:function, model to percent")] = None,
    field: Annotated[str | None, typer.Option(help="field or column of the text")] = None,
    mode: Annotated[str, typer.Option(help="linear, oneshot or iterative")] = "iterative",
    max_length: Annotated[int, typer.Option(help="tokens of a text that are read")] = 128,
    seed: Annotated[int, typer.Option(help="of every random generator")] = 0,
    device: Annotated[str | None, typer.Option(help="what computes: auto, cpu, cuda or cuda:N")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an optimised model in --out")] = False,
) -> None:
    """Make a faster copy of MODEL from nothing but a file of text."""
    from icd_lib.command.optimize import optimize_on_texts

    console = Console()
    with progress_on(console, "reading the text") as say:
        made = optimize_on_texts(
            model, calibrate, out, target=target, budget=budget, quality=quality, field=field, mode=mode,
            max_length=max_length, seed=seed, device=device, force=force, say=say,
        )  # fmt: skip
    console.print(latency_table(made.latency, made.optimized.report["predicted_latency_rel"]))
    detail = made.detail
    console.print(
        f"judge: {made.judged_by}: {detail['value_pct']:.2f} % (dense: {detail['dense_pct']:.2f} %)", markup=False
    )
    if "mean_cosine" in detail:
        console.print(f"mean cosine to the dense model's embeddings: {detail['mean_cosine']:.4f}")
        console.print("Agreement is not quality: nobody has told what is right. Judge it on your task with --quality.")
    console.print(f"written to {made.folder}; load it with", markup=False)
    console.print(f"  import icd_lib as icd\n  model = icd.load_optimized({str(made.folder)!r})", markup=False)


@app.command("measure")
def measure_command(
    folder: Annotated[str, typer.Argument(help="a folder that ICD wrote, or any model")],
    against: Annotated[str | None, typer.Option(help="the model it came from (default: as its record says)")] = None,
    shape: Annotated[list[str] | None, typer.Option(help="batch x tokens, repeatable; default 8x128 and 1x32")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="repeatable; default: all that are installed")] = None,
    repeats: Annotated[int | None, typer.Option(help="interleaved rounds")] = None,
) -> None:
    """Time a model beside the one it came from, in every runtime that is installed."""
    from icd_lib.command.folder import check_measurable, origin_of
    from icd_lib.command.measure import REPEATS, SHAPES, parse_shapes, runtimes_for, time_models
    from icd_lib.models.checkpoint.loading import open_model

    console = Console()
    check_measurable(folder)
    smaller, _, label = open_model(folder)
    origin = against or origin_of(folder)
    check_measurable(origin)
    dense, _, name = open_model(origin)
    console.print(f"{label} against {name}", markup=False)
    with progress_on(console, "timing") as say:
        latency = time_models(
            {"dense": dense, "icd": smaller}, parse_shapes(shape) if shape else SHAPES,
            runtimes=runtime or runtimes_for(smaller), repeats=REPEATS if repeats is None else repeats, say=say,
        )  # fmt: skip
    console.print(latency_table(latency))


@app.command("export")
def export_command(
    model: Annotated[str, typer.Argument(help="a folder that ICD wrote, a hub id, or the name of an embedded model")],
    out: Annotated[str, typer.Option(help="folder for the export")],
    runtime: Annotated[str, typer.Option(help="openvino, onnxruntime or eager; a decoder also gguf")],
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8, as far as the runtime has it")] = "fp32",
    calibrate: Annotated[str | None, typer.Option(help="for int8, text of one's own: .txt, .jsonl or .csv")] = None,
    field: Annotated[str | None, typer.Option(help="field or column of the text")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean, cls or max; default as the model says")] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens of a text that are read")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export in --out")] = False,
) -> None:
    """Write MODEL as a folder that the users of a runtime load with their own tools."""
    from icd_lib.command.export import export_model

    console = Console()
    with console.status(f"exporting for {runtime}, and loading that in a process of its own"):
        facts = export_model(
            model, out, runtime=runtime, precision=precision, calibrate=calibrate, field=field, pooling=pooling,
            max_length=max_length, force=force,
        )  # fmt: skip
    console.print(
        f"{facts['label']}: {len(facts['sha256'])} files in {out}, README.md says how to load them", markup=False
    )
    for name, found in facts["verified"].items():
        checked = found["status"] == "verified"
        told = f"checked, least cosine {found['min_cosine']:.6f}" if checked else f"not checked: {found['reason']}"
        console.print(f"  {name}: {told}", markup=False)


@app.command("list")
def list_command() -> None:
    """Scenarios, families of models, and runtimes, with what is installed."""
    from icd_lib.decoding import DECODERS
    from icd_lib.errors import ResourceError
    from icd_lib.models.families import FAMILIES
    from icd_lib.run.scenario import list_scenarios, list_sweeps
    from icd_lib.runtimes import RUNTIMES

    console = Console()
    table = Table("scenario", "", title=f"icd {VERSION}", title_justify="left")
    for name, description in (list_scenarios() | list_sweeps()).items():
        table.add_row(name, description)
    console.print(table)
    table = Table("family", "config.json says", "embedded")
    for name, family in FAMILIES.items():
        default = [family.default.name] if family.default else []
        embedded = default + [known.name for known in family.others if known.folder()]
        table.add_row(name, ", ".join(family.model_types), ", ".join(embedded) or "none")
    console.print(table)
    for title, rows in (("runtime", RUNTIMES), ("decoding", DECODERS)):
        table = Table(title, "", "installed")
        for name, row in rows.items():
            try:
                row.check()
                state = "yes"
            except ResourceError as error:
                state = str(error.args[0])
            table.add_row(name, row.label, state)
        console.print(table)


@app.command("version")
def version_command() -> None:
    """The version."""
    print(VERSION)


@contextmanager
def progress_on(console: Console, begun: str) -> Iterator[Callable[[str], None]]:
    """What takes lines while something goes on: on a terminal a spinner shows the newest detail, elsewhere nothing."""
    with console.status(escape(begun)) as status:

        def say(line: str) -> None:
            _, is_detail, detail = line.partition(DETAIL)
            if is_detail:
                status.update(escape(detail))
            else:
                console.print(line, markup=False)
                status.update(escape(line))

        yield say


def latency_table(ladder: dict, predicted: float | None = None) -> Table:
    """Milliseconds of both models and their ratio with its 95 % interval, by runtime and shape."""
    title = "" if predicted is None else f"latency (the tables predicted {predicted:+.1%})"
    table = Table("runtime", "batch x tokens", "dense ms", "icd ms", "against dense", title=title, title_justify="left")
    for name, entry in ladder["runtimes"].items():
        if entry["status"] != "measured":
            table.add_row(name, "", "", "", f"not measured: {entry['reason']}")
            continue
        for shape, timed in entry["shapes"].items():
            dense, icd = timed["arms"]["dense"], timed["arms"]["icd"]
            ratio = icd["vs_baseline"]
            low, high = ratio.ci95
            table.add_row(
                name, shape, f"{dense['latency_ms'].value:.2f}", f"{icd['latency_ms'].value:.2f}",
                f"{ratio.value:+.1%} ({low:+.1%} ... {high:+.1%})",
            )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
