"""The pages of a sweep, from its folder alone: `python -m icd_lib.sweeps.report FOLDER` writes them again."""

import sys
from collections.abc import Callable
from pathlib import Path

from icd_lib.experiment.arms import MODES, RESULT
from icd_lib.report.picture import Picture
from icd_lib.report.table import Table
from icd_lib.scrub.text import scrub_html
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.sweeps.effects import Effect, arm_effects, main_effects
from icd_lib.sweeps.figures import effects_picture, frontier_picture
from icd_lib.sweeps.interactions import Interaction, interactions
from icd_lib.sweeps.page import NOTEBOOK, effects_table, interactions_table, sweep_page
from icd_lib.sweeps.result import COSTS, SweepResult
from icd_lib.sweeps.rows import sweep_csv

EFFECTS = "effects.json"


def effects_of(result: SweepResult) -> list[Effect]:
    """Main effects of the factors on iterative, then iterative against each other arm that any point has."""
    rows, there = [row for row in result.rows if row.arm == RESULT], {row.arm for row in result.rows}
    arms = [arm_effects(result.rows, RESULT, arm) for arm in MODES if arm != RESULT and arm in there] if rows else []
    return main_effects(rows, result.planned.factors) + arms


def interactions_of(result: SweepResult) -> list[Interaction]:
    """Interactions of every pair of factors on iterative."""
    return interactions([row for row in result.rows if row.arm == RESULT], result.planned.factors)


def effects_record(effects: list[Effect], found: list[Interaction]) -> dict:
    """What effects.json holds: every effect and interaction by its words, with its figures."""

    def figures(item: Effect | Interaction) -> dict:
        return {"latency": item.latency, "quality_drop_pp": item.quality_drop_pp, "size": item.size}

    def words(one: Interaction) -> str:
        return f"{one.factor}: {one.level} vs {one.first}, at {one.other}: {one.other_level} not {one.other_first}"

    return {
        "main": {f"{one.factor}: {one.level} vs {one.against}": figures(one) for one in effects},
        "interactions": {words(one): figures(one) for one in found},
    }


def run_stage(folder: str | Path, progress: Callable[[str], None] = print) -> dict:
    """Write index.html, report.csv, effects.json and figures/*.png; returns what was drawn, by name, and "files"."""
    result = SweepResult.load(folder)
    effects, quick = effects_of(result), result.planned.quick
    drawn = [frontier_picture(result, cost, quick) for cost in COSTS]
    drawn.append(effects_picture(effects, quick))
    files = []
    for picture in drawn:
        if isinstance(picture, Picture):
            files.append(f"figures/{picture.name}.png")
            atomic_write(result.dir / files[-1], picture.png)
    atomic_write(result.dir / "report.csv", sweep_csv(result))
    found = interactions_of(result)
    atomic_write(result.dir / EFFECTS, to_json(effects_record(effects, found)))
    tables: tuple[Table, Table] = effects_table(effects), interactions_table(found)
    # Under papermill the notebook that calls this appears only after it has ended: it is linked already now.
    text = sweep_page(result, drawn, list(tables), (f"{NOTEBOOK}.html", f"{NOTEBOOK}.ipynb", "report.csv"))
    atomic_write(result.dir / "index.html", scrub_html(text))
    progress(f"{len(files)} figures, report.csv, {EFFECTS} and index.html written")
    told: dict = {"result": result, "pictures": drawn, "effects": tables[0], "interactions": tables[1]}
    return told | {"files": [*files, "report.csv", EFFECTS, "index.html"]}


if __name__ == "__main__":
    run_stage(Path(sys.argv[1]))
