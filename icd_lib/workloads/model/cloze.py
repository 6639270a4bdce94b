"""A decoder's cloze questions: dense and the arms of the loop answer them, on the text that judges and on seen text."""

from collections.abc import Mapping

from torch import nn

from icd_lib.data.cloze import ClozeQuestion, cloze_sha256, make_cloze
from icd_lib.data.language import join_blocks
from icd_lib.errors import MeasureError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.measure.quality_cloze import ClozeResult, compare_cloze, judge_cloze
from icd_lib.metric import figure
from icd_lib.records.generation import ClozePoint
from icd_lib.workloads.model.context import Context

ARMS = ("linear", RESULT)
CHOICES = 4
PASSAGE = 256  # tokens at most
BLOCKS_PER_QUESTION = 4  # not every passage has a word that can be hidden
_CURE = (
    f"a cloze question is asked of a passage of {PASSAGE} tokens, or of kv.context where that is less: name domains "
    "with longer texts"
)
METHOD = "most probable of the choices, paired with dense by question, clustered by document; normal interval"


def cloze_points(
    context: Context, models: Mapping[str, nn.Module], *, count: int, longest: int
) -> tuple[list[ClozePoint], dict[str, str]]:
    """Every arm's right answers on every split, its whole cache kept; and split → why nothing is asked of its text.

    count: questions per split; longest: tokens that a passage may have, at most `PASSAGE`.
    """
    points: list[ClozePoint] = []
    missing: dict[str, str] = {}
    for split in context.judged:
        try:
            questions = questions_of(context, split, count, min(longest, PASSAGE))
        except MeasureError as error:
            missing[split] = error.args[0]
            continue
        dense = context.of_dense(
            "cloze",
            {"questions": cloze_sha256(questions)},
            ClozeResult,
            lambda questions=questions: judge_cloze(models[DENSE], questions),
        )
        points += [_point(split, arm, judge_cloze(models[arm], questions), dense) for arm in ARMS if arm in models]
        context.progress(f"{len(questions)} cloze questions on {split} text")
    return points, missing


def questions_of(context: Context, split: str, count: int, length: int) -> list[ClozeQuestion]:
    """Questions of a split's text; `MeasureError` where it has too few, or all of them are of one document."""
    found = context.long_blocks(split, length, BLOCKS_PER_QUESTION * count, cure=_CURE)
    blocks = join_blocks(found.values())
    questions = make_cloze(context.tokenizer, blocks, count, choices=CHOICES, seed=context.get("seed"))
    if len({question.source for question in questions}) < 2:
        raise MeasureError(f"all {count} cloze questions of {split} text are of one document; ask for more (kv.cloze)")
    return questions


def _point(split: str, arm: str, result: ClozeResult, dense: ClozeResult) -> ClozePoint:
    found = compare_cloze(result, dense)
    low, high = (found["dense_right_pct"] - end for end in reversed(found["ci95"]))
    return ClozePoint(
        split=split,
        arm=arm,
        n=found["n"],
        right_pct=figure(found["right_pct"], "%", "measured", n=found["n"], method=METHOD, ci95=(low, high)),
        dense_pct=found["dense_right_pct"],
        chance_pct=100 / CHOICES,
    )
