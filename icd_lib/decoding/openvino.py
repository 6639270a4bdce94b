"""OpenVINO on the CPU with a cache inside the graph: fp32, bf16, and weights in int8 or int4 by NNCF."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from icd_lib.decoding.base import Decoder, DecodeRuntime, positions_of
from icd_lib.decoding.bytes import cache_bytes_of, state_bytes_of
from icd_lib.decoding.compress import compress_graph
from icd_lib.decoding.grouped import grouped_weights, pack_weights
from icd_lib.decoding.prompt import Prompt
from icd_lib.decoding.stateful import constant_bytes, last_token_only, stateful_graph
from icd_lib.errors import IcdError, ResourceError
from icd_lib.models.grouped import grouped_modules
from icd_lib.optional import brief, load_optional
from icd_lib.runtimes.emulation import emulated
from icd_lib.runtimes.ir import as_read

_PACKED = "OpenVINO, weights packed in the groups that they lie in, the rest as OpenVINO chooses"
_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "u8": 1, "dynamic": None}


class OpenVinoDecoder(Decoder):
    """A request of a compiled graph."""

    def __init__(self, request):
        super().__init__()
        self._request, self._tokens, self._beams = request, 0, np.zeros(0, np.int32)
        self._names = [port.get_any_name() for port in request.get_compiled_model().inputs]

    def _prefill(self, prompt: Prompt) -> np.ndarray:
        self._beams = np.arange(len(prompt.ids), dtype=np.int32)
        return self._run(prompt.ids, prompt.positions)

    def _step(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self._run(ids[:, None], positions[:, None])

    def whole(self, ids: np.ndarray, pieces: int = 2) -> np.ndarray:
        """Logits behind every token of texts (B, L), float32 (B, L, V), of a graph that was opened with last=False.

        The texts are read in so many pieces, one after the other, so that the cache takes part.
        """
        self.reset()
        self._beams = np.arange(len(ids), dtype=np.int32)
        places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        parts = zip(np.array_split(ids, pieces, axis=1), np.array_split(places, pieces, axis=1), strict=True)
        return np.concatenate([self._logits(part, positions) for part, positions in parts], axis=1)

    def _run(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self._logits(ids, positions)[:, -1]

    def _logits(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        self._tokens += ids.shape[1]
        mask = self.mask_of(self._tokens)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones((len(ids), self._tokens), np.int64) if mask is None else mask,
            "position_ids": np.ascontiguousarray(positions),
            "beam_idx": self._beams,
        }
        given = {name: given[name] for name in self._names}
        return self._request.infer(given, share_inputs=True, share_outputs=False)["logits"]

    def _forget(self) -> None:
        self._tokens = 0
        if self._request is not None:
            self._request.reset_state()

    def close(self) -> None:
        super().close()
        self._request = None


@dataclass(frozen=True)
class OpenVino(DecodeRuntime):
    """hint: the precision of the arithmetic that OpenVINO is told; cache: of keys and values, None: its own choice."""

    hint: str = "f32"
    cache: str | None = "f32"
    weights: str | None = None  # None: as they are, "int8" or "int4": compressed by NNCF
    PACKAGES: ClassVar[tuple[str, ...]] = ("openvino", "nncf", "torch", "transformers")

    @property
    def hints(self) -> dict[str, str]:
        """What OpenVINO has to be told, here and by whoever loads the graph, to compute as here."""
        said = {"INFERENCE_PRECISION_HINT": self.told, "PERFORMANCE_HINT": "LATENCY"}
        if self.weights is None:  # the inputs of products by packed weights stay as they are
            said["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        return said | ({"KV_CACHE_PRECISION": self.cache} if self.cache else {})

    @property
    def told(self) -> str:
        """The hint, or fp32 where this processor only emulates bf16 and the row is about its weights."""
        return "f32" if self.weights and emulated("bf16") else self.hint

    def label_of(self, model: nn.Module) -> str:
        """What the row is called with a model whose weights may lie in groups already, which nothing compresses."""
        return _PACKED if self.weights and grouped_modules(model) else self.label

    def graph(self, model: nn.Module, traced=None, **options):
        """The whole graph of a model; options: of `compress_graph`.

        Weights that are in groups already are packed as they are, whatever the row; others are compressed as it says.
        traced: the model's `stateful_graph`, where several rows take it; it stays as it is.
        """
        self.check()
        grouped = grouped_weights(model)
        graph = stateful_graph(model) if traced is None else traced.clone()
        if grouped:
            pack_weights(graph, grouped)
            return graph
        return compress_graph(graph, self.weights, **options) if self.weights else graph

    def open(self, graph, threads: int | None = None, *, last: bool = True):
        """The graph, compiled as from its file; `ResourceError` where OpenVINO refuses it.

        last: for the last token's logits alone.
        """
        openvino = load_optional("openvino", self.extra)
        settings = self.hints | {"INFERENCE_NUM_THREADS": threads or torch.get_num_threads()}
        try:
            read = as_read(last_token_only(graph) if last else graph)
            compiled = openvino.Core().compile_model(read, "CPU", settings)
        except IcdError:
            raise
        except RuntimeError as error:
            raise ResourceError(f"{self.name} cannot run this model here: {brief(error)}") from error
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if used != self.told:
            raise ResourceError(f"OpenVINO computes in {used} on this CPU though {self.told} was asked for")
        return compiled

    def prepare(self, model: nn.Module, *, threads: int | None = None, graph=None, **options) -> OpenVinoDecoder:
        """graph: of `graph`, where it is there already; options: for making it."""
        model = model.eval()
        graph = self.graph(model, **options) if graph is None else graph
        compiled = self.open(graph, threads)
        decoder = OpenVinoDecoder(compiled.create_infer_request())
        decoder.positions, decoder.weight_bytes = positions_of(model), constant_bytes(graph)
        width = _BYTES.get(compiled.get_property("KV_CACHE_PRECISION").to_string())
        decoder.state_bytes = state_bytes_of(model, 4)
        decoder.cache_bytes = 0.0 if decoder.state_bytes else cache_bytes_of(model, width) if width else None
        return decoder


_EXTRA = "'icd-lib[runtimes]'"
FP32 = OpenVino("openvino", "OpenVINO, fp32", needs=("openvino",), extra=_EXTRA)
BF16 = OpenVino(
    "openvino_bf16",
    "OpenVINO, fp32 weights computed in bf16, cache in bf16",
    "bf16",
    ("openvino",),
    _EXTRA,
    tolerance=0.1,
    hint="bf16",
    cache="bf16",
)
INT8 = OpenVino(
    "openvino_int8",
    "OpenVINO, weights in int8 per row by NNCF, the rest as OpenVINO chooses",
    "int8",
    ("openvino", "nncf"),
    _EXTRA,
    tolerance=0.2,
    hint="bf16",
    cache=None,
    weights="int8",
)
INT4 = OpenVino(
    "openvino_int4",
    "OpenVINO, weights in int4 groups by NNCF (embedding and head int8), the rest as OpenVINO chooses",
    "int4",
    ("openvino", "nncf"),
    _EXTRA,
    tolerance=1.0,
    hint="bf16",
    cache=None,
    weights="int4",
)
