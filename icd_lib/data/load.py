"""The one entry point for text data: a name and sizes in, `TextData` out."""

from icd_lib.data.labelled import load_labelled
from icd_lib.data.text import TextData, load_corpus, split_corpus


def load_text_data(
    name: str = "auto", *, seed: int = 0, test: int = 10_000, validation: int = 3_500, probe: int = 6_000
) -> TextData:
    """Load and split data set `name`: "auto" and "bible" are the embedded corpus, "sst2" or a folder labelled sets.

    Sizes are in items (a verse is one item with two texts). Errors as `split_corpus` and `load_labelled`.
    """
    sizes = {"seed": seed, "test": test, "validation": validation, "probe": probe}
    if name in ("auto", "bible"):
        return split_corpus(load_corpus(), **sizes)
    return load_labelled(name, **sizes)
