"""Options of the text: which domains calibrate, choose and judge, and how much of them."""

from typing import Annotated, Literal

from icd_lib.options import OneOf, Section, option

Domain = Annotated[str, OneOf("icd_lib.data.domains:DOMAINS", suggested=True)]


class DataOptions(Section):
    """The text: which domains calibrate, choose and judge, and how much of them."""

    name: Literal["auto", "bible", "sst2"] = option(
        "auto", "a labelled set of one's own that joins the seen domains; auto: none"
    )
    seen: tuple[Domain, ...] = option(
        ("encyclopaedia", "news", "docstrings", "films", "tweets", "dialogues"),
        "domains whose unlabelled text calibrates; parts of them are held out and judged",
    )
    selection: tuple[Domain, ...] = option(
        ("verses", "manual", "examples"), "domains that calibrate nothing and on which strengths are chosen"
    )
    unseen: tuple[Domain, ...] = option(
        ("products", "editorials", "glosses"), "domains that nothing has seen, judged once at the end"
    )
    calibration_texts: int = option(
        5000, "unlabelled texts that the transform sees, as even over domains as can be", low=1
    )
    distill_texts: int = option(16000, "unlabelled texts for distillation", low=0)
    validation_items: int = option(1000, "texts per domain on which strengths are chosen", low=1)
    test_items: int = option(6000, "texts per domain on which the result is judged once", low=1)
    split_seed: int = option(
        0, "deals the texts; apart from seed, so that runs with other seeds are judged on the same", low=0
    )
    max_length: int = option(128, "longest text in tokens", unit="tokens", low=4, high=8192)
