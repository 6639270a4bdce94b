"""Prompts of a batch: token ids of one length with a mask of what is padding, and what cannot be decoded by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icd_lib.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Prompt:
    """ids: int64 (B, L); mask: int64 (B, L), 0 on the left where a shorter prompt was padded; None: nothing was."""

    ids: np.ndarray
    mask: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each prompt, (B,)."""
        rows, tokens = self.ids.shape
        return np.full(rows, tokens) if self.mask is None else self.mask.sum(1)

    @property
    def positions(self) -> np.ndarray:
        """Position of every token in its own text, (B, L); padding has 0."""
        if self.mask is None:
            return np.broadcast_to(np.arange(self.ids.shape[1]), self.ids.shape)
        return np.maximum(self.mask.cumsum(1) - 1, 0)


def read_prompt(ids, mask=None, positions: int | None = None) -> Prompt:
    """The prompts of a batch, checked.

    ids        (B, L) tensor, array or lists, or one prompt (L,); mask: the same shape, 0 where a prompt is padded
    positions  tokens that the model knows positions for; None: any number

    Raises `ConfigError` for an empty prompt, one with more tokens than positions, prompts of unequal length without a
    mask, and padding anywhere but on the left: what follows the last token of a row would follow padding.
    """
    if len(ids) and np.ndim(ids[0]) == 0:
        ids = [ids]
    lengths = {len(row) for row in ids}
    if not lengths or 0 in lengths:
        raise ConfigError("a prompt is empty; give every prompt at least one token (a beginning-of-text token will do)")
    if len(lengths) > 1:
        raise ConfigError(
            f"the prompts of a batch have {min(lengths)} to {max(lengths)} tokens and no mask; make them one length by "
            "icd_lib.decoding.prompt.pad_left, which gives the mask too"
        )
    prompt = Prompt(np.ascontiguousarray(ids, dtype=np.int64), _checked(mask, (len(ids), lengths.pop())))
    longest = int(prompt.lengths.max())
    if positions is not None and longest > positions:
        raise ConfigError(f"a prompt has {longest} tokens and the model {positions} positions; shorten the prompt")
    return prompt


def _checked(mask, shape: tuple[int, int]) -> np.ndarray | None:
    if mask is None:
        return None
    seen = np.ascontiguousarray(mask, dtype=np.int64).reshape(np.shape(mask) if np.ndim(mask) == 2 else (1, -1))
    if seen.shape != shape or not np.isin(seen, (0, 1)).all():
        raise ConfigError(f"a mask holds 0 and 1 in the shape of the prompts, {shape}; got one of shape {seen.shape}")
    if not seen.any(1).all():
        raise ConfigError(f"prompt {int(np.argmin(seen.any(1)))} is empty: all its places are masked; leave it out")
    if (np.diff(seen, axis=1) < 0).any():
        row = int(np.argmax((np.diff(seen, axis=1) < 0).any(1)))
        raise ConfigError(
            f"prompt {row} is padded on the right or inside; text goes on behind the last token, so pad on the left"
        )
    return None if seen.all() else seen


def pad_left(prompts: Sequence[Sequence[int]], pad: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, both int64 (B, L), of prompts of any lengths.

    >>> pad_left([[5, 6, 7], [8]])[0].tolist(), pad_left([[5, 6, 7], [8]])[1].tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    longest = max(map(len, prompts), default=0)
    ids = np.full((len(prompts), longest), pad, dtype=np.int64)
    mask = np.zeros((len(prompts), longest), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
