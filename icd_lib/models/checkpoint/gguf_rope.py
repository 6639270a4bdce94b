"""Rotary embeddings of a GGUF file that are slower than their base says, as the config of Transformers says them.

llama.cpp divides the angle of every rotary pair by a factor, where the file has the tensor `rope_freqs.weight` (one
factor a pair; `ggml_rope_ext`). Llama 3.1 and newer are stored so: what their config says went into the factors when
the file was written, and Transformers' reader leaves that tensor out. Here it is found again.
"""

import math
from collections.abc import Iterator

import numpy as np

from icd_lib.errors import ConfigError

FREQS = "rope_freqs.weight"
_LONG = "rope_factors_"  # short and long ones, of longrope
_ORIGINAL = 8192  # positions that Llama 3 was trained on; only its ratios to the two wavelengths have a meaning
_CLOSE = 1e-5  # relative: factors are float32
_CURE = "take the model as safetensors"


def rope_parameters(reader, architecture: str, size: int, positions: int, theta: float) -> dict | None:
    """What config.rope_parameters has to say beside the base, None where the base says all.

    reader: a `gguf.GGUFReader`; size: dims of a head; positions: most that the model takes. Raises `ConfigError` for
    scaling of another type, and for factors that no config of type llama3 gives.
    """
    scaling = _value(reader, f"{architecture}.rope.scaling.type") or "none"
    if scaling != "none" or _value(reader, f"{architecture}.rope.scale_linear") not in (None, 1):
        kind = "linear" if scaling == "none" else scaling
        raise ConfigError(f"its rotary embeddings are scaled ({kind}), which is not read from GGUF: {_CURE}")
    rotated = _value(reader, f"{architecture}.rope.dimension_count")
    if rotated not in (None, size):
        raise ConfigError(f"it turns {rotated} of a head's {size} dims, and all of them are turned here: {_CURE}")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if long := [name for name in tensors if name.startswith(_LONG)]:
        raise ConfigError(f"it has {long[0]} (longrope), which is not read from GGUF: {_CURE}")
    if FREQS not in tensors:
        return None
    factors = np.asarray(tensors[FREQS].data, np.float64).ravel()
    waves = wavelengths(theta, size)
    if factors.shape != waves.shape:
        raise ConfigError(f"its {FREQS} has {factors.size} factors for {waves.size} rotary pairs: {_CURE}")
    if np.allclose(factors, 1, rtol=_CLOSE, atol=0):
        return None
    found = fit_llama3(factors, waves, min(_ORIGINAL, max(1, positions // 2)))
    if found is None:
        raise ConfigError(f"its {FREQS} are not those of rotary embeddings of type llama3: {_CURE}")
    return found


def wavelengths(theta: float, size: int) -> np.ndarray:
    """Positions in which each rotary pair of a head of `size` dims turns once, float64 (size / 2,).

    >>> wavelengths(1e4, 4).round(2).tolist()
    [6.28, 628.32]
    """
    return 2 * math.pi * theta ** (np.arange(0, size, 2) / size)


def fit_llama3(factors: np.ndarray, waves: np.ndarray, original: int) -> dict | None:
    """Parameters of type llama3 that give these factors, float64 (pairs,), at these wavelengths (`wavelengths`).

    A pair up to the short wavelength keeps its frequency (factor 1), one beyond the long wavelength is slowed by the
    largest factor, and between them 1 / factor is linear in 1 / wavelength (Llama 3.1's reference code). Files say
    neither wavelength: two pairs between them do; of one alone it is taken that they are 1 : 4, as Llama's are, where
    that gives the factors. `original` is the length that both are told against. None where nothing gives the factors.

    >>> waves = wavelengths(5e5, 128)
    >>> list(fit_llama3(llama3_factors(waves, 8, 1, 4, 8192), waves, 8192).values())
    ['llama3', 8.0, 1.0, 4.0, 8192]
    """
    most = float(factors.max())
    if not (np.isfinite(factors).all() and factors.min() >= 1 - _CLOSE and most > 1):
        return None
    for short, long in _bounds(factors, waves):
        low, high, factor = (float(f"{value:.6g}") for value in (original / long, original / short, most))
        given = llama3_factors(waves, factor, low, high, original) if low < high else 0
        if np.allclose(given, factors, rtol=_CLOSE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return None


def _bounds(factors: np.ndarray, waves: np.ndarray) -> Iterator[tuple[float, float]]:
    """Short and long wavelengths that may have given the factors."""
    most = factors.max()
    slow, kept = (np.isclose(factors, value, rtol=_CLOSE, atol=0) for value in (most, 1.0))
    inside = waves[~slow & ~kept]
    share = (1 / factors[~slow & ~kept] - 1 / most) / (1 - 1 / most)  # of the frequency that is kept, 1 ... 0
    if len(inside) > 1:
        slope, offset = np.polyfit(inside[0] / inside, share, 1)
        if slope > 0 > offset:
            yield inside[0] * slope / (1 - offset), inside[0] * slope / -offset
    elif len(inside):
        for ratio in (4, 2, 1.5, 1.2, 1.1):  # the wider ones may reach over the neighbours
            long = inside[0] * (1 + (ratio - 1) * share[0])
            yield long / ratio, long
    else:
        first = waves[slow].min()
        last = waves[kept].max() if kept.any() else first / 8
        yield last ** (2 / 3) * first ** (1 / 3), last ** (1 / 3) * first ** (2 / 3)


def llama3_factors(waves: np.ndarray, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """By how much each rotary pair is slowed, float64 (pairs,): the formula of Llama 3.1's config.

    >>> llama3_factors(np.array([10.0, 20.0, 40.0]), 8, 1, 4, 32).round(3).tolist()
    [1.304, 3.333, 8.0]
    """
    share = np.clip((original / waves - low) / (high - low), 0, 1)
    return 1 / ((1 - share) / factor + share)


def _value(reader, name: str):
    field = reader.get_field(name)
    return None if field is None else field.contents()
