"""A model as a workload: its arms are models, run on real text, judged by what they lose of its quality."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn

from icd_lib.axes.verify import verify_axes
from icd_lib.codesign.evidence import build_graphs
from icd_lib.codesign.inputs import Inputs
from icd_lib.experiment.arms import DENSE, MODEL, RESULT
from icd_lib.experiment.verdict import other_verdicts
from icd_lib.measure.peak import PeakProcess
from icd_lib.metric import Figure
from icd_lib.records.measured import Measured
from icd_lib.run.shared import once_in_sweep
from icd_lib.transforms.observed import Observed
from icd_lib.version import sources_sha256
from icd_lib.workloads.base import Timed, Workload
from icd_lib.workloads.model.arms import Saved, controls, dense_again, load_saved, solved_modes
from icd_lib.workloads.model.attribution import attribute_gain
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context
from icd_lib.workloads.model.counters import device_of
from icd_lib.workloads.model.deployment import deployment_steps
from icd_lib.workloads.model.graph import learn, write_graphs
from icd_lib.workloads.model.measure import measure_runtimes, measured, metrics, start_peaks, timed
from icd_lib.workloads.model.setup import describe
from icd_lib.workloads.model.solve import make_inputs, moments_key, solve_mode
from icd_lib.workloads.model.validate import claim, evidence


class ModelWorkload(Workload):
    """`context` has the model, its text and the judge."""

    lays_out, item = MODEL, "token"

    @cached_property
    def context(self) -> Context:
        return make_context(self.run, self.progress)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    @property
    def device(self) -> str:
        return device_of(self.context.target.row)

    def describe(self) -> dict:
        return describe(self.context)

    @cached_property
    def _inputs(self) -> Inputs:
        return make_inputs(self.context)

    @cached_property
    def _observed(self) -> Observed:
        return self._inputs.observe()

    @cached_property
    def _graphs(self) -> dict:
        return build_graphs(self._observed, self._inputs.settings.nnz_cap)

    def certify(self) -> list[dict]:
        context = self.context

        def verified() -> dict:
            axes, example = self._observed.adapter.axes(), context.device.place(context.example)
            return {"axes": verify_axes(context.dense, axes, example, context.get("seed"))}

        key = moments_key(context) | {"sources": sources_sha256()}
        found, known = once_in_sweep(self.run, "certificates", key, verified)
        self.progress(f"{len(found['axes'])} axes verified in float64{' by another point of this sweep' * known}")
        return found["axes"]

    def write_graphs(self) -> dict:
        return write_graphs(self.run, self._graphs, self._observed)

    def learn(self) -> dict:
        return learn(self.context, self._inputs, self._observed, self._graphs)

    def solve(self, mode: str) -> dict:
        return solve_mode(self.context, mode)

    @cached_property
    def _saved(self) -> dict[str, Saved]:
        return {mode: load_saved(self.run, mode) for mode in solved_modes(self.run)}

    @cached_property
    def _peaks(self) -> PeakProcess:
        return start_peaks(self.context)

    def compared(self) -> dict[str, nn.Module]:
        _ = self._peaks  # it imports while the models are loaded
        return {DENSE: self.context.model} | {mode: item.model for mode, item in self._saved.items()}

    def controls(self) -> dict[str, nn.Module]:
        if RESULT not in self._saved:
            return {"dense_again": dense_again(self.context)}
        return controls(self.context, self._saved[RESULT])

    def timed(self, arms: dict[str, nn.Module]) -> Iterator[Timed]:
        self._peaks.wait()
        return timed(self.context, arms)

    def measured(self, compared: dict[str, nn.Module], controls: dict[str, nn.Module], latency: dict) -> dict:
        result = self._saved.get(RESULT)
        report = measured(self.context, compared, controls, self._peaks)
        if result is None:
            return report | {"attribution": None}
        gain = attribute_gain(self.context, result, latency["shapes"])
        steps = deployment_steps(self.context, result, controls, latency["shapes"], gain)
        return report | {"attribution": gain} | ({} if steps is None else {"deployment": steps})

    def metrics(self, arm: str, report: Measured) -> dict:
        return metrics(arm, report)

    def ladder(self, compared: dict[str, nn.Module]) -> dict | None:
        ladder = measure_runtimes(self.context, compared) if self.get("measure.ladder") else None
        if not self.run.scenario.config.get("bridge", {}).get("enable"):
            return ladder
        from icd_lib.workloads.model.bridge import measure_bridge  # loads what only the compilers need

        return measure_bridge(self.context, compared, ladder)

    def generation(self, compared: dict[str, nn.Module]) -> dict | None:
        if "kv" not in self.run.scenario.config:
            return None
        from icd_lib.workloads.model.generation import measure_generation  # loads what only decoders need

        return measure_generation(self.context, compared)

    def decoding(self, compared: dict[str, nn.Module], controls: dict[str, nn.Module]) -> dict | None:
        if "decode" not in self.run.scenario.config:
            return None
        from icd_lib.workloads.model.decode import measure_decode  # loads what only such models need

        return measure_decode(self.context, compared, controls)

    def claim(self, sections: dict[str, dict], report: Measured) -> None:
        claim(sections, report)

    def evidence(self, report: Measured) -> dict:
        return evidence(self.context, report)

    def closing(self, sections: dict[str, dict], judged: dict[str, Figure]) -> dict:
        gates = self.get("gates")
        return {"other_comparisons": other_verdicts(gates, sections, gates["comparison"])}
