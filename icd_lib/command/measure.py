"""`icd measure`: how fast a saved model is beside the one it came from, in every runtime that is installed."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.measure.ladder import measure_ladder
from icd_lib.models.families import family_of
from icd_lib.runtimes import CUDA, REFERENCE, RUNTIMES

SHAPES = ((8, 128), (1, 32))
REPEATS = 40


def parse_shapes(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(batch, tokens) of every "8x128"; `ConfigError` names what is none."""
    shapes = []
    for text in texts:
        parts = text.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
            raise ConfigError(f"--shape is BATCHxTOKENS, such as 8x128; got {text}")
        shapes.append((int(parts[0]), int(parts[1])))
    return shapes


def time_models(
    models: dict[str, nn.Module],
    shapes: Sequence[tuple[int, int]],
    *,
    runtimes: Sequence[str] = (REFERENCE,),
    repeats: int = REPEATS,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
    device: str | None = None,
) -> dict:
    """`measure_ladder` of the models on random tokens; the first of them is what the others are compared with.

    Latency does not depend on which tokens they are; a runtime that has to be calibrated on text is left out.
    """
    vocabulary = min(model.config.vocab_size for model in models.values())
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        {
            "input_ids": torch.randint(vocabulary, shape, generator=generator),
            "attention_mask": torch.ones(shape, dtype=torch.int64),
        }
        for shape in shapes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of exporters, about what they leave out
        return measure_ladder(
            models,
            inputs,
            runtimes=list(runtimes),
            repeats=repeats,
            seed=seed,
            baseline=next(iter(models)),
            progress=say,
            device=device,
        )


def runtimes_for(model: nn.Module) -> list[str]:
    """Those that are installed and take the model without text to calibrate on."""
    family = family_of(model)
    no_onnx = family is not None and family.no_onnx is not None
    chosen = []
    for name, row in RUNTIMES.items():
        if name in CUDA or row.precision == "int8" or (row.from_onnx and no_onnx):
            continue
        try:
            row.check()
        except ResourceError:
            continue
        chosen.append(name)
    return chosen
