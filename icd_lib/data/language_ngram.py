"""An n-gram baseline, for scale: how far counting gets on the text that a language model is judged on."""

import numpy as np
from scipy.sparse import csr_array

from icd_lib.errors import MeasureError

_ROWS = 4096  # contexts whose full distributions are held at once


class NGram:
    """Interpolated n-gram model of order 1 to 3 with Witten-Bell weights (Witten & Bell 1991).

    p(v | h) = (c(h, v) + T(h) p(v | h')) / (c(h) + T(h)); h' is h without its oldest token, c counts, T(h) is the
    number of distinct tokens seen after h, and below one token everything is equally likely.
    """

    def __init__(self, stream: np.ndarray, vocabulary: int, order: int = 3):
        """Count a stream of token ids (n,) int64."""
        if order not in (1, 2, 3):
            raise MeasureError(f"an n-gram baseline has order 1, 2 or 3, not {order}")
        if len(stream) < order:
            raise MeasureError(f"{order}-grams need {order} tokens of text, got {len(stream)}")
        self.order, self.vocabulary = order, vocabulary
        counts = np.bincount(stream, minlength=vocabulary).astype(np.float64)
        seen = np.count_nonzero(counts)
        self._unigram = (counts + seen / vocabulary) / (counts.sum() + seen)
        self._tables = [_count(stream, vocabulary, n) for n in range(2, order + 1)]

    def distributions(self, contexts: np.ndarray) -> np.ndarray:
        """p(· | context), (m, V), for contexts (m, k) of the k < order tokens before, oldest first."""
        probabilities = np.tile(self._unigram, (len(contexts), 1))
        for used in range(1, contexts.shape[1] + 1):
            keys, counts = self._tables[used - 1]
            wanted = _key(contexts[:, contexts.shape[1] - used :], self.vocabulary)
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = np.flatnonzero(keys[at] == wanted)
            rows = counts[at[known]]
            total, distinct = rows.sum(axis=1), np.diff(rows.indptr)
            probabilities[known] *= (distinct / (total + distinct))[:, None]
            probabilities[known] += rows.toarray() / (total + distinct)[:, None]
        return probabilities

    def score(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log p(right token) float64 (n, L - 1) and whether it is the most probable, bool, of blocks (n, L)."""
        log_probs = np.empty((len(ids), ids.shape[1] - 1))
        correct = np.empty(log_probs.shape, bool)
        for used in range(min(self.order, ids.shape[1])):
            last = used == self.order - 1
            at = np.arange(max(used, 1), ids.shape[1] if last else used + 1)  # positions that have just this context
            if not len(at):
                continue
            windows = np.lib.stride_tricks.sliding_window_view(ids, used + 1, axis=1)[:, at - used]
            log_probs[:, at - 1], correct[:, at - 1] = self._score_windows(windows, used)
        return log_probs, correct

    def _score_windows(self, windows: np.ndarray, used: int) -> tuple[np.ndarray, np.ndarray]:
        flat = windows.reshape(-1, used + 1)
        contexts, inverse = np.unique(flat[:, :used], axis=0, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(0, len(contexts) + _ROWS, _ROWS))
        log_probs, correct = np.empty(len(flat)), np.empty(len(flat), bool)
        for batch, start in enumerate(range(0, len(contexts), _ROWS)):
            items = order[bounds[batch] : bounds[batch + 1]]
            p = self.distributions(contexts[start : start + _ROWS])
            row, token = inverse[items] - start, flat[items, used]
            log_probs[items] = np.log(p[row, token])
            correct[items] = p.argmax(axis=1)[row] == token
        return log_probs.reshape(windows.shape[:2]), correct.reshape(windows.shape[:2])


def _key(contexts: np.ndarray, vocabulary: int) -> np.ndarray:
    """One int64 per context (m, k)."""
    return contexts.astype(np.int64) @ (vocabulary ** np.arange(contexts.shape[1] - 1, -1, -1, dtype=np.int64))


def _count(stream: np.ndarray, vocabulary: int, order: int) -> tuple[np.ndarray, csr_array]:
    """Sorted keys of the contexts, and how often each token followed: (contexts, V)."""
    windows = np.lib.stride_tricks.sliding_window_view(stream, order)
    keys, rows = np.unique(_key(windows[:, :-1], vocabulary), return_inverse=True)
    counts = csr_array((np.ones(len(rows)), (rows, windows[:, -1])), shape=(len(keys), vocabulary))
    counts.sum_duplicates()
    return keys, counts
