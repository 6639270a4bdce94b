"""Access graph of a dense axis: which elements are active together (a predictor of what will be alive together)."""

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dpotri
from threadpoolctl import threadpool_limits

from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph.sparsify import HeaviestEdges, build_symmetric, check_nnz_cap, dropped_of

# Up to this D all second moments are held (512 MiB at 8,192 elements); beyond it a sketch of this many rows.
EXACT_SIZE, SKETCH_ROWS = 8192, 1024
# Below this share of its mean square an element's variance is rounding noise of fp32 activations: it is constant.
CONSTANT_VARIANCE = 1e-12
MAX_STATE_BYTES = 4 << 30
MOST_BYTES = 1e100  # of an element, so that W's are float64s
LEAST_SQUARES = 1e-280  # a sum of squares below this has lost its digits
_BLOCK = 1 << 22  # correlations computed at a time
_SIGN_SEED = 20_260_518


class CoactivationStream:
    """Accumulates activations batch by batch and never holds them; W_ij = |corr(x_i, x_j)| * bytes * tokens.

    `update(X)` takes (tokens, D); `graph()` gives the `nnz_cap` heaviest stored entries. After it, `dropped` is the
    share of total weight left out and `meta` says the same in edges and bytes.

    Means and variances are always exact. Covariances are exact, from D^2 float64 of second moments, for D <= 8192 or
    with `sketch_rows=0`. Beyond, or with `sketch_rows=k`, they come from a count sketch over the tokens (Charikar, Chen
    and Farach-Colton 2002): token t is added with a random sign to row t mod k of a (k, D) float64 array. Each is then
    unbiased with a standard error of at most about sqrt(2 / k) in units of correlation (`standard_error`), and exact
    again while there are at most k tokens. No D x D array is made; time O(tokens D + k D^2), in blocks.

    `whiten` = a ridge r > 0, in mean eigenvalues of the correlation matrix R, takes R (R + r I)^-1 in place of R and
    scales it to unit diagonal: directions that many elements share are flattened, so that a loud common factor does not
    hide the finer communities (r -> infinity gives R back; r -> 0 gives partial correlations).
    """

    def __init__(self, D: int, nnz_cap: int = 200_000, *, sketch_rows: int | None = None, whiten: float | None = None):
        if not isinstance(D, int | np.integer) or isinstance(D, bool) or D < 1:
            raise ConfigError(f"D is the axis length, an integer >= 1, got {D!r}")
        self.D = int(D)
        self.edge_cap = check_nnz_cap(nnz_cap)
        self.rows = _check_rows(sketch_rows, self.D)
        self.whiten = _check_ridge(whiten)
        self.tokens = 0
        self.dropped: float | None = None
        self.meta: dict = {}
        self._sum, self._square_sum = np.zeros(self.D), np.zeros(self.D)
        if self.rows:
            self._sketch, self._sign_sum = np.zeros((self.rows, self.D)), np.zeros(self.rows)
            self._signs = np.random.default_rng(_SIGN_SEED)
        else:
            self._gram = np.zeros((self.D, self.D), order="F")  # only its upper triangle is ever written

    @property
    def standard_error(self) -> float:
        """Of a correlation, from sketching alone; 0 when it is exact."""
        return float(np.sqrt(2 / self.rows)) if self.rows and self.tokens > self.rows else 0.0

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
        if self.rows:
            self._update_sketch(batch)
        else:
            with threadpool_limits(1, "blas"):  # the order of a sum must not depend on the number of threads
                self._gram = dsyrk(1.0, batch.T, beta=1.0, c=self._gram, overwrite_c=1)
        self._sum += batch.sum(axis=0)
        self._square_sum += np.einsum("td,td->d", batch, batch)
        self.tokens += len(batch)
        return self

    def graph(self, bytes_per_element: float = 4) -> sp.csr_array:
        """W, csr_array (D, D) in bytes; raises `SolverNotConverged` with fewer than two tokens."""
        if self.tokens < 2:
            raise SolverNotConverged(f"a correlation needs at least 2 tokens, got {self.tokens}; call update() first")
        if not 0 < bytes_per_element <= MOST_BYTES:
            raise ConfigError(f"bytes_per_element is a positive number up to {MOST_BYTES:g}, got {bytes_per_element!r}")
        largest = float(self._square_sum.max())
        if not np.isfinite(largest) or (self._sum.any() and largest < LEAST_SQUARES):
            raise SolverNotConverged(
                f"the squares of an element's activations sum to {largest}, which float64 cannot tell apart; "
                "multiply all activations by a constant"
            )
        heaviest = HeaviestEdges(self.edge_cap)
        with threadpool_limits(1, "blas"):
            for first, block in self._sketch_blocks() if self.rows else self._moment_blocks():
                # float32 keeps every digit that fp32 activations carry and hides the last-bit noise of the BLAS.
                strength = np.minimum(np.abs(block), 1).astype(np.float32)
                heaviest.offer_block(np.triu(strength, 1), first)
        rows, cols, strength = heaviest.result()
        unit = bytes_per_element * self.tokens
        graph = build_symmetric(rows, cols, strength * unit, self.D)
        kept = float(strength.sum())
        self.dropped = 1 - kept / heaviest.weight if len(rows) < heaviest.edges else 0.0
        self.meta = {
            **dropped_of(graph, heaviest.edges, heaviest.weight * unit),
            "tokens": self.tokens,
            "sketch_rows": self.rows,
            "standard_error": self.standard_error,
            "whiten": self.whiten,
            "exact": self.standard_error == 0,
        }
        return graph

    def _update_sketch(self, batch: np.ndarray) -> None:
        sign = np.where(self._signs.random(len(batch)) < 0.5, -1.0, 1.0)
        start, done = self.tokens % self.rows, 0
        while done < len(batch):
            count = min(self.rows - start, len(batch) - done)
            here, there = slice(start, start + count), slice(done, done + count)
            self._sketch[here] += sign[there, None] * batch[there]
            self._sign_sum[here] += sign[there]
            start, done = 0, done + count

    def _mean_and_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and 1 / standard deviation of each element; 0 where it is constant."""
        mean, mean_square = self._sum / self.tokens, self._square_sum / self.tokens
        variance = mean_square - mean**2
        varies = variance > CONSTANT_VARIANCE * mean_square
        return mean, np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)

    def _moment_blocks(self):
        """(first row, correlations of some rows with the elements from the first row on) over all rows."""
        mean, scale = self._mean_and_scale()
        whitened = None if self.whiten is None else self._whiten_moments(mean, scale, self.whiten)
        for rows in _row_blocks(self.D):
            if whitened is not None:
                yield rows.start, whitened[rows, rows.start :]
                continue
            cols = slice(rows.start, self.D)
            block = self._gram[rows, cols] / self.tokens
            block -= np.outer(mean[rows], mean[cols])
            block *= np.outer(scale[rows], scale[cols])
            yield rows.start, block

    def _whiten_moments(self, mean: np.ndarray, scale: np.ndarray, whiten: float) -> np.ndarray:
        """R (R + r I)^-1 = I - r (R + r I)^-1, r = `whiten`, at unit diagonal; only its upper triangle is filled."""
        matrix = self._gram / self.tokens
        for col in range(self.D):
            matrix[:, col] = (matrix[:, col] - mean[col] * mean) * (scale[col] * scale)
        matrix[np.diag_indices(self.D)] = (scale > 0) + whiten
        factor, failed = dpotrf(matrix, lower=0, overwrite_a=1)
        if not failed:
            matrix, failed = dpotri(factor, lower=0, overwrite_c=1)
        if failed:
            raise SolverNotConverged(
                f"the correlation matrix plus {whiten} is not positive definite; give a larger whiten"
            )
        matrix *= -whiten
        return _to_unit_diagonal(matrix, 1 + np.diag(matrix))

    def _sketch_blocks(self):
        """As `_moment_blocks`, from the sketch."""
        mean, scale = self._mean_and_scale()
        scale = scale / np.sqrt(self.tokens)
        rows = np.empty(self._sketch.shape, np.float32 if self.whiten is None else np.float64)
        for row, (sums, sign) in enumerate(zip(self._sketch, self._sign_sum, strict=True)):
            rows[row] = (sums - sign * mean) * scale
        if self.whiten is not None:
            # S'(S S' + r I)^-1 S for R = S'S, by one triangular solve with a factor of k x k.
            factor = np.linalg.cholesky(rows @ rows.T + self.whiten * np.eye(self.rows))
            rows = solve_triangular(factor, rows, lower=True, overwrite_b=True, check_finite=False)
            norms = np.sqrt(np.square(rows).sum(axis=0))
            rows *= np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0.0)
            rows = rows.astype(np.float32)
        for block in _row_blocks(self.D):
            yield block.start, rows[:, block].T @ rows[:, block.start :]


def _row_blocks(D: int):
    height = max(1, _BLOCK // D)
    return (slice(first, min(first + height, D)) for first in range(0, D, height))


def _to_unit_diagonal(matrix: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    scale = np.where(diagonal > CONSTANT_VARIANCE, 1 / np.sqrt(np.maximum(diagonal, CONSTANT_VARIANCE)), 0.0)
    for col in range(len(matrix)):
        matrix[:, col] *= scale[col] * scale
    return matrix


def _check_rows(sketch_rows: int | None, D: int) -> int:
    if sketch_rows is None:
        sketch_rows = 0 if D <= EXACT_SIZE else SKETCH_ROWS
    if isinstance(sketch_rows, bool) or not isinstance(sketch_rows, int | np.integer) or sketch_rows < 0:
        raise ConfigError(f"sketch_rows is an integer >= 0 (0: exact), got {sketch_rows!r}")
    state = D * (sketch_rows or D) * 8
    if state > MAX_STATE_BYTES:
        raise ResourceError(
            f"co-activation of D = {D} elements with sketch_rows = {sketch_rows} needs {state / 2**30:.1f} GiB, more "
            f"than {MAX_STATE_BYTES >> 30} GiB; give fewer sketch_rows (0 means exact) or split the axis"
        )
    return int(sketch_rows)


def _check_ridge(whiten) -> float | None:
    if whiten is None:
        return None
    if isinstance(whiten, bool) or not isinstance(whiten, int | float | np.number) or not 0 < whiten < np.inf:
        raise ConfigError(f"whiten is a ridge > 0 in mean eigenvalues, or None, got {whiten!r}")
    return float(whiten)


def _to_float64(X) -> np.ndarray:
    if hasattr(X, "detach"):  # a torch tensor, without importing torch here (bfloat16 has no numpy counterpart)
        X = X.detach().cpu().double().numpy()
    array = np.asarray(X)
    if not np.issubdtype(array.dtype, np.floating):
        raise SolverNotConverged(f"activations are floating point, got dtype {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float64)
