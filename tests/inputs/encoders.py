"""Tiny random encoders of every class of Transformers that looks like BERT, and their inputs."""

import torch
import transformers
from torch import nn

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
SUPPORTED = {
    "bert": ("BertModel", "BertForSequenceClassification", "BertForMaskedLM"),
    "camembert": ("CamembertModel", "CamembertForTokenClassification"),
    "data2vec-text": ("Data2VecTextModel",),
    "electra": ("ElectraModel", "ElectraForSequenceClassification"),
    "ernie": ("ErnieModel", "ErnieForSequenceClassification"),
    "roberta": ("RobertaModel", "RobertaForSequenceClassification", "RobertaForMaskedLM"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaForQuestionAnswering"),
}
# Class → what its config needs besides the sizes. They look like BERT, and compute something else.
REFUSED = {
    "RoFormerModel": {"embedding_size": 32},
    "XmodModel": {"languages": ("en_XX", "de_DE"), "default_language": "en_XX"},
    "MraModel": {},
    "YosoModel": {},
    "IBertModel": {},
    "LongformerModel": {"attention_window": 4},
    "MobileBertModel": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "TapasModel": {},
    "LayoutLMModel": {},
    "RemBertModel": {"input_embedding_size": 16, "output_embedding_size": 16},
    "NystromformerModel": {},
    "BigBirdModel": {"attention_type": "original_full"},
    "ConvBertModel": {"embedding_size": 32},
    "SplinterModel": {},
}


def encoder(name: str, dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    """A random model of the class, biases and norms random too."""
    model_class = getattr(transformers, name)
    extra = {"embedding_size": 16} if name.startswith("Electra") else REFUSED.get(name, {})
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**(SIZES | extra | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).requires_grad_(False)


def batches(count: int = 2, rows: int = 4, length: int = 12) -> list[dict]:
    """Batches with a padded row."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        ids, mask = (
            torch.randint(2, 61, (rows, length), generator=generator),
            torch.ones(rows, length, dtype=torch.long),
        )
        mask[1, 7:], ids[1, 7:] = 0, 1
        made.append({"input_ids": ids, "attention_mask": mask})
    return made
