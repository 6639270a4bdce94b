"""The pages for people: links, commands, options, keys, names and tables are those of the code."""

import ast
import json
import re
import shlex
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
import typer

import icd_lib as icd
import run_all
from icd_lib import errors
from icd_lib.command.app import app as icd_command
from icd_lib.data.domains import DOMAINS
from icd_lib.errors import ConfigError, IcdError
from icd_lib.models.families import FAMILIES
from icd_lib.models.shapes import shape_names
from icd_lib.options.field import aliases
from icd_lib.release.evaluate import STEPS
from icd_lib.run.configuration import parse_override
from icd_lib.run.options import check_config, key_paths, sections
from icd_lib.run.scenario import list_scenarios, list_sweeps, load_scenario
from icd_lib.runtimes import OWN, REFERENCE, RUNTIMES
from icd_lib.solver.options import CostOptions

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ko.md"]
LINKED = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTEND = sorted((ROOT / "docs" / "extend").glob("*.md"))
PAGES = [*READMES, *LINKED, *EXTEND]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
FOLDERS = "tests|icd_lib|docs|benchmarks|scripts|notebooks|parameters|outputs/reference"
FILE_ENDINGS = {"json", "yaml", "py", "npz", "csv", "onnx", "safetensors", "html", "ipynb", "bin", "txt"}
ICD_OPTIONS = {
    name
    for command in typer.main.get_command(icd_command).commands.values()
    for option in command.params
    for name in option.opts
}
OPTIONS = set(re.findall(r"--[a-z-]+", run_all.build_parser().format_help())) - {"--help"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """Inline code, its line breaks made spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def code(text: str) -> list[str]:
    """Every line of a fenced block, and all inline code."""
    return [line for block in FENCE.findall(text) for line in block.splitlines()] + spans(text)


def commands(text: str, start: str) -> list[list[str]]:
    """Words of the shell commands that begin so; comments and what is cut short by an ellipsis are left out."""
    found = [line.strip() for line in code(text) if line.strip().startswith(start)]
    return [shlex.split(line, comments=True) for line in found if "…" not in line]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the tables in a text, heads and rules left out."""
    lines = [line.strip() for line in text.splitlines()]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    ruled = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(cells) if i not in ruled and i + 1 not in ruled]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(text: str, folder: Path) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(text))):
        path, _, anchor = target.partition("#")
        file = folder / path
        if re.match(r"[a-z]+:", target):
            continue
        if path and not file.exists():
            found.append(target)
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8") if path else text):
            found.append(target)
    return found


def unknown_targets(text: str) -> list[str]:
    targets = re.findall(r"^([a-z][a-z_-]*):(?!=)", read("Makefile"), re.MULTILINE)
    return [word for words in commands(text, "make ") for word in words[1:] if "=" not in word and word not in targets]


def faults_of_runs(text: str) -> list[str]:
    """What is wrong with the page's calls of run_all.py, each with the value it gives."""
    found = []
    for words in commands(text, "python run_all.py"):
        try:
            args = run_all.build_parser().parse_args(words[2:])
        except SystemExit:
            found.append(f"not parsed: {' '.join(words)}")
            continue
        known = [*list_scenarios(), *list_sweeps()]
        if args.scenario and not args.scenario.endswith((".yaml", ".yml")) and args.scenario not in known:
            found.append(f"no scenario: {args.scenario}")
        found += [fault for override in args.override for fault in faults_of_key(override)]
    return found


def faults_of_key(text: str) -> list[str]:
    try:
        check_config(parse_override(text), partial=True)
    except ConfigError as error:
        return [str(error)]
    return []


def other_names() -> list[str]:
    """The paths by which options may be given beside their own."""
    return [f"{name}.{other}" for name, section in sections().items() for other in aliases(section)]


def wrong_keys(text: str) -> list[str]:
    """Inline code that reads like an option (`cost.g`, `cost.g=16`, `cost.g: 16`) and is none, or not of that value."""
    found = []
    for span in spans(text):
        match = re.fullmatch(r"([a-z_]+(?:\.\w+)+)(?:\s*[:=]\s*(.+))?", span)
        if match is None or match[1].split(".")[-1] in FILE_ENDINGS:
            continue
        key, value = match.groups()
        if key.split(".")[0] not in sections() or is_code(key):
            continue
        if value is not None:
            found += faults_of_key(f"{key}={value}")
        elif not any(path == key or path.startswith(f"{key}.") for path in [*key_paths(), *other_names()]):
            found.append(key)
    return found


def is_code(name: str) -> bool:
    """Whether `codesign.search` or `measure.statistics` is a function or a module of icd_lib, and so no option."""
    path = ROOT / "icd_lib" / name.replace(".", "/")
    module = path.parent.with_suffix(".py")
    held = module.read_text(encoding="utf-8") if module.is_file() else ""
    return path.with_suffix(".py").is_file() or f"\ndef {path.name}(" in held


def unknown_options(text: str) -> list[str]:
    """Options that run_all.py has not and, where they stand alone, neither has a script that the page runs, or icd."""
    found, theirs = [], set(ICD_OPTIONS) if re.search(r"(?m)^icd optimize", text) else set()
    for script in re.findall(r"python ((?:benchmarks|scripts)/\w+\.py)", text):
        theirs |= set(re.findall(r"--[a-z-]+", read(script)))
    for line in code(text):
        known = OPTIONS | theirs if line.startswith("--") else OPTIONS
        if line.startswith(("icd optimize", "icd measure")):
            found += [option for option in re.findall(r"(?<![\w-])--[a-z-]+", line) if option not in ICD_OPTIONS]
        if line.startswith("--") or "run_all.py" in line:
            found += [option for option in re.findall(r"(?<![\w-])--[a-z-]+", line) if option not in known]
    return found


def missing_files(text: str) -> list[str]:
    """Modules, scripts and paths of the project that the code on a page names and that are not there."""
    found = []
    for line in code(text):
        for module in re.findall(r"python -m (icd_lib[\w.]*)", line):
            path = ROOT / module.replace(".", "/")
            file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            if not file.is_file() or '__name__ == "__main__"' not in file.read_text(encoding="utf-8"):
                found.append(module)
        found += [path for path in re.findall(r"python ([\w/]+\.py)", line) if not (ROOT / path).is_file()]
        if re.fullmatch(rf"(?:{FOLDERS})/[\w./*-]*", line) and not list(ROOT.glob(line.rstrip("/"))):
            found.append(line)
    return found


CHECKS = {
    "links": lambda text: dead_links(text, ROOT / "docs"),
    "targets": unknown_targets,
    "runs": faults_of_runs,
    "keys": wrong_keys,
    "options": unknown_options,
    "files": missing_files,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_only_what_there_is(page):
    text = page.read_text(encoding="utf-8")
    found = {name: check(text) for name, check in CHECKS.items()} | {"links": dead_links(text, page.parent)}
    assert not any(found.values()), {name: faults for name, faults in found.items() if faults}


@pytest.mark.parametrize(
    ("check", "wrong", "right"),
    [
        ("links", "[a](GONE.md)", "[a](USAGE.md) `[a](GONE.md)`"),
        ("links", "[a](USAGE.md#gone)", "[a](USAGE.md#exit-codes)"),
        ("links", "# Here\n[a](#there)", "# Here, `now`\n[a](#here-now)"),
        ("targets", "`make coffee`", "`make test ARGS=-x`, which will make coffee"),
        ("targets", "```\nmake run brew\n```", "```\nmake run SCENARIO=mock  # a comment\n```"),
        ("runs", "```\npython run_all.py --fast\n```", "```\npython run_all.py --quick\n```"),
        ("runs", "```\npython run_all.py --scenario brt\n```", "```\npython run_all.py --scenario bert\n```"),
        ("runs", "`python run_all.py --override cost.gg=1`", "`python run_all.py --override cost.g=1`"),
        ("runs", "`python run_all.py --override cost.g=x`", "`python run_all.py --override … `"),
        ("keys", "`measure.repeat`", "`measure.repeats`, `measure.json`, `gates.smoke`, `numpy.array`"),
        ("keys", "`cost.k: -1`", "`cost.k: 0`"),
        ("keys", "`measure.ncu_enabled`", "`measure.ncu_enable`, `measure.ncu_enable=false`"),
        ("keys", "`codesign.seek`", "`codesign.pilots`, `measure.statistics`"),
        ("options", "`--fast`", "`--quick`, `pip --fast`"),
        ("options", "`--seeds`", "`python benchmarks/budget.py bert`, `--seeds`"),
        ("files", "`python -m\nicd_lib.gone`", "`python -m\nicd_lib.verify FILE.zip`"),
        ("files", "`python -m icd_lib.run.lock`", "`python scripts/train_language.py`"),
        ("files", "`python -m icd_lib.report`", "`python -m icd_lib.data.domains`"),
        ("files", "`tests/test_gone.py`", "`icd_lib/kernels/cpu*.py`, `icd_lib/<name>.py`"),
    ],
)
def test_a_wrong_page_is_noticed(check, wrong, right):
    assert CHECKS[check](wrong) and not CHECKS[check](right)


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_a_readme_links_every_page_and_names_every_scenario(name):
    text = read(name)
    wanted = [page.relative_to(ROOT).as_posix() for page in [*LINKED, ROOT / "docs" / "extend" / "README.md"]]
    assert [page for page in wanted if f"]({page})" not in text] == []
    listed = {word for row in rows(text) for word in names(row[0])}
    assert {*list_scenarios(), *list_sweeps()} <= listed


def test_the_korean_readme_has_the_same_code_and_no_copy_of_the_numbers():
    english, korean = read("README.md"), read("README.ko.md")
    assert FENCE.findall(korean) == FENCE.findall(english)
    depths = [re.findall(r"^(#+) ", prose(text), re.MULTILINE) for text in (english, korean)]
    assert depths[0] == depths[1]
    figures = re.search(r"<!-- numbers: start -->(.*?)<!-- numbers: end -->", english, re.DOTALL)[1]
    numbers = [cell for row in rows(figures) for cell in row[1:] if re.search(r"\d", cell)]  # not a domain's name
    assert numbers and not [cell for cell in numbers if cell in korean]


def test_the_usage_page_has_every_option_and_every_target():
    text = read("docs/USAGE.md")
    assert OPTIONS <= {name for row in rows(section(text, "Run a scenario")) for name in names(row[0])}
    helped = re.findall(r"^([a-z_-]+):.*## ", read("Makefile"), re.MULTILINE)
    listed = [name for row in rows(section(text, "Make targets")) for name in names(row[0])]
    assert sorted(listed) == sorted(f"make {target}" for target in helped)


def definitions() -> dict[str, ast.AST]:
    """Top-level functions and classes of the modules that the public names come from."""
    found = {}
    for file in (ROOT / "icd_lib").rglob("*.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        found |= {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name in icd.__all__}
    return found


def arguments(function: ast.FunctionDef) -> dict[str, ast.expr | None]:
    """Name → default (None: has none), in order."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    every = dict(zip((arg.arg for arg in positional), defaults, strict=True))
    every |= {arg.arg: default for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)}
    return every | ({f"**{args.kwarg.arg}": None} if args.kwarg else {})


def test_the_public_names_and_their_signatures_are_those_of_the_code():
    stated = {names(row[0])[0]: names(row[1])[0] for row in rows(section(read("docs/ICD.md"), "Python"))}
    assert list(stated) == [name for name in stated if name in icd.__all__]
    assert set(stated) == set(icd.__all__) - {"__version__"}
    real = definitions()
    for name, signature in stated.items():
        given = arguments(ast.parse(f"def f{signature}: pass").body[0])
        if isinstance(real[name], ast.ClassDef):
            assert list(given) == [n.target.id for n in real[name].body if isinstance(n, ast.AnnAssign)], name
            continue
        expected = arguments(real[name])
        assert list(given) == list(expected), name
        for argument, default in given.items():
            if default is not None:
                assert ast.literal_eval(default) == ast.literal_eval(expected[argument]), f"{name}: {argument}"


def test_the_error_codes_are_those_of_the_code():
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, IcdError) and c is not IcdError
    ]
    expected = {(c.code, c.__name__, str(c.exit_code)) for c in classes}
    text = read("docs/ICD.md")
    assert {(*names(row[0]), *names(row[1]), row[2]) for row in rows(section(text, "Errors"))} == expected
    cured = {
        tuple(re.findall(r"E_\w+|\d+$", row[0]))
        for row in rows(section(read("docs/TROUBLESHOOTING.md"), "Errors by code"))
    }
    assert cured - {()} == {(code, status) for code, _, status in expected}


def test_quoted_messages_are_in_the_code():
    source = read("run_all.py") + "".join(file.read_text() for file in sorted((ROOT / "icd_lib").rglob("*.py")))
    quoted = re.findall(r'\| "(.+?)" \|', section(read("docs/TROUBLESHOOTING.md"), "Errors by code"))
    assert len(quoted) > 10 and [text for text in quoted if text not in source] == []


@pytest.mark.parametrize("name", ["metrics.json", "verdict.json", "config.lock.json", "stages.json", "manifest.json"])
def test_every_field_of_the_kept_run_is_described(name):
    run = ROOT / "outputs" / "reference" / "bert"
    text = section(read("docs/ICD.md"), name)
    described = {field for row in rows(text) for field in names(row[0])} or set(spans(text))
    files = sorted(run.glob(f"*/{name}")) or [run / name]
    for file in files:
        assert set(json.loads(file.read_text())) <= described, file
    if name == "stages.json":
        records = json.loads(files[0].read_text())["stages"].values()
        assert set().union(*records) <= described


def test_a_line_of_the_log_is_as_described():
    fields = {names(row[0])[0]: row[1] for row in rows(section(read("docs/ICD.md"), "run.log"))}
    kinds = {"string": str, "boolean": bool, "object": dict}
    for line in (ROOT / "outputs" / "reference" / "bert" / "run.log").read_text().splitlines():
        entry = json.loads(line)
        assert list(entry) == list(fields)
        assert all(type(entry[key]) is kinds[kind] for key, kind in fields.items())


def test_the_cost_page_has_the_defaults_and_the_example_of_the_code():
    text = read("docs/COST_SPEC.md")
    library = {f"cost.{key}": value for key, value in vars(icd.CostConfig()).items()}
    scenario = {f"cost.{key}": value for key, value in CostOptions()}
    stated = {names(row[0])[0]: (float(row[2]), float(row[3])) for row in rows(section(text, "Defaults"))}
    assert stated == {key: (library[key], scenario[key]) for key in library}
    example = FENCE.findall(section(text, "An example by hand"))[0]
    found = {}
    exec(compile(example, "COST_SPEC.md", "exec"), found)
    for name in ("before", "after"):
        told = re.search(rf"{name} = .*# C (\S+), Q (\S+), R_align (\S+), J (\S+)", example).groups()
        report = found[name]
        assert (report.C, report.Q, report.R_align, report.J) == pytest.approx([float(Fraction(t)) for t in told])


@pytest.mark.parametrize("scenario", list_scenarios())
def test_the_gates_page_has_the_thresholds_of_the_scenario(scenario):
    loaded = load_scenario(scenario)
    table, decoder = loaded.get("workload.kind") != "model", "kv" in loaded.config
    first = 4 if table else 6 if decoder else 2
    for row in rows(section(read("docs/PRD.md"), "Gates")):
        for gate, cell in zip(("smoke", "strict"), row[first : first + 2], strict=True):
            stated = None if cell == "–" else float(cell)
            assert loaded.get(f"gates.{gate}").get(names(row[0])[0]) == stated, (scenario, gate, row[0])


def imports_of_modules() -> dict[str, set[str]]:
    """Module or package of icd_lib → what it imports of the others (`measure.statistics`), also inside functions."""
    found = defaultdict(set)
    for file in (ROOT / "icd_lib").rglob("*.py"):
        own = file.relative_to(ROOT / "icd_lib").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "icd_lib":
                inner = node.module.partition(".")[2]
                found[own] |= {inner} if inner else {alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                found[own] |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("icd_lib.")}
        found[own] = {name for name in found[own] if name.split(".")[0] != own}
    return found


def test_nothing_imports_what_the_architecture_forbids():
    imported = imports_of_modules()
    for modules, never, exceptions in rows(section(read("docs/SAS.md"), "Who may import whom")):
        allowed = names(never) if "anything but" in never else []
        for module in names(modules):
            others = {name: name.split(".")[0] for name in imported[module] if name not in names(exceptions)}
            forbidden = set(others.values()) - set(allowed) if never.startswith("anything") else set(names(never))
            assert not [name for name, top in others.items() if top in forbidden], module
            assert set(names(exceptions)) <= imported[module], f"{module} needs no such exception"


def test_every_module_that_a_command_names_does_something_when_it_is_run():
    pages = [ROOT / "Makefile", ROOT / "binder" / "postBuild", ROOT / "Dockerfile", *PAGES]
    texts = [page.read_text(encoding="utf-8") for page in pages] + [step.command for step in STEPS]
    named = {name for text in texts for name in re.findall(r"-m (icd_lib[\w.]*)", text)}
    assert {"icd_lib.verify", "icd_lib.validate", "icd_lib.packaging"} <= named
    for name in named:
        path = ROOT / name.replace(".", "/")
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        text = file.read_text(encoding="utf-8")
        assert file.name == "__main__.py" or 'if __name__ == "__main__":' in text, f"python -m {name} would do nothing"


def test_no_two_rooms_import_each_other():
    arrows = {room: {name.split(".")[0] for name in others} for room, others in imports_of_modules().items()}
    reached = {room: set(others) for room, others in arrows.items()}
    for _ in arrows:  # as long as the longest path
        for others in reached.values():
            others |= {further for room in others for further in reached.get(room, ())}
    assert not [room for room, others in reached.items() if room in others]


def test_the_entrance_is_small():
    assert len(list((ROOT / "icd_lib").glob("*.py"))) < 12


def test_the_architecture_page_names_every_module():
    table = section(read("docs/SAS.md"), "Modules").split("Inside the larger packages")[0]
    listed = {name for row in rows(table) for name in names(row[0])}
    found = [path for path in (ROOT / "icd_lib").iterdir() if path.is_dir() or path.suffix == ".py"]
    there = {path.stem for path in found if not path.name.startswith(("_", "."))}
    assert listed == there, listed ^ there


def test_the_table_of_families_is_the_registry():
    models, shapes = [], defaultdict(set)
    for row in rows(section(read("docs/SAS.md"), "Families of models")):
        if len(row) == 2:
            shapes[names(row[1])[0]] |= set(names(row[0]))
        else:
            models.append([names(row[0])[0], row[1], *map(names, row[2:6]), row[6] == "yes", row[7] == "yes"])
    assert shapes == {name: set(shape_names(name)) for name in FAMILIES.own}
    assert models == [
        [
            name,
            row.label,
            list(row.model_types),
            list(row.kinds),
            [row.judge],
            [row.default.name],
            row.make_uniform is not None,
            row.no_onnx is None,
        ]
        for name in FAMILIES.own
        for row in [FAMILIES[name]]
    ]


def test_the_architecture_page_has_the_runtimes_of_the_table():
    stated = [
        [*names(row[0]), row[1], row[2], row[3] == "yes", row[4] == "yes", names(row[5])]
        for row in rows(section(read("docs/SAS.md"), "Runtimes"))
    ]
    expected = [
        [name, row.label, row.precision, row.rounds, row.from_onnx, list(row.needs)]
        for name in RUNTIMES.own
        for row in [RUNTIMES[name]]
    ]
    assert stated == expected


def test_no_room_but_their_own_names_a_runtime():
    """Except the one that is a word; where it is a package: whose version a run notes, which runs an exported file; and
    as the default of a public function."""
    named = re.compile("|".join(f'"{name}"' for name in OWN if name != REFERENCE))
    files = [file for file in (ROOT / "icd_lib").rglob("*.py") if file.parent.name not in ("runtimes", "decoding")]
    found = [str(file.relative_to(ROOT)) for file in files if named.search(file.read_text(encoding="utf-8"))]
    allowed = ["icd_lib/deploy/decoder.py", "icd_lib/deploy/export.py", "icd_lib/measure/environment.py"]
    assert sorted(found) == [*allowed, "icd_lib/models/export.py"]


@pytest.mark.parametrize("column", [("bert", 2), ("bert_domain", 3)])
def test_the_data_page_has_the_domains_and_the_groups_of_the_scenarios(column):
    text, (scenario, place) = read("docs/DATA.md"), column
    described = {name for row in rows(section(text, "Where it comes from")) for name in names(row[0])}
    assert described == set(DOMAINS)
    for row in rows(section(text, "Three groups")):
        listed = [] if row[place].startswith("–") else row[place].split(", ")
        assert listed == load_scenario(scenario).get(names(row[0])[0]), (scenario, row[0])
