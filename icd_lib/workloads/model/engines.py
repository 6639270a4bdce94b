"""A decoder's run in other runtimes: dense as each peer has it, the result too; every OpenVINO graph is made once."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from icd_lib.decoding import DECODERS
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.grouped import exported_row
from icd_lib.decoding.judged import Judged
from icd_lib.decoding.openvino import OpenVino, OpenVinoDecoder
from icd_lib.decoding.stateful import stateful_graph
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.records.generation import EXPORTED_ARM


@dataclass(frozen=True, eq=False)
class Engines:
    """models: the compared arms; peers: rows of `DECODERS` in which dense decodes.

    exports: the result decodes beside it, once in OpenVINO, as it is left for use, and in every peer of another engine
    """

    models: Mapping[str, nn.Module]
    peers: tuple[str, ...]
    exports: bool = True
    _graphs: dict[str, object] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Arm → its row of `DECODERS`, and whose model it runs."""
        found = {name: (name, DENSE) for name in self.peers}
        if self.exports and RESULT in self.models:
            others = [name for name in self.peers if not isinstance(DECODERS[name], OpenVino)]
            found |= {f"{RESULT}_{name}": (name, RESULT) for name in others}
            found[EXPORTED_ARM] = (exported_row(self.models[RESULT]), RESULT)
        return found

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
