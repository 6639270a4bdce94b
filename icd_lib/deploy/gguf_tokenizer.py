"""The tokenizer's part of a GGUF file: copied from another file, or read from a byte-level BPE of Transformers."""

import json
from pathlib import Path

from icd_lib.errors import ConfigError
from icd_lib.models.checkpoint.gguf import EXTRA
from icd_lib.optional import load_optional

Field = tuple[str, object, object, object]  # key, value, type, type of the elements
_KINDS = {"normal": 1, "control": 3, "user_defined": 4, "unused": 5}  # llama_token_type of llama.h


def tokenizer_fields(tokenizer, vocabulary: int, source: Path | None = None) -> list[Field]:
    """Keys "tokenizer.…" with value and types, as `GGUFWriter.add_key_value` takes them.

    source: a GGUF file to copy them from; else they are made of `tokenizer`, None: the file has no tokens. Raises
    `ConfigError` for a tokenizer that llama.cpp does not know by name, or of more tokens than `vocabulary` rows.
    """
    gguf = load_optional("gguf", EXTRA)
    kinds = gguf.GGUFValueType
    if source is not None:
        reader = gguf.GGUFReader(source)
        found = [(key, field) for key, field in reader.fields.items() if key.startswith("tokenizer.")]
        tokens = next((len(field.contents()) for key, field in found if key == "tokenizer.ggml.tokens"), 0)
        if tokens != vocabulary:
            raise ConfigError(f"{source.name} has {tokens} tokens and the model {vocabulary} rows; name its own file")
        return [(key, field.contents(), field.types[0], (field.types[1:] or [None])[-1]) for key, field in found]
    if tokenizer is None:
        return [("tokenizer.ggml.model", "no_vocab", kinds.STRING, None)]
    return [*_tokens(tokenizer, vocabulary, kinds), *_specials(tokenizer, kinds)]


def _tokens(tokenizer, vocabulary: int, kinds) -> list[Field]:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"]["type"] != "BPE" or backend["model"].get("byte_fallback"):
        raise ConfigError(
            f"a tokenizer of type {backend['model']['type']} is not written to GGUF, byte-level BPE is; pass source=, "
            "the GGUF file that the model came from"
        )
    special = {token["id"]: token["special"] for token in backend["added_tokens"]}
    words = {place: word for word, place in tokenizer.get_vocab().items()}
    if len(words) > vocabulary:
        raise ConfigError(
            f"the tokenizer has {len(words)} tokens and the model {vocabulary} rows; pass its own tokenizer"
        )
    tokens = [words.get(place, f"[PAD{place}]") for place in range(vocabulary)]
    types = []
    for place in range(vocabulary):
        if place not in words:
            types.append(_KINDS["unused"])
        elif place in special:
            types.append(_KINDS["control" if special[place] else "user_defined"])
        else:
            types.append(_KINDS["normal"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in backend["model"]["merges"]]
    found: list[Field] = [
        ("tokenizer.ggml.model", "gpt2", kinds.STRING, None),
        ("tokenizer.ggml.pre", _splitting(backend["pre_tokenizer"]), kinds.STRING, None),
        ("tokenizer.ggml.tokens", tokens, kinds.ARRAY, kinds.STRING),
        ("tokenizer.ggml.token_type", types, kinds.ARRAY, kinds.INT32),
    ]
    return found + ([("tokenizer.ggml.merges", merges, kinds.ARRAY, kinds.STRING)] if merges else [])


def _splitting(steps: dict) -> str:
    """The name that llama.cpp has for how text is split before the merges."""
    parts = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = next(iter(parts[0]["pattern"].values()))
        if "\\p{N}{1,3}" in pattern:
            return "llama-bpe"
        if "|\\p{N}|" in pattern:
            return "qwen2"
    raise ConfigError(
        f"llama.cpp has no name known here for a tokenizer that splits by {', '.join(kinds)}; pass source=, the GGUF "
        "file that the model came from"
    )


def _specials(tokenizer, kinds) -> list[Field]:
    found: list[Field] = []
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        place = getattr(tokenizer, f"{key}_token_id", None)
        if place is not None:
            found.append((f"tokenizer.ggml.{name}_token_id", int(place), kinds.UINT32, None))
    begins = getattr(tokenizer, "bos_token_id", None)
    adds = begins is not None and tokenizer("a")["input_ids"][:1] == [begins]
    found.append(("tokenizer.ggml.add_bos_token", adds, kinds.BOOL, None))
    found.append(("tokenizer.ggml.add_space_prefix", False, kinds.BOOL, None))
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str):
        found.append(("tokenizer.chat_template", template, kinds.STRING, None))
    return found
