"""A decoder's run in other runtimes: dense as each peer has it, the result too; every OpenVINO graph is made once."""

from collections.abc import Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from torch import nn

from icd_lib.decoding import DECODERS
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.grouped import exported_rows
from icd_lib.decoding.judged import Judged
from icd_lib.decoding.openvino import OpenVino, OpenVinoDecoder
from icd_lib.decoding.stateful import stateful_graph
from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.measure.latency import measure_interleaved
from icd_lib.records.generation import EXPORTED_ARM

PROBE, STEPS, WARMUP = 8, 32, 4  # tokens of a prompt, and tokens behind it that are timed, and that are not
LEAD = 0.03  # so much faster has bf16 to be, if it is to be taken for fp32: ties go to what does not round


@dataclass(frozen=True, eq=False)
class Engines:
    """models: the compared arms; peers: rows of `DECODERS` in which dense decodes.

    exports: the result decodes beside it, once in OpenVINO, as it is left for use, and in every peer of another engine
    chosen: the row in which it is left; None: the fastest of those that its weights allow, timed when it is asked for
    """

    models: Mapping[str, nn.Module]
    peers: tuple[str, ...]
    exports: bool = True
    chosen: str | None = None
    _graphs: dict[str, object] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """The names of `rows`; no row is chosen for them."""
        return [*self._named, *([EXPORTED_ARM] if self._gives_away else [])]

    @cached_property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Arm → its row of `DECODERS`, and whose model it runs."""
        return self._named | ({EXPORTED_ARM: (self.exported, RESULT)} if self._gives_away else {})

    @property
    def _gives_away(self) -> bool:
        return self.exports and RESULT in self.models

    @property
    def _named(self) -> dict[str, tuple[str, str]]:
        """Those of `rows` whose row is the scenario's word."""
        found = {name: (name, DENSE) for name in self.peers}
        if self._gives_away:
            others = [name for name in self.peers if not isinstance(DECODERS[name], OpenVino)]
            found |= {f"{RESULT}_{name}": (name, RESULT) for name in others}
        return found

    @cached_property
    def exported(self) -> str:
        """The row in which the result is left for use; the first that its weights allow where nothing can be timed."""
        if self.chosen is not None:
            return self.chosen
        names = exported_rows(self.models[RESULT])
        if len(names) > 1:
            with suppress(ResourceError):  # the clock says why, of whichever row is named
                return self._soonest(names)
        return names[0]

    def _soonest(self, names: tuple[str, ...]) -> str:
        """The row that gives the result's next token soonest, at a batch of one; all read one graph."""
        model = self.models[RESULT].eval()
        DECODERS[names[0]].check()
        graph = self._graphs[EXPORTED_ARM] = DECODERS[names[0]].graph(model)
        with ExitStack() as held:
            calls = {}
            for name in names:
                decoder = held.enter_context(closing(DECODERS[name].prepare(model, graph=graph)))
                decoder.prefill(np.ones((1, PROBE), np.int64))
                calls[name] = partial(decoder.step, [1])
            samples = measure_interleaved(calls, repeats=STEPS, warmup=WARMUP)
        medians = {name: float(np.median(times)) for name, times in samples.items()}
        best = min(medians, key=lambda name: medians[name])
        return best if medians[best] < (1 - LEAD) * medians[names[0]] else names[0]

    @property
    def against(self) -> dict[str, tuple[str, ...]]:
        """Arm of the result → dense in the same row; what is left for use is held against dense in every peer."""
        results = {arm: name for arm, (name, whose) in self.rows.items() if whose == RESULT}
        return {arm: self.peers if arm == EXPORTED_ARM else (name,) for arm, name in results.items()}

    @cached_property
    def _traced(self):
        return stateful_graph(self.models[DENSE].eval())

    def graph(self, arm: str):
        """The graph of an arm in OpenVINO; `ResourceError` without the package, or where none can be made."""
        name, whose = self.rows[arm]
        row = DECODERS[name]
        row.check()
        if arm not in self._graphs:
            traced = self._traced if whose == DENSE else None
            self._graphs[arm] = row.graph(self.models[whose].eval(), traced=traced)
        return self._graphs[arm]

    def decoder(self, arm: str) -> Decoder:
        """The arm, ready to generate."""
        name, whose = self.rows[arm]
        row = DECODERS[name]
        if isinstance(row, OpenVino):
            return row.prepare(self.models[whose], graph=self.graph(arm))
        row.check()
        return row.prepare(self.models[whose])

    @contextmanager
    def judged(self, arm: str):
        """The arm as what judges of language models take, compiled for as long."""
        name, whose = self.rows[arm]
        request = DECODERS[name].open(self.graph(arm), last=False).create_infer_request()
        yield Judged(OpenVinoDecoder(request), self.models[whose])


def exported_in(engines: Engines) -> str | None:
    """The row in which the result is left for use; None where it is not left."""
    return engines.exported if EXPORTED_ARM in engines.rows else None
