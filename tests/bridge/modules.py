"""Small StableHLO texts that the tests of the bridge share."""

import numpy as np

from icd_lib.bridge.layout import Layout

GATHER = (
    '"stablehlo.gather"({value}, %{indices}) <{{dimension_numbers = #stablehlo.gather<offset_dims = [0, 1], '
    "collapsed_slice_dims = [2], start_index_map = [2], index_vector_dim = 1>, slice_sizes = array<i64: 2, 4, 1>}}> : "
    "(tensor<2x4x{size}xf32>, tensor<{size}xi64>) -> tensor<2x4x{size}xf32>"
)


def constant(name: str, values: np.ndarray) -> str:
    return f"%{name} = stablehlo.constant dense<{values.tolist()}> : tensor<{values.size}xi64>"


def weights(**arrays: np.ndarray) -> str:
    entries = ", ".join(f'{name}: "0x04000000{array.tobytes().hex().upper()}"' for name, array in arrays.items())
    return f"{{-#\n  dialect_resources: {{ builtin: {{ {entries} }} }}\n#-}}\n"


def two_gathers(first: np.ndarray, second: np.ndarray, between: str = "tanh") -> str:
    """x (2, 4, D) gathered, through an elementwise operator, gathered again."""
    size = first.size
    kind = f"tensor<2x4x{size}xf32>"
    return f"""module {{
  func.func @main(%x: {kind}) -> {kind} {{
    {constant("p", first)}
    {constant("q", second)}
    %a = {GATHER.format(value="%x", indices="p", size=size)}
    %b = stablehlo.{between} %a : {kind}
    %c = {GATHER.format(value="%b", indices="q", size=size)}
    return %c : {kind}
  }}
}}
"""


def product(weight: np.ndarray, permutation: np.ndarray | None = None, dtype: str = "f32") -> str:
    """x (2, 4, K) times the transposed weight "w" (N, K), x gathered before where there is a permutation."""
    width, depth = weight.shape
    gathered = (
        ""
        if permutation is None
        else f"""
    {constant("p", permutation)}
    %g = {GATHER.format(value="%x", indices="p", size=depth)}"""
    )
    value = "%x" if permutation is None else "%g"
    text = f"""module {{
  func.func @main(%x: tensor<2x4x{depth}xf32>) -> tensor<2x4x{width}xf32> {{{gathered}
    %w = stablehlo.constant dense_resource<w> : tensor<{width}x{depth}xf32>
    %t = stablehlo.transpose %w, dims = [1, 0] : (tensor<{width}x{depth}xf32>) -> tensor<{depth}x{width}xf32>
    %c = stablehlo.dot_general {value}, %t, contracting_dims = [2] x [0] : \
(tensor<2x4x{depth}xf32>, tensor<{depth}x{width}xf32>) -> tensor<2x4x{width}xf32>
    return %c : tensor<2x4x{width}xf32>
  }}
}}
"""
    return text.replace("xf32", f"x{dtype}") + weights(w=weight)


def errors_of_sums(x: np.ndarray, weight: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Relative errors of `found` for x (B, L, K) times the transposed weight (N, K), and of one float32 sum over K."""
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    one = np.zeros_like(exact, dtype=np.float32)
    for place in range(weight.shape[1]):
        one += x[..., place : place + 1] * weight[:, place]
    return tuple(np.linalg.norm(item - exact) / np.linalg.norm(exact) for item in (found, one))


def layout(width: int, tile: int = 16, dim: int = 0, axis: str = "ffn.0") -> Layout:
    return {"w": [{"axis": axis, "dim": dim, "tile": tile, "width": width, "pi": "abc"}]}
