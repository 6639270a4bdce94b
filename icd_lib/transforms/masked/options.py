"""Options of a mask that comes with the model."""

from icd_lib.options import Section, option


class MaskedOptions(Section):
    """A model that was pruned elsewhere; the options are of the one that is made where `model.checkpoint` is null."""

    neurons: float = option(0.4, "share of every layer's FFN neurons that are masked", low=0, high=0.95)
    heads: int = option(2, "attention heads of every layer that are masked", low=0)
    scattered: float = option(
        0.3, "share of the FFN's other weights that are zeroed one by one, which no order gathers", low=0, high=0.99
    )
