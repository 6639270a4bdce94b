"""A family as somebody else would write it: a model class of its own, an adapter, a named shape, and the row.

`ICD_EXTENSIONS=tests.extend.toy_family` adds both rows.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from icd_lib.axes.axis import Axis, Slot
from icd_lib.models.adapter import Adapter, Block
from icd_lib.models.families import FAMILIES
from icd_lib.models.family import Family
from icd_lib.models.shapes import SHAPES, Shape


class ToyConfig(PretrainedConfig):
    model_type = "toy"
    vocab_size: int = 40
    hidden_size: int = 12
    num_hidden_layers: int = 2
    ffn_size: int = 20


class ToyLayer(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.down(torch.relu(self.up(hidden)))


class ToyModel(PreTrainedModel):
    """Every token for itself: an embedding, 0 where the mask is, and residual layers of FFNs."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([ToyLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.embeddings(input_ids)
        return hidden if attention_mask is None else hidden * attention_mask[..., None]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> BaseModelOutput:
        hidden = self.embed(input_ids, attention_mask)
        for layer in self.layers:
            hidden = layer(hidden)
        return BaseModelOutput(last_hidden_state=hidden)


class ToyAdapter(Adapter):
    @staticmethod
    def accepts(model: nn.Module) -> bool:
        return isinstance(model, ToyModel)

    def axes(self) -> list[Axis]:
        return [self._ffn(f"layers.{index}", index) for index in range(len(self.model.layers))]

    def _ffn(self, path: str, index: int) -> Axis:
        slots = (Slot(f"{path}.up.weight", 0), Slot(f"{path}.up.bias", 0), Slot(f"{path}.down.weight", 1))
        return Axis(f"ffn.{index}", "ffn", self.model.layers[index].down.in_features, slots)

    def embed(self, inputs: dict) -> tuple[torch.Tensor, object]:
        return self.model.embed(inputs["input_ids"], inputs.get("attention_mask")), None

    def blocks(self) -> Iterator[Block]:
        for index, layer in enumerate(self.model.layers):
            yield Block(f"ffn.{index}", "ffn", index, 1, layer.down, partial(_inner, layer), nn.Identity())

    def trunk(self) -> nn.Module:
        return self.model.layers


def _inner(layer: ToyLayer, hidden: torch.Tensor, _context: object) -> torch.Tensor:
    return torch.relu(layer.up(hidden))


def tiny() -> dict[str, tuple[nn.Module, dict]]:
    torch.manual_seed(0)
    model = ToyModel(ToyConfig()).eval().double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    ids = torch.arange(30).reshape(3, 10)
    return {"plain": (model, {"input_ids": ids, "attention_mask": (ids > 3).long()})}


FAMILY = Family(
    name="toy",
    label="toys",
    adapters=(ToyAdapter,),
    model_types=("toy",),
    kinds=("ffn",),
    judge="encoder",
    tokenizer_of="bert",
    classes={"ToyModel": ToyModel},
    tiny=tiny,
)
# as wide as its width curves need to be curves
SHAPE = Shape(
    "toy",
    {
        "model_type": "toy",
        "architectures": ["ToyModel"],
        "vocab_size": 30522,
        "hidden_size": 32,
        "ffn_size": 256,
    },
)

AutoConfig.register("toy", ToyConfig, exist_ok=True)
AutoModel.register(ToyConfig, ToyModel, exist_ok=True)

FAMILIES.add("toy", FAMILY)
SHAPES.add("toy-tiny", SHAPE)
