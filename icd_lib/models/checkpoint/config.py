"""The Transformers config of a checkpoint, and the model class that it names."""

from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from icd_lib.errors import FOREIGN, ArtifactError, ConfigError
from icd_lib.models.checkpoint.files import check_config
from icd_lib.models.checkpoint.source import Checkpoint
from icd_lib.models.families import find_family, own_class

# What reading a config or building a model raises when the files say something that is no model.
MALFORMED = (*FOREIGN, OSError, SafetensorError, StrictDataclassError)
_TASK_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForCausalLM")


def model_config(checkpoint: Checkpoint):
    """The config of a found checkpoint, in whatever layout its family writes it, or of random weights.

    Raises `ArtifactError` for one that says nothing of the family, `ConfigError` for that of a quantised checkpoint.
    """
    family = find_family(checkpoint.family)  # first: a family from outside may bring its config class with it
    if checkpoint.path is None:
        return transformers.AutoConfig.for_model(**checkpoint.config)
    contents = check_config(checkpoint.path, checkpoint.family)
    layout = family.layout_of(contents)
    if layout is not None:
        return layout.read_config(checkpoint.path)
    if contents.get("quantization_config"):
        raise ConfigError(
            f"'{checkpoint.name}' is quantised (quantization_config in its config.json), and a quantised model cannot "
            "be made smaller; take the checkpoint it was made from, in float32, float16 or bfloat16"
        )
    with building(checkpoint.name):
        return transformers.CONFIG_MAPPING[contents["model_type"]].from_dict(contents)


@contextmanager
def building(name: str) -> Iterator[None]:
    """Raise `ArtifactError` for whatever Transformers raises while it builds the model `name`."""
    try:
        yield
    except MALFORMED as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise ArtifactError(
            f"'{name}' does not fit its config.json, or that is of no model ({type(error).__name__}: {reason}); "
            "fetch it anew, or write it again with save_pretrained"
        ) from error


def model_class(config) -> type:
    """The architecture's own class when it has a task head, else the bare encoder of its model_type."""
    name = (config.architectures or [""])[0]
    found = find_class(name) if name.endswith(_TASK_HEADS) else None
    return found or transformers.MODEL_MAPPING[type(config)]


def find_class(name: str) -> type | None:
    """The model class of that name: Transformers' own, or one that a family brings."""
    found = getattr(transformers, name, None) or own_class(name)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if is_model else None
