"""What keeping the audit trail costs: log lines, stage records with their hashes, manifests; against a run's own time.

    python benchmarks/overhead.py outputs/bert

Does again, on a copy of the run's folder, everything that the run did for its evidence, and times it.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from icd_lib.errors import IcdError
from icd_lib.run.artifacts import Run
from icd_lib.run.lock import load_lock
from icd_lib.run.manifest import write_manifest
from icd_lib.run.records import Records, snapshot

MANIFESTS_PER_RUN = 2  # before the report and at the end


def measure(folder: Path) -> dict:
    """{"run_s", "log_s", "records_s", "manifest_s", "share"} of a finished run."""
    scenario = load_lock(folder / "config.lock.json")
    elapsed = sum(record["elapsed_s"] for record in Records.load(Run(scenario, folder)).stages.values())
    entries = [json.loads(line) for line in (folder / "run.log").read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:  # the same disk
        run = Run(scenario, Path(scratch) / folder.name)
        shutil.copytree(folder, run.dir)
        records = Records.load(run)
        found = {
            "run_s": elapsed,
            "log_s": timed(lambda: [run.log(entry["stage"], entry["ok"], **entry["meta"]) for entry in entries]),
            "records_s": timed(lambda: [keep_records(run, records, name) for name in list(records.stages)]),
            "manifest_s": timed(lambda: [write_manifest(run) for _ in range(MANIFESTS_PER_RUN)]),
        }
    return found | {"share": (found["log_s"] + found["records_s"] + found["manifest_s"]) / elapsed}


def keep_records(run: Run, records: Records, name: str) -> None:
    """What surrounds a stage: its start noted, the folder looked at before and after, its outputs hashed."""
    outputs = set(records.outputs(name))
    before = {rel: state for rel, state in snapshot(run.dir).items() if rel not in outputs}
    records.save()
    records.finish(name, "done", 0.0, before, (), run.dir / "config.lock.json")


def timed(call) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    try:
        found = measure(parser.parse_args().run)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(", ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "share"))
    print(f"the audit trail took {100 * found['share']:.2f} % of the run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
