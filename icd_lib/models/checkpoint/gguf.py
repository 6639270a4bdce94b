"""A GGUF file (llama.cpp's format) as a folder that Transformers reads, made once per machine.

Its blocks are decoded to float32 exactly (package gguf); config, weight names and tokenizer are as Transformers reads
them. The folder lies in the cache under the file's sha256, so a file is converted once.
"""

import contextlib
import functools
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from icd_lib.errors import FOREIGN, ArtifactError, ConfigError
from icd_lib.models.checkpoint.files import hash_files
from icd_lib.models.checkpoint.gguf_rope import FREQS, rope_parameters
from icd_lib.optional import brief, load_optional
from icd_lib.storage.atomic import put_in_place, write_error
from icd_lib.storage.machine import cache_folder

EXTRA = "'icd-lib[decoder]'"
READ_AS = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
READ_AS |= {"qwen3": "Qwen3ForCausalLM"}
_SIZES = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length")
_LENT = threading.Lock()
_FORM = 2  # of the folder: another number, another folder


def gguf_folder(file: Path) -> Path:
    """The folder with the model of a GGUF file: config.json, float32 safetensors, tokenizer.

    Raises `ArtifactError` for a file that is truncated, lacks weights or holds blocks of a type that cannot be decoded,
    `ConfigError` for an architecture that is not read (mixtures of experts, scaled rotary embeddings of another type
    than llama3, tensors that the model has no place for), `ResourceError` without the package gguf.
    """
    folder = cache_folder() / f"gguf-{_FORM}-{hash_files([file])[:24]}"
    if not (folder / "config.json").is_file():
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with parsed_once():
                contents = read_header(file)
                partial.mkdir(parents=True)
                _convert(file, contents, partial)
            _publish(partial, folder)
        except OSError as error:
            raise write_error(folder, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Inside, all who read a GGUF file share one reader and one table of names.

    Transformers makes them again and again, and a vocabulary of 50,000 takes seconds each time.
    Raises `ResourceError` without the package gguf.
    """
    gguf = load_optional("gguf", EXTRA)
    with _LENT:  # one after the other: what a second thread found would be what it gives back
        reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
        kept = functools.cache(reader)
        gguf.GGUFReader = lambda path, *options: kept(os.fspath(path), *options)
        gguf.get_tensor_name_map = functools.cache(names)
        try:
            yield
        finally:
            gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def read_header(file: Path) -> dict[str, str]:
    """architecture, licence and name of a GGUF file, and the block types of its weights ("Q4_1 210, F32 61")."""
    gguf = load_optional("gguf", EXTRA)
    try:
        reader = gguf.GGUFReader(file)
        fields = {name: _text(reader, f"general.{name}") for name in ("architecture", "license", "name")}
        kinds: dict[str, int] = {}
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
        missing = [name for name in _SIZES if reader.get_field(f"{fields['architecture']}.{name}") is None]
        experts = reader.get_field(f"{fields['architecture']}.expert_count")
        count = experts.contents() if experts else 0
    except (*FOREIGN, OSError) as error:
        raise ArtifactError(
            f"{file.name} is no whole GGUF file, or has weights of an unknown type ({brief(error)}); fetch it again or "
            "convert the model with a current llama.cpp"
        ) from error
    if fields["architecture"] not in READ_AS:
        raise ConfigError(
            f"{file.name} holds a model of architecture {fields['architecture']!r}; of GGUF files those of "
            f"{sorted(READ_AS)} are read"
        )
    if count:
        raise ConfigError(
            f"{file.name} holds a mixture of {count} experts, which is not supported; take a model without experts"
        )
    if missing:
        raise ArtifactError(f"{file.name} holds no whole model: it has no {missing[0]}; convert the model again")
    return fields | {"types": ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))}


def _text(reader, name: str) -> str:
    field = reader.get_field(name)
    value = None if field is None else field.contents()
    return value if isinstance(value, str) else ""


def _convert(file: Path, contents: dict[str, str], folder: Path) -> None:
    import torch
    import transformers

    load_optional("accelerate", EXTRA)
    model_class = getattr(transformers, READ_AS[contents["architecture"]])
    try:
        config = read_config(file, model_class.config_class)
        check_tensors(file, model_class, config)
        model = model_class.from_pretrained(file.parent, gguf_file=file.name, config=config, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (*FOREIGN, OSError) as error:
        raise ArtifactError(
            f"{file.name} cannot be read ({brief(error)}); fetch it again, or take the model as safetensors"
        ) from error
    model.hf_quantizer = None  # the weights are plain numbers from here on
    del model.config.quantization_config
    model.config.architectures = [model_class.__name__]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    licence = contents["license"] or "not stated"
    card = f"---\nlicense: {licence}\n---\n{contents['name']}, from {file.name} ({contents['types']}), as float32.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def read_config(file: Path, config_class: type):
    """The config of a GGUF file with what Transformers' reader leaves out.

    That is the size of a head (Qwen3) and slower rotary embeddings (Llama 3.1 and newer); `ConfigError` where these are
    of a type that is not read.
    """
    config = config_class.from_pretrained(file.parent, gguf_file=file.name)
    reader = load_optional("gguf", EXTRA).GGUFReader(file)
    architecture = _text(reader, "general.architecture")
    size = reader.get_field(f"{architecture}.attention.key_length")
    if size is not None and hasattr(config, "head_dim"):
        config.head_dim = size.contents()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    try:
        scaled = rope_parameters(reader, architecture, size, config.max_position_embeddings, theta)
    except ConfigError as error:
        raise ConfigError(f"{file.name} cannot be read: {error.args[0]}") from error
    if scaled is not None:
        config.rope_parameters = {**config.rope_parameters, **scaled}
    return config


def check_tensors(file: Path, model_class: type, config) -> None:
    """Raise `ArtifactError` where the file lacks a weight of the model, `ConfigError` where it holds one more.

    Transformers draws the first at random and leaves the second out, both without an error.
    """
    import torch

    gguf = load_optional("gguf", EXTRA)
    reader = gguf.GGUFReader(file)
    architecture = _text(reader, "general.architecture")
    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known.get(architecture, gguf.MODEL_ARCH.LLAMA), config.num_hidden_layers)
    with torch.device("meta"):
        parameters = [name for name, _ in model_class(config).named_parameters()]  # tied ones once
    wanted = {names.get_name(name, try_suffixes=(".weight", ".bias")) for name in parameters}
    present = {tensor.name for tensor in reader.tensors} - {FREQS}
    if lacking := sorted(wanted - present):
        raise ArtifactError(
            f"{file.name} lacks {len(lacking)} tensors of its model, such as {lacking[0]}; convert it again"
        )
    if more := sorted(present - wanted):
        raise ConfigError(
            f"{file.name} holds {more[0]}, for which {model_class.__name__} has no place; take the model as safetensors"
        )


def _publish(partial: Path, folder: Path) -> None:
    """Put the folder in its place, unless another process was first."""
    with contextlib.suppress(FileExistsError):
        if not (folder / "config.json").is_file():
            put_in_place(partial, folder, folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old"))


def is_gguf(path: Path) -> bool:
    """Whether the path names a GGUF file, by its first bytes or, where there are none, by its name."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF" or path.suffix.lower() == ".gguf"
    except OSError:
        return False
