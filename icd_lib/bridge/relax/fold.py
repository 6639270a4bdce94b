"""Fold on Relax: a permutation that one operator writes and the next one undoes is cancelled; the rest is counted."""

import numpy as np

from icd_lib.bridge.gathers import Gathers
from icd_lib.optional import load_optional

_UNARY = ("tanh", "exp", "sigmoid", "negative", "abs", "rsqrt", "sqrt", "log", "erf", "nn.relu", "nn.gelu", "nn.silu")
_GATHERS = {"relax.take", "relax.gather_elements", "relax.gather_nd", "relax.index_tensor"}


def fold(module):
    """(module without pairs, identities and permutations that a weight can take, log)."""
    log: list[str] = []
    while True:
        before = len(log)
        for pattern, rewriter in _rules(log):
            module = _rewritten(module, pattern, rewriter)
        if len(log) == before:
            return module, log


def gathers(module) -> Gathers:
    """What is left at run time, by kind."""
    main = module["main"]
    count = int(main.attrs["num_input"]) if main.attrs and "num_input" in main.attrs else len(main.params)
    moving = {var.name for var in list(main.params)[:count]}
    counts = {"lookups": 0, "permutations": 0, "other": 0}
    relax = load_optional("tvm.relax", "apache-tvm")
    for block in main.body.blocks:
        for binding in block.bindings:
            used = [var.name for var in relax.analysis.free_vars(binding.value)]
            if any(name in moving for name in used):
                moving.add(binding.var.name)
            name = getattr(getattr(binding.value, "op", None), "name", "")
            if name in _GATHERS and not _takes_one(binding.value):
                reads = [any(v.name in moving for v in relax.analysis.free_vars(arg)) for arg in binding.value.args]
                if not reads[0]:
                    counts["lookups"] += any(reads[1:])
                else:
                    numbers = "float" in str(binding.value.args[0].ty.dtype)
                    counts["permutations" if numbers and not any(reads[1:]) else "other"] += 1
    return Gathers(**counts)


def _takes_one(call) -> bool:
    """Whether it is a slice in other words: one constant index."""
    tvm = load_optional("tvm", "apache-tvm")
    index = call.args[-1]
    return isinstance(index, tvm.ir.GenericConst) and index.value.numpy().size == 1


def _rules(log: list[str]) -> list:
    """(pattern, what its matches become), the first that applies wins."""
    relax, dpl = load_optional("tvm.relax", "apache-tvm"), load_optional("tvm.relax.dpl", "apache-tvm")
    x, first, second, weight = dpl.wildcard(), dpl.is_const(), dpl.is_const(), dpl.wildcard()
    inner = dpl.is_op("relax.take")(x, first)
    direct = dpl.is_op("relax.take")(inner, second)
    single = dpl.is_op("relax.take")(x, first)
    product = dpl.is_op("relax.matmul")(inner, weight)

    def joined(call, found):
        axis = _axis(call)
        if axis is None or axis != _axis(found[inner]):
            return call
        together = _values(found[first])[_values(found[second])]
        if np.array_equal(together, np.arange(_size(found[x], axis))):
            log.append(f"two gathers of {together.size} along dim {axis} cancel")
            return found[x]
        log.append(f"two gathers of {together.size} along dim {axis} are one")
        return relax.op.take(found[x], relax.const(together, "int64"), axis=axis)

    def dropped(call, found):
        axis, values = _axis(call), _values(found[first])
        if axis is None or not np.array_equal(values, np.arange(_size(found[x], axis))):
            return call
        log.append(f"a gather of {values.size} along dim {axis} that changes nothing is gone")
        return found[x]

    def into_weight(call, found):
        axis, values = _axis(found[inner]), _values(found[first])
        last = len(found[x].ty.shape) - 1
        if axis != last or not np.array_equal(np.sort(values), np.arange(_size(found[x], axis))):
            return call
        along = len(found[weight].ty.shape) - 2
        log.append(f"a gather of {values.size} along dim {axis} is its weight's own")
        moved = relax.op.take(found[weight], relax.const(np.argsort(values), "int64"), axis=along)
        return relax.op.matmul(found[x], moved)

    through = [_through(dpl, relax, f"relax.{name}", log) for name in _UNARY]
    return [(direct, joined), (single, dropped), *through, (product, into_weight)]


def _through(dpl, relax, name: str, log: list[str]) -> tuple:
    """A gather after an elementwise operator goes before it where another one stands there."""
    x, first, second = dpl.wildcard(), dpl.is_const(), dpl.is_const()
    inner = dpl.is_op("relax.take")(x, first)
    between = dpl.is_op(name)(inner)
    outer = dpl.is_op("relax.take")(between, second)

    def moved(call, found):
        axis = _axis(call)
        if axis is None or axis != _axis(found[inner]):
            return call
        together = relax.const(_values(found[first])[_values(found[second])], "int64")
        log.append(f"a gather along dim {axis} goes before {name}")
        operator = found[between].op
        taken = relax.op.take(found[x], together, axis=axis)
        return relax.Call(operator, [taken], found[between].attrs)

    return outer, moved


def _rewritten(module, pattern, rewriter):
    dpl = load_optional("tvm.relax.dpl", "apache-tvm")
    changed = module.clone() if hasattr(module, "clone") else type(module)(dict(module.functions.items()))
    changed["main"] = dpl.rewrite_call(pattern, rewriter, module["main"])
    return changed


def _axis(call) -> int | None:
    """The dimension along which a `take` takes a list of slices; None where it flattens, or takes a single one."""
    axis = call.attrs.axis
    if axis is None or len(call.args[1].ty.shape) != 1:
        return None
    return int(axis) % len(call.args[0].ty.shape)


def _size(value, axis: int) -> int:
    return int(value.ty.shape[axis])


def _values(constant) -> np.ndarray:
    return constant.value.numpy().reshape(-1)
