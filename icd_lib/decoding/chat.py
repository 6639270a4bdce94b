"""Talking to a decoder: a conversation becomes tokens, and its answer comes piece by piece."""

from collections.abc import Iterator, Sequence
from typing import Any

from icd_lib.decoding.base import Decoder
from icd_lib.decoding.folder import check_chat

UNFINISHED = "\ufffd"  # what a tokenizer writes for bytes of a character whose others are still to come


def conversation_ids(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Tokens of a conversation up to where the assistant answers; `ConfigError` without a chat template.

    messages: {"role", "content"} in turns
    """
    check_chat(tokenizer)
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer(
    decoder: Decoder, tokenizer: Any, messages: Sequence[dict[str, str]], *, tokens: int, stop: tuple[int, ...]
) -> Iterator[str]:
    """Pieces of the likeliest answer, of at most `tokens` tokens, as they come; whole characters only."""
    ids = conversation_ids(tokenizer, messages)
    room = tokens if decoder.positions is None else min(tokens, decoder.positions - len(ids))
    said: list[int] = []
    told = ""
    logits = decoder.prefill([ids])
    for place in range(room):
        token = int(logits[0].argmax())
        if token in stop:
            return
        said.append(token)
        text = tokenizer.decode(said, skip_special_tokens=True)
        if not text.endswith(UNFINISHED):
            yield text[len(told) :]
            told = text
        if place + 1 < room:
            logits = decoder.step([token])
