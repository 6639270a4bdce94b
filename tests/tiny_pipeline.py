"""A small project's notebooks, executed by the pipeline."""

import json

from notebook_factory import write_project

from icd_lib.execute.pipeline import plan_stages, run_pipeline, start_run
from icd_lib.run.records import FILE
from icd_lib.run.scenario import load_scenario


class Pipeline:
    """A small project in a folder, run with collected output."""

    def __init__(self, folder, **bodies):
        self.notebooks, self.out = write_project(folder / "notebooks", **bodies), folder / "out"
        self.lines: list[str] = []

    def go(self, overrides=(), resume=False, measure=True, **kwargs):
        self.lines.clear()
        run, _ = start_run(load_scenario("bert", overrides, quick=True), self.out, mode="linear", resume=resume)
        run_pipeline(run, plan_stages("linear", measure), notebooks=self.notebooks, echo=self.lines.append, **kwargs)
        return run

    @property
    def dir(self):
        return self.out / "bert"

    def ran(self):
        return [line.split()[1] for line in self.lines if " done in " in line]

    def records(self):
        return json.loads((self.dir / FILE).read_text())["stages"]

    def log(self):
        return [json.loads(line) for line in (self.dir / "run.log").read_text().splitlines()]
