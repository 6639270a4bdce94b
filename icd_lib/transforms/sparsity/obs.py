"""Optimal brain surgeon on the Linear that reads an axis: which columns to remove, and how the rest compensate.

The layer-wise problem is min_V ‖X V − T‖² for the consumer's input X (tokens × columns) and target T. With G = XᵀX
(bias as a last column of ones) and the current solution W, removing a group S of columns costs
tr(W_S ([G⁻¹]_SS)⁻¹ W_Sᵀ), and the others absorb W ← W − W_S ([G⁻¹]_SS)⁻¹ [G⁻¹]_S: (Hassibi & Stork 1993, eq. 5;
for groups Kurtic et al. 2023, ZipLM, eq. 3–4). All algebra is float64.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from icd_lib.errors import TransformError

DOWNDATES = 64
CUT = 8


@contextlib.contextmanager
def solvable() -> Iterator[None]:
    """A system of equations that has no solution as a `TransformError` with the cure."""
    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise TransformError(
            f"the second moments of the calibration cannot be inverted ({str(error).splitlines()[0][:120]}): pass more "
            "and more varied text, or a larger ridge (transform.ridge)"
        ) from error


@dataclass
class Moments:
    """Second moments of a consumer's input and target: G (n+1, n+1), R = TᵀX (out, n+1), `energy` = ‖T − mean‖².

    The last column stands for the bias. Without `bias` it is tied to nothing, so that no weight relies on it.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    target_sum: torch.Tensor
    target_square: float
    tokens: int
    bias: bool = True

    @classmethod
    def empty(cls, columns: int, outputs: int, bias: bool = True, device: torch.device | None = None) -> "Moments":
        """Nothing yet; the sums grow on `device`, where the batches are (None: the CPU)."""
        kind = {"dtype": torch.float64, "device": device}
        return cls(
            torch.zeros(columns + 1, columns + 1, **kind),
            torch.zeros(outputs, columns + 1, **kind),
            torch.zeros(outputs, **kind),
            0.0,
            0,
            bias,
        )

    def update(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch: inputs (tokens, columns), targets (tokens, outputs)."""
        inputs, targets = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (inputs, targets))
        columns = inputs.shape[1]
        self.gram[:columns, :columns] += (inputs.T @ inputs).double()
        self.gram[columns, columns] += len(inputs)
        self.cross[:, :columns] += (targets.T @ inputs).double()
        if self.bias:
            sums = inputs.sum(0).double()
            self.gram[columns, :columns] += sums
            self.gram[:columns, columns] += sums
            self.cross[:, columns] += targets.sum(0).double()
        self.target_sum += targets.sum(0).double()
        self.target_square += float(targets.double().square().sum())
        self.tokens += len(inputs)

    def on_cpu(self) -> "Moments":
        """The same where all algebra on them is done."""
        return replace(self, gram=self.gram.cpu(), cross=self.cross.cpu(), target_sum=self.target_sum.cpu())

    @property
    def energy(self) -> float:
        return self.target_square - float(self.target_sum.square().sum()) / max(self.tokens, 1)

    def add(self, other: "Moments") -> None:
        """Take in another batch's moments."""
        for name in ("gram", "cross", "target_sum", "target_square", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def at(self, columns: torch.Tensor) -> "Moments":
        """The moments of a consumer that reads only `columns` (indices) and has the same bias."""
        index = torch.cat([columns, torch.tensor([len(self.gram) - 1])])
        return replace(self, gram=self.gram[index][:, index], cross=self.cross[:, index])

    def damped(self, ridge: float) -> torch.Tensor:
        """G + ridge · mean(diag G) · I."""
        return self.gram + ridge * self.gram.diagonal().mean() * torch.eye(len(self.gram), dtype=self.gram.dtype)


def affine(linear: nn.Linear) -> torch.Tensor:
    """[weight | bias] in float64 on the CPU, shape (out, in + 1)."""
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    return torch.cat([linear.weight.detach(), bias.detach()[:, None]], dim=1).double().cpu()


def term_moments(parts: Iterable[torch.Tensor], weight: torch.Tensor) -> Moments:
    """Moments of a sum of `parts`, each (tokens, columns), as `weight` (out, columns) reads it.

    G_nm = tr(W X_nᵀ X_m Wᵀ), the target is the whole sum, so that factors on the parts are the weights to be found.
    """
    outputs = torch.stack([(part @ weight.T).float().reshape(-1) for part in parts])
    moments = Moments.empty(len(outputs), 1, bias=False)
    moments.gram[:-1, :-1] = (outputs @ outputs.T).double().cpu()
    moments.gram[-1, -1] = moments.tokens = outputs.shape[1] // weight.shape[0]
    moments.cross[:, :-1] = moments.gram[:-1, :-1].sum(0)
    moments.target_square = float(moments.gram[:-1, :-1].sum())
    return moments


@solvable()
def refit(moments: Moments, current: torch.Tensor, ridge: float) -> torch.Tensor:
    """Least squares to the targets with a ridge toward `current`: (R + λ W₀)(G + λ I)⁻¹, shape (out, n + 1)."""
    weight = ridge * moments.gram.diagonal().mean()
    return torch.linalg.solve(moments.damped(ridge), (moments.cross + weight * current).T).T


@dataclass
class Elimination:
    """Greedy elimination of groups: `order` of removal, and `loss[k]` = added squared error after k removals."""

    order: list[int]
    loss: list[float]

    def alive(self, groups: int, kept: int) -> torch.Tensor:
        """Bool (groups,): what is left when `kept` groups stay."""
        mask = torch.ones(groups, dtype=torch.bool)
        mask[self.order[: groups - kept]] = False
        return mask


@solvable()
def eliminate(gram: torch.Tensor, weights: torch.Tensor, group: int, removals: int) -> Elimination:
    """Remove `removals` groups of `group` consecutive columns, cheapest first, with exact compensation in between.

    gram: (n+1, n+1) damped; weights: (out, n+1); the bias column is never removed. Ties fall to the lower index.
    """
    return (
        _eliminate_columns(gram, weights, removals) if group == 1 else _eliminate_groups(gram, weights, group, removals)
    )


def _eliminate_groups(gram: torch.Tensor, weights: torch.Tensor, group: int, removals: int) -> Elimination:
    """`eliminate` for groups of columns; what was removed is cut out of the matrices every `CUT` removals."""
    inverse, weights = torch.linalg.inv(gram), weights.clone()
    left = torch.arange((len(gram) - 1) // group)
    dead = torch.zeros(len(left), dtype=torch.bool)
    result = Elimination([], [0.0])
    while len(result.order) < removals:
        chosen, cost = _remove_group(inverse, weights, group, len(left), dead)
        dead[chosen] = True
        result.order.append(int(left[chosen]))
        result.loss.append(result.loss[-1] + max(cost, 0.0))
        if int(dead.sum()) == CUT:
            columns = torch.cat([(~dead).repeat_interleave(group), torch.ones(1, dtype=torch.bool)]).nonzero()[:, 0]
            inverse, weights = inverse[columns][:, columns], weights[:, columns]
            left, dead = left[~dead], dead[~dead]
    return result


def _eliminate_columns(gram: torch.Tensor, weights: torch.Tensor, removals: int) -> Elimination:
    """`eliminate` for single columns: the rank-one downdates of `DOWNDATES` removals are applied as one product.

    In between only what the choice needs is kept up to date: the pivots, diag G⁻¹, and the squared column norms of W.
    """
    inverse, weights = torch.linalg.inv(gram), weights.clone()
    left = torch.arange(len(gram))
    result = Elimination([], [0.0])
    while len(result.order) < removals:
        count = min(DOWNDATES, removals - len(result.order))
        alive = _downdate(inverse, weights, left, count, result)
        inverse, weights, left = inverse[alive][:, alive], weights[:, alive], left[alive]
    return result


def _downdate(inverse, weights, left, count: int, result: Elimination) -> torch.Tensor:
    """Choose `count` columns, append them to `result`, downdate in place; returns the indices of what is left."""
    size = len(left)
    pivots, norms = inverse.diagonal().clone(), weights.square().sum(0)
    alive = torch.ones(size, dtype=torch.bool)
    rows, heads = inverse.new_zeros(count, size), inverse.new_zeros(count, len(weights))
    for k in range(count):
        costs = (norms[:-1].clamp_min(0) / pivots[:-1]).masked_fill_(~alive[:-1], torch.inf)
        chosen = int(costs.argmin())
        if not float(pivots[chosen]) > 0:  # rounding has eaten it
            raise torch.linalg.LinAlgError(f"pivot {float(pivots[chosen]):.3g}")
        cost, root = float(costs[chosen]), float(pivots[chosen]) ** 0.5
        earlier = rows[:k, chosen].clone()
        row = (inverse[chosen] - earlier @ rows[:k]) / root
        head = (weights[:, chosen] - earlier @ heads[:k]) / root
        shared = head @ weights - (heads[:k] @ head) @ rows[:k]
        norms += row * (row * head.square().sum() - 2 * shared)
        pivots -= row.square()
        rows[k], heads[k] = row, head
        alive[chosen] = False
        result.order.append(int(left[chosen]))
        result.loss.append(result.loss[-1] + max(cost, 0.0))
    inverse -= rows.T @ rows
    weights -= heads.T @ rows
    return alive.nonzero()[:, 0]


def _remove_group(inverse, weights, group, groups, dead) -> tuple[int, float]:
    columns = groups * group
    tiles = inverse[:columns, :columns].reshape(groups, group, groups, group)
    blocks = tiles[torch.arange(groups), :, torch.arange(groups), :]
    grouped = weights[:, :columns].reshape(-1, groups, group).permute(1, 2, 0)
    shared = grouped @ grouped.transpose(1, 2)
    solved = torch.cholesky_solve(shared, torch.linalg.cholesky(blocks))
    costs = solved.diagonal(dim1=1, dim2=2).sum(1).masked_fill_(dead, torch.inf)
    chosen = int(costs.argmin())
    span = slice(chosen * group, (chosen + 1) * group)
    rows = inverse[span].clone()
    absorbed = torch.linalg.solve(inverse[span, span], rows)
    weights -= weights[:, span].clone() @ absorbed
    inverse -= rows.T @ absorbed
    inverse[span, span] = torch.eye(group, dtype=inverse.dtype)
    weights[:, span] = 0.0
    return chosen, float(costs[chosen])


@solvable()
def restrict(gram: torch.Tensor, weights: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Best weights that use only `columns` (plus bias): argmin_V tr((V−W) G (V−W)ᵀ), shape (out, len(columns) + 1)."""
    index = torch.cat([columns, torch.tensor([len(gram) - 1])])
    return torch.linalg.solve(gram[index][:, index], (weights @ gram[:, index]).T).T
