"""The Transformers config of a checkpoint, and the model class that it names."""

import transformers

from icd_lib.models.checkpoint.files import check_config
from icd_lib.models.checkpoint.source import Checkpoint
from icd_lib.models.families import find_family, own_class

_TASK_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForCausalLM")


def model_config(checkpoint: Checkpoint):
    """The config of a found checkpoint, in whatever layout its family writes it, or of random weights."""
    family = find_family(checkpoint.family)  # first: a family from outside may bring its config class with it
    if checkpoint.path is None:
        return transformers.AutoConfig.for_model(**checkpoint.config)
    layout = family.layout_of(check_config(checkpoint.path, checkpoint.family))
    if layout is not None:
        return layout.read_config(checkpoint.path)
    return transformers.AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)


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
