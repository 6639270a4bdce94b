"""Access graph of a dense axis: which elements are active together (a predictor of what will be alive together)."""

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import dsyrk

from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, find_heaviest

# Second moments are D x D float64; beyond this a predictor graph must come from a trace instead.
MAX_MOMENT_BYTES = 4 << 30
# Below this share of its mean square an element's variance is rounding noise of fp32 activations: it is constant.
CONSTANT_VARIANCE = 1e-12


class CoactivationStream:
    """Accumulates first and second moments of activations, batch by batch; holds D^2 float64, never the activations.

    `update(X)` takes (tokens, D); `graph()` gives W_ij = |corr(x_i, x_j)| * bytes_per_element * tokens, thresholded
    to the `nnz_cap` heaviest stored entries. After `graph()`, `dropped` is the share of total weight left out.
    """

    def __init__(self, D: int, nnz_cap: int = 200_000):
        if not isinstance(D, int | np.integer) or isinstance(D, bool) or D < 1:
            raise ConfigError(f"D is the axis length, an integer >= 1, got {D!r}")
        if D * D * 8 > MAX_MOMENT_BYTES:
            raise ResourceError(
                f"second moments of D = {D} elements need {D * D * 8 / 2**30:.1f} GiB, more than "
                f"{MAX_MOMENT_BYTES >> 30} GiB; split the axis into blocks"
            )
        self.D = int(D)
        self.edge_cap = check_nnz_cap(nnz_cap)
        self.tokens = 0
        self.dropped: float | None = None
        self._sum = np.zeros(self.D)
        self._gram = np.zeros((self.D, self.D), order="F")  # only its upper triangle is ever written

    def update(self, X) -> "CoactivationStream":
        """Add activations X, float (tokens, D), numpy or torch; raises `SolverNotConverged` on shape or NaN."""
        batch = _to_float64(X)
        if batch.ndim != 2 or batch.shape[1] != self.D:
            raise SolverNotConverged(f"activations are (tokens, {self.D}), got shape {batch.shape}; flatten the batch")
        if not len(batch):
            return self
        if not np.isfinite(batch).all():
            token, element = np.argwhere(~np.isfinite(batch))[0]
            raise SolverNotConverged(
                f"activation of element {int(element)} at token {int(token)} is {batch[token, element]}; "
                "check the model's weights and inputs"
            )
        self._gram = dsyrk(1.0, batch.T, beta=1.0, c=self._gram, overwrite_c=1)
        self._sum += batch.sum(axis=0)
        self.tokens += len(batch)
        return self

    def graph(self, bytes_per_element: float = 4) -> sp.csr_array:
        """W, csr_array (D, D) in bytes; raises `SolverNotConverged` with fewer than two tokens."""
        if self.tokens < 2:
            raise SolverNotConverged(f"a correlation needs at least 2 tokens, got {self.tokens}; call update() first")
        if not bytes_per_element > 0:
            raise ConfigError(f"bytes_per_element is a positive number, got {bytes_per_element!r}")
        mean = self._sum / self.tokens
        mean_square = np.diag(self._gram) / self.tokens
        variance = mean_square - mean**2
        varies = variance > CONSTANT_VARIANCE * mean_square
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)

        rows, cols = np.triu_indices(self.D, 1)
        correlation = self._gram[rows, cols]
        correlation /= self.tokens
        correlation -= mean[rows] * mean[cols]
        correlation *= scale[rows] * scale[cols]
        # float32 keeps every digit that fp32 activations carry and hides the last-bit noise of the BLAS.
        strength = np.minimum(np.abs(correlation), 1.0).astype(np.float32).astype(np.float64)
        keep = find_heaviest(strength, self.edge_cap)
        total = strength.sum()
        self.dropped = float(1 - strength[keep].sum() / total) if total > 0 else 0.0
        weights = strength[keep] * (bytes_per_element * self.tokens)
        return build_symmetric(rows[keep], cols[keep], weights, self.D)


def _to_float64(X) -> np.ndarray:
    if hasattr(X, "detach"):  # a torch tensor, without importing torch here (bfloat16 has no numpy counterpart)
        X = X.detach().cpu().double().numpy()
    array = np.asarray(X)
    if not np.issubdtype(array.dtype, np.floating):
        raise SolverNotConverged(f"activations are floating point, got dtype {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float64)
