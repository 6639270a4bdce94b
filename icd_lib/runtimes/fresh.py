"""Load an export in a process of its own and run it, with nothing of this project: what its users will see.

`python fresh.py LOADER FOLDER GIVEN FOUND '{"threads": 1, "hints": {…}}'`: GIVEN is an .npz of the model's inputs, or
of `texts`; FOUND is written with the `output`, and what was loaded by which versions is printed as JSON. It runs in any
environment that has the loader, this project's or not.
"""

import importlib.metadata
import json
import os
import sys

import numpy as np


def run_openvino(folder, inputs, options):
    import openvino

    settings = {**options["hints"], "INFERENCE_NUM_THREADS": options["threads"]}
    compiled = openvino.Core().compile_model(os.path.join(folder, "openvino_model.xml"), "CPU", settings)
    return compiled(inputs)[0], {"precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string()}


def run_onnxruntime(folder, inputs, options):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options["threads"]
    session = onnxruntime.InferenceSession(
        os.path.join(folder, "model.onnx"), settings, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0], {}


def run_transformers(folder, inputs, options):
    import torch
    import transformers

    torch.set_num_threads(options["threads"])
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    return _torch_output(model, inputs), {}


def run_icd(folder, inputs, options):
    import torch

    import icd_lib

    torch.set_num_threads(options["threads"])
    return _torch_output(icd_lib.load_optimized(folder), inputs), {}


def run_optimum_openvino(folder, inputs, options):
    import torch
    from optimum.intel import OVModelForFeatureExtraction

    model = OVModelForFeatureExtraction.from_pretrained(folder, ov_config=dict(options["hints"]))
    output = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return output.last_hidden_state.numpy(), {"precision": _precision(model)}


def run_optimum_onnx(folder, inputs, options):
    import torch
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    model = ORTModelForFeatureExtraction.from_pretrained(folder)
    output = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return output.last_hidden_state.numpy(), {}


def run_sentences(backend):
    def run(folder, inputs, options):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(folder, backend=backend, device="cpu")
        told = {"precision": _precision(model[0].auto_model)} if backend == "openvino" else {}
        return model.encode([str(text) for text in inputs["texts"]], show_progress_bar=False), told

    return run


LOADERS = {
    "openvino": run_openvino,
    "onnxruntime": run_onnxruntime,
    "transformers": run_transformers,
    "icd": run_icd,
    "optimum_openvino": run_optimum_openvino,
    "optimum_onnx": run_optimum_onnx,
    "sentences_openvino": run_sentences("openvino"),
    "sentences_onnx": run_sentences("onnx"),
    "sentences_torch": run_sentences("torch"),
}
PACKAGES = {  # by the module that is imported where it is used
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "transformers": "transformers",
    "sentence_transformers": "sentence-transformers",
    "optimum.intel": "optimum-intel",
    "optimum.onnxruntime": "optimum-onnx",
}


def _torch_output(model, inputs):
    import torch

    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    for name in ("last_hidden_state", "logits"):
        if hasattr(outputs, name):
            return getattr(outputs, name).float().numpy()
    return outputs.float().numpy()


def _precision(model):
    model.compile()
    return model.request.get_property("INFERENCE_PRECISION_HINT").to_string()


def _versions():
    return {name: importlib.metadata.version(name) for module, name in PACKAGES.items() if module in sys.modules}


def main(loader, folder, given, found, options):
    with np.load(given) as file:
        inputs = {name: file[name] for name in file.files}
    output, told = LOADERS[loader](folder, inputs, json.loads(options))
    np.savez(found, output=np.asarray(output, dtype=np.float32))
    print(json.dumps({"versions": _versions(), **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
