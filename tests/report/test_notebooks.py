"""The notebooks: thin, stripped, those of a run parameterised alike; the last of a run is executed for real."""

import ast
import json

import nbformat
import pytest
from report_factory import write_run

from icd_lib.execute.notebook import execute
from icd_lib.execute.pipeline import notebooks_folder
from icd_lib.paths import project_root
from icd_lib.run.artifacts import open_run

NAMES = ["00_setup_check", "01_build_graph", "02_solve", "03_measure", "04_validate", "05_report"]
SWEEP = "06_sweep"
PARAMETERS = {"scenario": "bert", "overrides": [], "out": "outputs", "quick": False, "seed": None}
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try, ast.With, ast.BinOp)


def read(name):
    return nbformat.read(notebooks_folder() / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", [*NAMES, SWEEP])
def test_notebook_is_thin_stripped_and_parameterised(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    tagged = [cell for cell in code if cell.metadata.get("tags") == ["parameters"]]
    assert tagged == code[:1]
    found = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body}
    wanted = {"folder": "outputs/sweep"} if name == SWEEP else PARAMETERS
    assert found == wanted | ({"mode": "iterative"} if name == "02_solve" else {})
    for cell in code[1:]:
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)]


@pytest.mark.notebooks
def test_report_notebook_runs_on_a_finished_run(tmp_path):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    target = run.path("05_report.ipynb")
    source, given = notebooks_folder() / "05_report.ipynb", PARAMETERS | {"out": str(tmp_path)}
    lines = []
    execute(source, target, given, cwd=project_root(), timeout_s=120, echo=lines.append)
    assert "report and index written" in lines
    assert (run.dir / "index.html").is_file()
    outputs = [out for cell in json.loads(target.read_text())["cells"] for out in cell.get("outputs", [])]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert pictures and pictures[0]["metadata"]["image/png"]["alt"].startswith("Quality lost")
    assert 'alt="Quality lost' in target.with_suffix(".html").read_text()
