"""Names, paths, overrides, printed lines and errors are data: never code in a notebook, never markup in a page."""

import ast
import json
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from command_line import command
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_run import SMALL
from notebook_factory import PARAMETERS, write_notebook, write_project
from papermill.parameterize import parameterize_notebook
from report_factory import write_run

import run_all
from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.execute.html import to_html
from icd_lib.execute.notebook import execute
from icd_lib.paths import project_root
from icd_lib.release.verify import check_log
from icd_lib.report.full_report import report_page
from icd_lib.report.headline import headline
from icd_lib.report.html import link, page
from icd_lib.report.index import index_page
from icd_lib.report.results import Results
from icd_lib.report.rows import report_csv
from icd_lib.report.table import Badges, Missing, Note, Table
from icd_lib.run.artifacts import Run, open_run
from icd_lib.run.configuration import Scenario
from icd_lib.run.scenario import load_scenario
from icd_lib.scrub.files import scrub_file
from icd_lib.scrub.text import scrub_html, scrub_strings

pytestmark = pytest.mark.wide

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--",
    "]]>",
    "</title></style></textarea><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&lt;home&gt;<path><data>",
    '"\nimport os\nos.system("true")\n"',
    '"""\n__import__("os")._exit(3)\n"""',
    "'; __import__('os')._exit(3) #",
    "\\",
    '\\"',
    "\\\\'",
    "\\N{BULLET}",
    "\\x41",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{scenario}",
    "${HOME}",
    "$(true)",
    "`true`",
    "%s %(x)s",
    "\0",
    "\r\nx",
    "\u2028\u2029\x85\x0b\x1c",
    "\ud800",
    "é한\U0001f600",
    "# Parameters",
    "\x1b[31mred\x1b]8;;x\x07",
]
EVERYTHING = " ".join(HOSTILE)


class Inert(HTMLParser):
    """A page's elements; anything in it that could act is a finding."""

    ACTIVE = {"script", "iframe", "object", "embed", "form", "input", "button", "base", "link", "svg", "audio", "video"}

    def __init__(self, text: str):
        super().__init__()
        self.findings: list[str] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag in self.ACTIVE or tag in ("path", "data", "home", "tmp"):
            self.findings.append(f"<{tag}>")
        for name, value in attrs:
            value = (value or "").strip().lower()
            foreign = name in ("src", "href") and value.startswith(("javascript:", "x", "http", "vbscript:"))
            if name.startswith("on") or foreign or (name == "http-equiv"):
                self.findings.append(f"<{tag} {name}={value[:40]!r}>")

    def handle_data(self, data):
        self.shown.append(data)


def check_inert(text: str) -> str:
    """What a reader of the page sees; fails if the page holds anything that acts."""
    found = Inert(text)
    assert not found.findings, found.findings
    return " ".join(found.shown)


@pytest.mark.parametrize(
    "text",
    ["<script>1</script>", "<p onclick=x>", "<a href=' JavaScript:x'>", "<svg/onload=x>", "<img src=x>", "<home>"],
)
def test_the_check_of_a_page_notices_what_acts(text):
    with pytest.raises(AssertionError):
        check_inert(f"<p>before</p>{text}")


# Notebooks ----------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


def assigned(source: str) -> dict:
    """Name → value of a cell that only assigns literals; anything else in it fails."""
    found = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, ast.dump(node)
        found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def injected(parameters: dict) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]})])
    notebook.metadata["papermill"] = {}
    made = parameterize_notebook(notebook, parameters, kernel_name="python3", language="python")
    return made.cells[1].source


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.fixed_dictionaries({name: values for name in ("scenario", "overrides", "out", "quick", "seed", "mode")}))
def test_a_parameters_cell_assigns_what_was_given_and_does_nothing_else(parameters):
    assert assigned(injected(parameters)) == parameters


@pytest.mark.parametrize("text", HOSTILE)
def test_every_hostile_text_comes_back_as_it_was(text):
    parameters = {"scenario": text, "overrides": [text, f"model.checkpoint={text}"], "out": text}
    assert assigned(injected(parameters)) == parameters


@pytest.mark.notebooks
def test_an_executed_notebook_gets_the_texts_and_shows_them_as_text(tmp_path):
    texts = [text for text in HOSTILE if text != "\ud800"]
    everything = " ".join(texts)
    given = {"scenario": everything, "overrides": texts, "out": "/tmp/{x}/{{scenario}}", "quick": True, "seed": 3}
    source = write_notebook(
        tmp_path / "n.ipynb",
        "import json\nprint(json.dumps([scenario, overrides, out, quick, seed]))",
        "print(scenario)\nprint(*overrides)",
        "overrides",
        "from icd_lib.errors import ConfigError\nraise ConfigError(scenario)",
        parameters=PARAMETERS,
    )
    target = tmp_path / "out {overrides} <img src=x onerror=alert(1)>" / "n.ipynb"
    lines = []
    with pytest.raises(Exception, match="alert") as caught:
        execute(source, target, given, cwd=project_root(), timeout_s=60, echo=lines.append)
    assert type(caught.value).__name__ == "ConfigError"
    assert json.loads(lines[0]) == [everything, texts, given["out"], True, 3]
    cells = nbformat.read(target, 4).cells
    (cell,) = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert assigned(cell.source).keys() == given.keys()
    shown = check_inert(target.with_suffix(".html").read_text())
    assert shown.count("alert(1)") > 10 and "{{ 7 * 7 }}" in shown


def test_a_parameter_that_is_no_text_is_refused_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "n.ipynb", parameters=PARAMETERS)
    for parameters in ({"out": "x\udcff"}, {"overrides": ["a", "\ud800"]}):
        with pytest.raises(ConfigError, match="no text"):
            execute(source, tmp_path / "out" / "n.ipynb", parameters, cwd=project_root(), timeout_s=60)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_notebook_page_shows_outputs_as_text(text):
    v4 = nbformat.v4
    text = text.encode("utf-8", "replace").decode()
    cell = v4.new_code_cell(f"x = {text!r}")
    cell.outputs = [
        v4.new_output("stream", name="stdout", text=text),
        v4.new_output("stream", name="stderr", text=text),
        v4.new_output("execute_result", data={"text/plain": text}),
        v4.new_output("display_data", data={"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": text}}),
        v4.new_output("error", ename=text, evalue=text, traceback=[text]),
    ]
    check_inert(to_html(v4.new_notebook(cells=[cell]), text))


# Pages --------------------------------------------------------------------------------------------------------------

# Words that say what something is: the pages look them up. All other texts of a run come from somewhere.
LOOKED_UP = set("kind code status axis what winner smoke strict weights baseline unit sha256 judging".split())


def made_hostile(value, text: str, key: str = ""):
    """Every free text in a JSON value with `text` after it."""
    if isinstance(value, dict):
        return {name: made_hostile(item, text, name) for name, item in value.items()}
    if isinstance(value, list):
        return [made_hostile(item, text, key) for item in value]
    return value + text if isinstance(value, str) and key not in LOOKED_UP | {"checks", "bounds"} else value


def hostile_run(folder, text: str) -> Results:
    """A made-up run in which every free text is hostile, its name and the names in its records too."""
    write_run(folder, quick=True)
    for path in folder.rglob("*.json"):
        value = json.loads(path.read_text())
        checks = {gate: value[gate] for gate in ("smoke", "strict")} if path.name == "verdict.json" else {}
        mode = {"mode": value["mode"]} if path.name == "solve.json" else {}
        hostile = made_hostile(value, text)
        if isinstance(hostile, dict):
            hostile |= checks | mode
        path.write_text(json.dumps(hostile))
    stages = {f"03_measure{text}": {"status": "failed"}, "01_build_graph": {"status": "interrupted"}}
    (folder / "stages.json").write_text(json.dumps({"stages": stages}))
    return Results.load(folder)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("\0", "\ud800")])
def test_index_and_report_show_every_text_of_a_run_as_text(tmp_path, text):
    results = hostile_run(tmp_path, text)
    for made in (index_page(results, {}), report_page(results, {})):
        check_inert(made)
        check_inert(scrub_html(made))
    plain = check_inert(report_page(results, {}))
    assert " ".join(text.split()) in " ".join(plain.split()) or text.isspace()
    assert headline(results) and report_csv(results)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_parts_of_pages_escape_what_they_are_given(text):
    text = text.replace("\ud800", "\udcff")  # a byte of a file's name that is no text
    made = [
        page(text, "<p>body</p>", Badges([text])),
        link(text, text),
        Table(text, [text], [[text, text]], text).to_html(),
        Missing(text, text).to_html(),
        Note(text, text, text).to_html(),
    ]
    for item in made:
        check_inert(item)
        check_inert(scrub_html(item))


@pytest.mark.parametrize(
    "text", ["&lt;path&gt;", "&lt;data&gt; x", "&lt;home&gt;/x", "&lt;img&gt;", "&amp;lt;path&amp;gt;/"]
)
def test_scrubbing_a_page_never_turns_text_into_an_element(text):
    check_inert(scrub_html(f"<p>{text}</p>"))


@pytest.mark.notebooks
def test_a_failed_run_shows_its_error_as_text_and_logs_it_in_one_line(tmp_path):
    """Through the command line: a stage prints and raises what is hostile, and so does its own scenario's name."""
    body = f"text = {EVERYTHING.encode('utf-8', 'replace').decode()!r}\nprint(text)\nraise ValueError(text)"
    notebooks = write_project(tmp_path / "notebooks", setup_check=body)
    out = tmp_path / "{{out}} <img src=x onerror=alert(1)> 'quoted\" $(true)"
    done = subprocess.run(
        command(notebooks, "--no-measure", "--mode", "linear", "--out", out),
        capture_output=True,
        text=True,
        cwd=project_root(),
    )
    assert done.returncode == 9, done.stderr
    folder = out / "bert"
    for rel in ("00_setup_check.html", "index.html"):
        check_inert((folder / rel).read_text())
    *lines, last = (folder / "run.log").read_text().split("\n")
    entries = [json.loads(line) for line in lines]
    assert last == "" and [entry["stage"] for entry in entries] == ["00_setup_check"]
    assert "alert(1)" in entries[0]["meta"]["message"]
    # The command that the message gives runs as it stands.
    again = shlex.split(done.stderr.partition("when it is cured: python run_all.py ")[2])
    args = run_all.build_parser().parse_args(again)
    assert args.out == str(out) and args.resume


class OneFile:
    """As much of a package as the check of a log needs."""

    def __init__(self, data: bytes):
        self.data = data

    def read(self, name: str) -> bytes:
        return self.data


def test_a_log_line_with_line_separators_in_it_is_one_line_for_every_reader(tmp_path):
    run = open_run("bert", out=tmp_path)
    run.log("02_solve[linear]", message="a\u2028b\x85c\x0bd\x1ce\nf")
    run.log("03_measure", message="\ud800 and \0")
    data = (run.dir / "run.log").read_bytes()
    assert data.count(b"\n") == 2
    check_log(OneFile(data), "run.log")
    cleaned = scrub_file(
        "run.log", data + b'{"ts": "x", "stage": "s", "ok": true, "meta": {"m": "a@b.org \xe2\x80\xa8"}}\n'
    )
    check_log(OneFile(cleaned), "run.log")
    assert b"a@b.org" not in cleaned


@pytest.mark.parametrize("text", [*HOSTILE, "-x", "--resume", "a b"])
def test_the_command_that_makes_a_run_again_means_the_same_words(tmp_path, text):
    scenario = Scenario("mine", {}, "0", f"{text}.yaml", True, (f"model.checkpoint={text}",), 3)
    words = shlex.split(Run(scenario, tmp_path, "linear", text).command())
    args = run_all.build_parser().parse_args(words[2:])
    assert (args.scenario, args.override, args.out) == (f"{text}.yaml", [f"model.checkpoint={text}"], text)
    assert args.quick and args.seed == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_checkpoint_name_reaches_the_lock_and_comes_back(tmp_path, text):
    try:
        scenario = load_scenario("bert", [f"model.checkpoint={text}"])
    except Exception as error:
        assert type(error).__name__ == "ConfigError", error
        return
    assert scenario.get("model.checkpoint") == text
    run = open_run(scenario, out=tmp_path)
    lock = run.read_json("config.lock.json")
    assert lock["config"]["model"]["checkpoint"] == scrub_strings(text)


@pytest.mark.slow
@pytest.mark.notebooks
def test_a_whole_run_on_a_hostile_trace_leaves_inert_pages(tmp_path, monkeypatch):
    """The real notebooks: a trace, a folder and a scenario with names that are markup, code and templates."""
    folder = tmp_path / "<svg onload=alert(1)> {{7*7}} \"'"
    folder.mkdir()
    name = "<img src=x onerror=alert(1)>'\"{{7*7}}{% raw %}.jsonl"
    events = ((t % 8 * 8 + i for i in range(4)) for t in range(400))
    lines = (json.dumps({"t": t, "ids": list(ids), "bytes": 64}) for t, ids in enumerate(events))
    (folder / name).write_text("\n".join(lines))
    options = [override for override in SMALL if not override.startswith("workload.")]
    overrides = [*options, f"graph.trace={json.dumps(str(folder / name))}"]
    scenario = folder / "mine {scenario}.yaml"
    scenario.write_text("scenario: mine\nworkload: {kind: trace}\ngates: {smoke: {}, strict: {}}\n")
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    words = [word for override in overrides for word in ("--override", override)]
    args = ["--scenario", str(scenario), "--mode", "linear", "--out", str(folder / "out"), *words]
    done = subprocess.run(
        [sys.executable, "run_all.py", *args], cwd=project_root(), capture_output=True, text=True, timeout=170
    )
    assert done.returncode in (0, 1), done.stderr
    run = folder / "out" / "mine"
    pages = sorted(run.rglob("*.html"))
    assert len(pages) == 8
    for path in pages:
        check_inert(path.read_text())
    assert "onerror=alert(1)" in check_inert((run / "report.html").read_text())
    for path in run.rglob("0*.ipynb"):
        (cell,) = [c for c in nbformat.read(path, 4).cells if "injected-parameters" in c.metadata.get("tags", [])]
        assert assigned(cell.source)["overrides"][-1].startswith("graph.trace=")


def test_a_file_name_with_markup_is_only_text_in_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="onerror"):
        Run(load_scenario("mock"), tmp_path).read_json("<img src=x onerror=alert(1)>.json")
