"""docs/extend: every example runs as it stands on its page, and the index links every page."""

import re
from pathlib import Path

import pytest

import run_all
from icd_lib.run.scenario import load_scenario

FOLDER = Path(__file__).parents[2] / "docs" / "extend"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (FOLDER / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_index_links_every_page():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    pages = [path.name for path in FOLDER.glob("*.md") if path.name != "README.md"]
    assert pages and all(f"]({name})" in index for name in pages)


@pytest.fixture
def films(tmp_path, monkeypatch):
    """The scenario of the page, saved under the name that the page gives it."""
    monkeypatch.chdir(tmp_path)
    (text,) = blocks("scenario.md", "yaml")
    (tmp_path / "films.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "films.yaml"


def test_the_scenario_of_the_page_is_read_and_planned(films, capsys):
    scenario = load_scenario(films)
    assert scenario.name == "films" and scenario.get("data.seen") == ["films"]
    quick = load_scenario(films, quick=True)
    assert quick.get("measure.repeats") == 6 and scenario.get("measure.repeats") == 40
    assert run_all.main(["--scenario", "films.yaml", "--quick", "--dry-run", "--out", str(films.parent / "out")]) == 0
    assert "05_report" in capsys.readouterr().out and not (films.parent / "out").exists()


def test_the_scenarios_python_prints_what_the_page_says(films, capsys):
    (example,) = blocks("scenario.md", "python")
    exec(compile(example, "scenario.md", "exec"), {})
    (told,) = re.findall(r"^prints `(.*?)`", (FOLDER / "scenario.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert capsys.readouterr().out.strip() == told


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("arm.md", "toy_arm"),
        ("arm.md", "toy_metric"),
        ("family.md", "toy_family"),
        ("transform.md", "toy_transform"),
    ],
)
def test_the_module_of_the_page_is_the_one_that_is_run(page, module):
    """`tests/extend/test_whole_run.py` takes these modules through all six notebooks."""
    stated = (FOLDER / page).read_text(encoding="utf-8")
    start, end = f"<!-- {module}: start -->\n```python\n", f"```\n<!-- {module}: end -->"
    given = (FOLDER.parents[1] / "tests" / "extend" / f"{module}.py").read_text(encoding="utf-8")
    assert stated.partition(start)[2].partition(end)[0] == given
