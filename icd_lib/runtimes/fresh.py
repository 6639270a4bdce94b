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


def run_decode_openvino(folder, inputs, options):
    """Logits after prompts padded on the left, and after each of the tokens that follow: (B, 1 + N, V)."""
    return _openvino_text(folder, inputs, options, lambda step, said: inputs["tokens"][:, step])


def run_greedy_openvino(folder, inputs, options):
    """Tokens that it says greedily, (B, 1 + N)."""
    logits, told = _openvino_text(folder, inputs, options, lambda step, said: said)
    return logits.argmax(-1), told


def run_decode_gguf(folder, inputs, options):
    import torch
    import transformers

    torch.set_num_threads(options["threads"])
    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=options["file"])
    # What its reader leaves at the default though the file says it; config.json beside the file says it too.
    whole = transformers.AutoConfig.from_pretrained(folder)
    for name in ("head_dim", "rope_parameters"):
        if hasattr(config, name):
            setattr(config, name, getattr(whole, name, getattr(config, name)))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=options["file"], config=config, dtype=torch.float32
    )
    return _torch_logits(model.eval(), inputs), {}


def run_decode_optimum(folder, inputs, options):
    """Tokens that `generate` says greedily, (B, 1 + N)."""
    import torch
    from optimum.intel import OVModelForCausalLM

    model = OVModelForCausalLM.from_pretrained(folder, ov_config=dict(options["hints"]))
    asked = {name: torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask")}
    tokens = inputs["tokens"].shape[1] + 1
    found = model.generate(**asked, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return found[:, asked["input_ids"].shape[1] :].numpy(), {"precision": _precision(model)}


def run_decode_genai(folder, inputs, options):
    """Tokens that LLMPipeline says greedily, (B, 1 + N), one prompt after the other."""
    import openvino
    import openvino_genai

    pipe = openvino_genai.LLMPipeline(folder, "CPU", **options["hints"])
    config, found = openvino_genai.GenerationConfig(), []
    config.max_new_tokens = config.min_new_tokens = inputs["tokens"].shape[1] + 1
    config.do_sample, config.ignore_eos = False, True
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        prompt = np.ascontiguousarray(ids[mask.astype(bool)][None])
        asked = openvino_genai.TokenizedInputs(openvino.Tensor(prompt), openvino.Tensor(np.ones_like(prompt)))
        found.append(pipe.generate(asked, config).tokens[0])
    return np.array(found), {}


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
    "decode_openvino": run_decode_openvino,
    "greedy_openvino": run_greedy_openvino,
    "decode_gguf": run_decode_gguf,
    "decode_optimum": run_decode_optimum,
    "decode_genai": run_decode_genai,
}
PACKAGES = {  # by the module that is imported where it is used
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "transformers": "transformers",
    "sentence_transformers": "sentence-transformers",
    "optimum.intel": "optimum-intel",
    "optimum.onnxruntime": "optimum-onnx",
    "openvino_genai": "openvino-genai",
    "openvino_tokenizers": "openvino-tokenizers",
    "gguf": "gguf",
}


def _torch_output(model, inputs):
    import torch

    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    for name in ("last_hidden_state", "logits"):
        if hasattr(outputs, name):
            return getattr(outputs, name).float().numpy()
    return outputs.float().numpy()


def _openvino_text(folder, inputs, options, choose):
    """Logits (B, 1 + N, V) after prompts and after N tokens; `choose(step, said)` gives those of a step, (B,)."""
    import openvino

    settings = {**options["hints"], "INFERENCE_NUM_THREADS": options["threads"]}
    compiled = openvino.Core().compile_model(os.path.join(folder, "openvino_model.xml"), "CPU", settings)
    request, mask, found = compiled.create_infer_request(), inputs["attention_mask"], []
    ids, positions = inputs["input_ids"], np.maximum(mask.cumsum(1) - 1, 0)
    for step in range(inputs["tokens"].shape[1] + 1):
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        found.append(request.infer({**given, "beam_idx": np.arange(len(ids), dtype=np.int32)})["logits"][:, -1].copy())
        if step < inputs["tokens"].shape[1]:
            ids, positions = choose(step, found[-1].argmax(-1))[:, None], positions[:, -1:] + 1
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
    return np.stack(found, axis=1), {"precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string()}


def _torch_logits(model, inputs):
    """Of prompts padded on the left and of each token that follows, with the model's own cache: (B, 1 + N, V)."""
    import torch

    mask = torch.from_numpy(inputs["attention_mask"])
    ids, positions, cache, found = torch.from_numpy(inputs["input_ids"]), (mask.cumsum(1) - 1).clamp(min=0), None, []
    for following in [*torch.from_numpy(inputs["tokens"]).T, None]:
        with torch.no_grad():
            said = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = said.past_key_values
        found.append(said.logits[:, -1].float())
        if following is not None:
            ids, positions = following[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return torch.stack(found, dim=1).numpy()


def _precision(model):
    """In which precision a model of optimum computes: its `request` is a compiled model, or a decoder's request."""
    model.compile()
    compiled = getattr(model.request, "get_compiled_model", lambda: model.request)()
    return compiled.get_property("INFERENCE_PRECISION_HINT").to_string()


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
