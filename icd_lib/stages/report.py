"""Stage 05: figures, report.html, report.csv and the index page, from the run's files alone.

`python -m icd_lib.stages.report FOLDER` writes the index of a run that did not finish.
"""

import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

from icd_lib.experiment.arms import MODEL
from icd_lib.report.full_report import draw_all, report_page
from icd_lib.report.headline import headline
from icd_lib.report.index import REPORT_FILES, index_page
from icd_lib.report.picture import Picture
from icd_lib.report.results import Results
from icd_lib.report.rows import report_csv
from icd_lib.run.artifacts import Run
from icd_lib.scrub.text import scrub_html, scrub_text
from icd_lib.storage.atomic import atomic_write
from icd_lib.transforms import further_transforms
from icd_lib.workloads import kind_of

OWN_NOTEBOOK = ("05_report.html", "05_report.ipynb")


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write best/, figures/*.png, report.html, report.csv and index.html; returns {"headline", "files"}."""
    if kind_of(run).lays_out == MODEL:
        from icd_lib.deploy.best import export_best  # a table's run imports no torch

        export_best(run, progress)
    results = Results.load(run.dir)
    drawn = draw_all(results, further_panels(results))
    pictures = save_pictures(run, drawn)
    progress(f"{len(pictures)} figures drawn")
    atomic_write(run.path("report.html"), scrub_html(report_page(results, drawn)))
    atomic_write(run.path("report.csv"), scrub_text(report_csv(results)))
    # Under papermill this stage's own notebook appears only after it has ended: link it already now.
    running = results.stages.get("05_report", {}).get("status") == "running"
    atomic_write(run.path("index.html"), scrub_html(index_page(results, drawn, OWN_NOTEBOOK if running else ())))
    progress("report and index written")
    return {"headline": headline(results), "files": [*pictures, *REPORT_FILES, "index.html"]}


def further_panels(results: Results) -> list[Callable]:
    """What draws the figures of the run's transforms beside sparsity, whose figures every report has."""
    return [pkgutil.resolve_name(place) for row in further_transforms(results.config) for place in row.panels]


def save_pictures(run: Run, drawn: dict) -> list[str]:
    """Write every drawn figure; returns their addresses relative to the run."""
    rels = {f"figures/{item.name}.png": item for item in drawn.values() if isinstance(item, Picture)}
    for rel, picture in rels.items():
        atomic_write(run.path(rel), picture.png)
    return list(rels)


def write_index(run: Run) -> None:
    """Write index.html for as much of the run as exists, e.g. after a stage has failed."""
    results = Results.load(run.dir)
    drawn = draw_all(results, further_panels(results))
    save_pictures(run, drawn)
    atomic_write(run.path("index.html"), scrub_html(index_page(results, drawn)))


if __name__ == "__main__":
    write_index(Run(None, Path(sys.argv[1])))
