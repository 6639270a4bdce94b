"""OpenVINO's own files, the same bytes for the same network whatever the process did before."""

import re
import tempfile
from pathlib import Path

from icd_lib.optional import load_optional

_NUMBERED = re.compile(
    r"[A-Za-z]+(_\d+)+"
)  # "Constant_6867"; the model's own operations are paths, "/encoder/layer.0/…"


def save_ir(network, path: Path) -> None:
    """Write an `openvino.Model` as `path` (.xml) and its weights beside it (.bin), in the precision that it has.

    OpenVINO numbers operations that have no name by a counter of the process, and notes the file that it converted
    from; they are named by their place in the graph instead, and the note is left out. Names of inputs, outputs and
    of the model's own operations stay.
    """
    network.set_friendly_name("model")
    for place, operation in enumerate(network.get_ordered_ops()):
        if _NUMBERED.fullmatch(operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    if network.has_rt_info("conversion_parameters"):
        network.set_rt_info("onnx", ["conversion_parameters", "input_model"])
    load_optional("openvino").save_model(network, path, compress_to_fp16=False)


def as_read(network):
    """The network as whoever loads its file has it, which is another graph: rotary embeddings, say, are recognised."""
    openvino = load_optional("openvino")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.xml"
        openvino.save_model(network, file, compress_to_fp16=False)
        return openvino.Core().read_model(file)  # its weights stay mapped when the file is gone
