"""Tied parameters: which names of a model are one tensor. Read off the tensors, whatever the config says."""

from collections import defaultdict

from torch import nn

from icd_lib.errors import ArtifactError


def ties_of(model: nn.Module) -> list[list[str]]:
    """Names of parameters that are one and the same, in the model's order.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> model[1].weight = model[0].weight
    >>> ties_of(model)
    [['0.weight', '1.weight']]
    """
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [found for found in names.values() if len(found) > 1]


def retie(model: nn.Module, ties: list[list[str]]) -> None:
    """Make every group of `ties` one tensor, the first name's."""
    for first, *others in ties:
        parameter = model.get_parameter(first)
        for name in others:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, parameter)


def check_ties(model: nn.Module, ties: object) -> None:
    """Raise `ArtifactError` unless `ties`, read from a file, names parameters of the model, no name twice."""
    groups = ties if isinstance(ties, list) and all(isinstance(names, list) for names in ties) else [[ties]]
    names = [name for group in groups for name in group]
    known = dict(model.named_parameters(remove_duplicate=False))
    wrong = [name for name in names if not isinstance(name, str) or name not in known or names.count(name) > 1]
    if wrong:
        raise ArtifactError(f"the record of tied weights names {wrong[0]!r}; write the model again with save_optimized")


def has_tied_embeddings(model: nn.Module) -> bool | None:
    """Whether the output embeddings are the input embeddings; None for a model that lacks one of them."""
    try:
        first, last = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:
        return None
    return None if first is None or last is None else first.weight is last.weight
