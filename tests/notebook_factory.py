"""Small real notebooks for the pipeline's tests: a few cells each, the six names of the project's own."""

from pathlib import Path

import nbformat

PARAMETERS = 'scenario = "bert"\noverrides = []\nout = "outputs"\nquick = False\nseed = None'
OPEN = (
    "from icd_lib.run.artifacts import open_run\n"
    "run = open_run(scenario, overrides, out=out, quick=quick, seed=seed{mode})\n"
    'print("opened", run.scenario.sha256[:8], flush=True)'
)


def verdict_body(smoke: str = "partial", strict: str = "fail") -> str:
    """Code that writes a verdict of nothing but its gates."""
    gates = {
        gate: {"status": status, "checks": {}, "reasons": {}} for gate, status in (("smoke", smoke), ("strict", strict))
    }
    unknown = {"reason": "a stand-in measured nothing"}
    return f'run.write_json("verdict.json", {gates | {"cost": unknown, "determinism": unknown}!r})'


BODIES = {
    "00_setup_check": 'run.write_json("setup/setup.json", {"model": {}, "badges": [], "environment": {}})',
    "01_build_graph": 'run.write_json("graph/w.meta.json", {"rows": {"seed": run.scenario.get("seed")}})',
    "02_solve": 'run.write_json(f"{mode}/solve.json", {"mode": mode, **run.read_json("graph/w.meta.json")})',
    "03_measure": 'run.write_json("measure/samples.json", [p.parent.name for p in run.dir.glob("*/solve.json")])',
    "04_validate": verdict_body(),
    "05_report": 'run.read_json("manifest.json")["files"]\nrun.path("index.html").write_text("<title>index</title>")',
}


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook of a parameters cell and the given code cells."""
    v4 = nbformat.v4
    first = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(f"# {path.stem}"), first, *map(v4.new_code_cell, cells)])
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"  # equal text must be an equal file
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_project(folder: Path, **bodies: str) -> Path:
    """All six notebooks; `bodies` replace single ones by the name after the number, e.g. `solve="1 / 0"`."""
    for name, body in BODIES.items():
        solve = name == "02_solve"
        write_notebook(
            folder / f"{name}.ipynb",
            OPEN.format(mode=", mode=mode" if solve else ""),
            bodies.get(name.partition("_")[2], body),
            parameters=PARAMETERS + ('\nmode = "iterative"' if solve else ""),
        )
    return folder
