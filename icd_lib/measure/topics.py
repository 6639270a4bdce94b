"""Topics of texts: binary attributes of their words, which no model has a part in."""

import numpy as np

TOPICS = 24
_WHOLE = 512  # texts or words up to which a matrix of both is decomposed whole


def topic_labels(texts: list[str]) -> dict[str, np.ndarray]:
    """Binary attributes of each text's words, task -> int64 (n,): on which side of the median it lies in a topic.

    Topics are the left singular vectors of the domain's TF-IDF matrix, the first left out (it is how common a text's
    words are): latent semantic analysis (Deerwester et al. 1990, section 3). No model has a part in them, and many
    tasks on one text make the mean loss precise at no further forward pass.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        matrix = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(texts)
    except ValueError:  # no word is in two texts
        return {}
    count = min(TOPICS, min(matrix.shape) - 2)
    if count < 1:
        return {}
    left = _left_singular(matrix, count + 1)[:, 1:]
    found = {f"topic {j + 1}": (left[:, j] > np.median(left[:, j])).astype(np.int64) for j in range(left.shape[1])}
    return {name: labels for name, labels in found.items() if labels.any()}


def _left_singular(matrix, count: int) -> np.ndarray:
    """The left singular vectors (n, at most `count`) of a sparse matrix, strongest first, the same in every call.

    Words of few texts fall apart into parts that share none, and there ARPACK begins anew at random: those are small
    enough to be decomposed whole. What has no strength is left out: it could be any vector.
    """
    from scipy.sparse.linalg import svds

    if min(matrix.shape) <= _WHOLE:
        left, strength, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left, strength = left[:, :count], strength[:count]
    else:
        left, strength, _ = svds(matrix, k=count, v0=np.ones(min(matrix.shape)))
    order = np.argsort(-strength, kind="stable")
    return left[:, order][:, strength[order] > 1e-9 * strength.max()]
