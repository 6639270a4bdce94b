"""llama.cpp in a process of its own, in whatever environment has llama-cpp-python; nothing of this project is imported.

`python llamacpp_child.py FILE '{"threads": 2, "texts": 8, "context": 4224}'`: it answers on standard output with a line
of JSON about the model, then for every request, a line of JSON {"n", "new", "every"} and that many int32 triples
(token, text, position), with float32 logits: (texts, V) of each text's last token, or (n, V) where `every` token's are
asked for. A line {"error"} stands for a failure.
"""

import ctypes
import json
import os
import sys

import numpy as np


def open_model(llama, path, options):
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {os.path.basename(path)}")
    settings = llama.llama_context_default_params()
    settings.n_ctx = options["context"] * options["texts"]
    settings.n_seq_max = options["texts"]
    settings.n_batch = 2048
    settings.n_ubatch = 512
    settings.n_threads = settings.n_threads_batch = options["threads"]
    if options.get("cache"):
        settings.type_k = settings.type_v = options["cache"]
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError("llama.cpp cannot make a context of this size")
    return model, context


def decode(llama, context, batch, triples, vocabulary, capacity, every):
    """Logits (texts, V) of the last token of every text among the triples; (n, V) of every token if `every`."""
    last = {int(text): place for place, text in enumerate(triples[:, 1])}
    rows = {place: place for place in range(len(triples))} if every else {place: text for text, place in last.items()}
    found = np.empty((len(rows), vocabulary), np.float32)
    for start in range(0, len(triples), capacity):
        part = triples[start : start + capacity]
        batch.n_tokens = len(part)
        wanted = {}
        for place, (token, text, position) in enumerate(part.tolist()):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, text
            batch.logits[place] = asked = start + place in rows
            if asked:
                wanted[place] = rows[start + place]
        status = llama.llama_decode(context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        for place, row in wanted.items():
            logits = llama.llama_get_logits_ith(context, place)
            found[row] = np.ctypeslib.as_array(logits, shape=(vocabulary,))
    return found


def main(path, options):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is not an answer
    import llama_cpp as llama

    options = json.loads(options)
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    try:
        model, context = open_model(llama, path, options)
    except RuntimeError as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()
        return 1
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    capacity = llama.llama_n_batch(context)
    batch = llama.llama_batch_init(capacity, 0, 1)
    told = {
        "vocabulary": vocabulary,
        "positions": llama.llama_model_n_ctx_train(model),
        "bytes": llama.llama_model_size(model),
        "version": llama.__version__,
    }
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        triples = np.frombuffer(sys.stdin.buffer.read(12 * asked["n"]), np.int32).reshape(-1, 3)
        if asked["new"]:
            llama.llama_memory_clear(llama.llama_get_memory(context), True)
        try:
            found = decode(llama, context, batch, triples, vocabulary, capacity, asked["every"])
        except RuntimeError as error:
            answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        else:
            answers.write(b"{}\n" + found.tobytes())
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
