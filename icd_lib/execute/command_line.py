"""Scenarios from the command line: `python run_all.py --scenario bert`, and `icd run` (see --help)."""

import argparse
import signal
import sys
import traceback
from pathlib import Path

from icd_lib.errors import (
    EXIT_GATE_NOT_MET,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ConfigError,
    IcdError,
    InternalError,
)
from icd_lib.execute.account import some_account
from icd_lib.execute.output import steady_output
from icd_lib.paths import user_path
from icd_lib.run.configuration import Scenario
from icd_lib.run.scenario import is_sweep, list_scenarios, list_sweeps, load_scenario


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The command line's options; `prog`: what the command is called in its help."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Permute, transform, re-permute and measure a model; outputs go to DIR/<scenario>.",
        epilog="Exit codes: 0 done, 1 gate not met, 2 configuration, 3 resource, 4 measurement, 5 solver, "
        "6 transform or axis, 7 files, 9 internal error, 130 interrupted.",
    )
    parser.add_argument("--scenario", metavar="NAME|PATH", help="scenario or YAML file (default: bert)")
    parser.add_argument("--sweep", metavar="NAME|FILE", help="many runs: a sweep file, or the name of one")
    parser.add_argument("--from-lock", metavar="FILE", help="the exact configuration of a run's config.lock.json")
    parser.add_argument("--mode", default="both", choices=["linear", "iterative", "both"], help="default: both")
    parser.add_argument("--override", action="append", default=[], metavar="KEY.PATH=VALUE", help="repeatable")
    parser.add_argument("--out", default="outputs", metavar="DIR", help="where runs are kept (default: outputs)")
    parser.add_argument("--seed", type=int, help="seed of every random generator")
    parser.add_argument("--list", action="store_true", help="list scenarios and sweeps, and stop")
    parser.add_argument("--dry-run", action="store_true", help="show what would run and stop; writes nothing")
    parser.add_argument("--quick", action="store_true", help="the same stages with fewer samples")
    parser.add_argument("--no-measure", action="store_true", help="stop before the measurements")
    parser.add_argument("--reuse-perm", metavar="PATH", help="start from permutations of a file or run folder")
    parser.add_argument(
        "--cluster",
        metavar="WHERE",
        help="workers of a sweep: local, none, tcp://HOST:PORT, scheduler file (default: local where that pays)",
    )
    parser.add_argument("--yes", action="store_true", help="start a sweep of however many points")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run in --out, which must be the same one")
    again.add_argument("--force", action="store_true", help="run every stage again")
    return parser


def main(argv: list[str] | None = None, notebooks: Path | None = None, prog: str | None = None) -> int:
    """Parse, dispatch, print; returns the exit code. `notebooks` stands in for the project's own."""
    with steady_output(), some_account():
        return _main(argv, notebooks, prog)


def _main(argv: list[str] | None, notebooks: Path | None, prog: str | None) -> int:
    args = build_parser(prog).parse_args(argv)
    earlier = signal.signal(signal.SIGTERM, _interrupt)  # a polite kill ends the kernel too, as Ctrl-C does
    try:
        if args.list:
            for name, description in (list_scenarios() | list_sweeps()).items():
                print(f"{name:<12} {description}")
            return EXIT_OK
        if args.sweep is not None or (args.scenario is not None and is_sweep(args.scenario)):
            return _sweep(args, notebooks)
        if args.cluster is not None:
            raise ConfigError("--cluster is for sweeps: a run measures on one machine; leave it out, or give --sweep")
        scenario = load_scenario(_source(args), _overrides(args), quick=args.quick, seed=args.seed)
        return _dry_run(args, scenario, notebooks) if args.dry_run else _run(args, scenario, notebooks)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; go on with the same command and --resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:  # the outermost boundary: Python's own exit code for a bug is 1, which means "gate not met" here
        traceback.print_exc()
        return InternalError.exit_code
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _interrupt(*_):
    raise KeyboardInterrupt


def _source(args: argparse.Namespace) -> str:
    if args.from_lock is None:
        return args.scenario or "bert"
    if args.scenario is not None:
        raise ConfigError("--from-lock names the whole configuration; leave out --scenario")
    if not args.from_lock.endswith(".json"):
        raise ConfigError(f"--from-lock takes the config.lock.json of a run, got {args.from_lock}")
    return args.from_lock


def _overrides(args: argparse.Namespace) -> list[str]:
    if args.reuse_perm is None:
        return args.override
    path = user_path(args.reuse_perm).resolve()
    if not path.exists():
        raise ConfigError(f"--reuse-perm takes an existing file or run folder; there is no {args.reuse_perm}")
    return [*args.override, f"solver.reuse_perm={path}"]


def _dry_run(args: argparse.Namespace, scenario: Scenario, notebooks: Path | None) -> int:
    from icd_lib.execute.pipeline import Clock, as_time, notebooks_folder, plan_stages
    from icd_lib.run.artifacts import Run, run_folder
    from icd_lib.run.records import Records

    run = Run(scenario, run_folder(scenario, args.out), args.mode, args.out)
    stages = plan_stages(args.mode, not args.no_measure, scenario.config)
    records = Records.load(run, ignore_broken=args.force)
    clock = Clock(stages, records, scenario.quick)
    print(f"{scenario.name}: configuration {scenario.sha256[:12]}, into {run.dir}")
    for stage in stages:
        source = (notebooks or notebooks_folder()) / f"{stage.notebook}.ipynb"
        stale = "--force" if args.force else records.why_stale(stage.name, stage.needs, source)
        if stale is None:
            clock.skip(stage.name)
        print(f"  {stage.name:<22} {f'run ({stale})' if stale else 'skip (unchanged)'}")
    print(f"about {as_time(clock.remaining_s())}")
    return EXIT_OK


def _run(args: argparse.Namespace, scenario: Scenario, notebooks: Path | None) -> int:
    from icd_lib.execute.pipeline import plan_stages, run_pipeline, start_run
    from icd_lib.experiment.gates import GATES
    from icd_lib.records.verdict import VERDICT, Verdict
    from icd_lib.report.ending import ending_lines
    from icd_lib.report.results import Results

    run, existed = start_run(scenario, args.out, mode=args.mode, resume=args.resume)
    if args.resume and not existed:
        print(f"nothing to resume in {run.dir}; starting from the beginning")
    print(
        f"{scenario.name}{' (quick)' if scenario.quick else ''}: configuration {scenario.sha256[:12]}, into {run.dir}"
    )
    stages = plan_stages(args.mode, not args.no_measure, scenario.config)
    run_pipeline(run, stages, force=args.force, notebooks=notebooks)
    if args.no_measure:
        return EXIT_OK
    verdict = run.read(Verdict, VERDICT)
    status = {gate: verdict.gate(gate).status for gate in GATES}
    if notebooks is None:  # what others' notebooks leave is not known
        print("\n".join(ending_lines(Results.load(run.dir))))
    else:
        print("  ".join(f"{gate} gate: {state}" for gate, state in status.items()))
    print(f"results: {run.dir / 'index.html'}")
    if scenario.quick:
        print("quick run: gates are shown, not enforced; its samples are too few to judge by")
        return EXIT_OK
    return EXIT_GATE_NOT_MET if status["smoke"] == "fail" else EXIT_OK


def _sweep(args: argparse.Namespace, notebooks: Path | None) -> int:
    """A sweep from the command line: the exit code of the first point that failed, or 0."""
    from icd_lib.execute.sweep import run_sweep, sweep_folder
    from icd_lib.execute.where import AUTO
    from icd_lib.sweeps.outcome import STATUS_WORDS
    from icd_lib.sweeps.plan import read_sweep

    _check_sweep(args)
    planned = read_sweep(args.sweep or args.scenario, _overrides(args), quick=args.quick, yes=args.yes)
    folder = sweep_folder(planned, args.out)
    merged = f", {planned.merged} that repeat another merged" if planned.merged else ""
    print(
        f"{planned.name}{' (quick)' if planned.quick else ''}: {len(planned.points)} points{merged}, into {folder}",
        flush=True,
    )
    if args.dry_run:
        for point in planned.points:
            print(f"  {point.name}")
        return EXIT_OK
    where = args.cluster or AUTO
    result = run_sweep(planned, args.out, mode=args.mode, force=args.force, cluster=where, notebooks=notebooks)
    counts = {words: result.count(status) for status, words in STATUS_WORDS.items()}
    print(", ".join(f"{count} {words}" for words, count in counts.items() if count))
    for row in result.pareto():
        print(f"  on the frontier: {row.number}. {row.point}, {row.arm}")
    print(f"results: {folder / 'index.html'}")
    failed = [outcome.code for outcome in result.outcomes.values() if outcome.status == "failed"]
    codes = {error.code: error.exit_code for error in IcdError.__subclasses__()}
    return codes.get(failed[0] or "", InternalError.exit_code) if failed else EXIT_OK


def _check_sweep(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for options that a sweep gives its points itself, or that leave nothing to compare."""
    if args.sweep is not None and args.scenario is not None:
        raise ConfigError("--sweep names the sweep, whose file names the scenarios; leave out --scenario")
    for given, option, instead in (
        (args.from_lock is not None, "--from-lock", "a lock is one run"),
        (args.seed is not None, "--seed", "write repeat: [SEED, …] into the sweep file"),
        (args.no_measure, "--no-measure", "a sweep compares what is measured"),
    ):
        if given:
            raise ConfigError(f"{option} does not go with a sweep: {instead}")
