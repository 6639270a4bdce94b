"""Figures in words: the same rounding, sign and interval everywhere."""

from html import escape

from icd_lib.metric import Figure
from icd_lib.records.attempts import Change
from icd_lib.storage.machine import ISA_LIMIT, within_limit

_SCALES = {
    "fraction": (100.0, "%"),
    "pp": (1.0, "pp"),
    "%": (1.0, "%"),
    "ms": (1.0, "ms"),
    "MB": (1.0, "MB"),
    "events/s": (1e-6, "events/µs"),
    "J/event": (1e9, "nJ/event"),
    "J/token": (1e3, "mJ/token"),
    "1": (1.0, ""),
    "of 1": (1.0, ""),  # near 1, where the third and fourth decimals are what is of interest
}
_CHANGES = ("fraction", "pp")


def value_text(value: float, unit: str, signed: bool | None = None, size: float | None = None) -> str:
    """A number with its unit; fractions are shown in percent, changes with their sign; `size` sets the decimals.

    >>> value_text(-0.2534, "fraction"), value_text(12.34, "ms"), value_text(0.034, "pp"), value_text(0.98765, "of 1")
    ('−25.3 %', '12.3 ms', '+0.034 pp', '0.9877')
    """
    scale, shown = _SCALES.get(unit, (1.0, unit))
    signed = unit in _CHANGES if signed is None else signed
    decimals = {"pp": 3, "of 1": 4, "fraction": 1 if abs(size or value) >= 0.01 else 2}.get(unit)
    return f"{number(value * scale, signed, decimals)} {shown}".strip()


def number(value: float, signed: bool = False, decimals: int | None = None) -> str:
    """A number at three significant digits or so, with a real minus sign.

    >>> number(83.3187), number(0.41646), number(12290.1), number(-0.5, signed=True), number(-0.004, True, 1)
    ('83.3', '0.416', '12,290', '−0.50', '0.0')
    """
    if value == 0:
        return "0"
    if decimals is None:
        size = abs(value)
        decimals = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 0.5 else 3
        if size < 0.0005:
            return f"{value:{'+' if signed else ''}.1e}".replace("-", "−")
    if round(value, decimals) == 0:
        return f"{0:.{decimals}f}"
    return f"{value:{'+' if signed else ''},.{decimals}f}".replace("-", "−")


def interval_text(ci95: tuple[float, float] | None, unit: str) -> str:
    """A 95 % interval in a unit, empty where there is none.

    >>> interval_text((-0.31, 0.02), "pp"), interval_text((0.98, 0.98), "of 1")
    ('−0.310 to +0.020 pp', '0.9800 to 0.9800')
    """
    if ci95 is None:
        return ""
    size = max(map(abs, ci95))
    low, high = (value_text(bound, unit, size=size) for bound in ci95)
    shown = _SCALES.get(unit, (1.0, unit))[1]
    return f"{low.removesuffix(shown).strip()} to {high}"


def figure_text(item: Figure | None) -> str:
    """A figure in one line: value, interval, kind and n; or the reason why there is none."""
    if item is None:
        return "–"
    if item.is_missing:
        return f"not measured: {item.reason}"
    extent = interval_text(item.ci95, item.unit)
    extras = [f"95 % CI {extent}"] if extent else []
    if item.se_pp is not None:
        extras.append(f"SE {number(item.se_pp, decimals=3)} pp")
    extras.append(_kind(item))
    return f"{value_text(item.value, item.unit)} ({'; '.join(extras)})"


def figure_html(item: Figure | None) -> str:
    """A figure as a table cell: the value, below it interval, kind and n; the method as a tooltip."""
    if item is None:
        return "–"
    if item.is_missing:
        return f'<span class="none">not_measured</span><small>{escape(item.reason)}</small>'
    notes = []
    if item.ci95:
        notes.append(f"[{interval_text(item.ci95, item.unit)}]")
    if item.se_pp is not None:
        notes.append(f"SE {number(item.se_pp, decimals=3)} pp")
    notes.append(_kind(item))
    title = f' title="{escape(item.method)}"' if item.method else ""
    shown = escape(value_text(item.value, item.unit))
    return f"<span{title}>{shown}</span><small>{'<br>'.join(map(escape, notes))}</small>"


def _kind(item: Figure) -> str:
    return kind_text(item) + (f", n = {item.n:,}" if item.n else "")


def kind_text(item: Figure) -> str:
    """A figure's kind; what was counted says so."""
    return "counted" if item.method == "counted" else item.kind


def change_text(change: Change | None) -> str:
    """What a re-permutation changed in the objective."""
    if change is None:
        return "–"
    return f"ΔC {number(change.C, True)}, ΔQ {number(change.Q, True)}, ΔJ {number(change.J, True)}"


def bytes_text(count: int) -> str:
    """Megabytes (10⁶ bytes).

    >>> bytes_text(90852864)
    '90.9 MB'
    """
    return f"{count / 1e6:,.1f} MB"


def processor_text(cpu: dict) -> str:
    """A processor of an environment's record, and of x86 whether it has AMX, on which int8 and bf16 depend most.

    >>> processor_text({"model": "A", "architecture": "x86_64", "simd": ["avx2"]})
    'A, without AMX'
    """
    if cpu.get("architecture") not in ("x86_64", "AMD64"):
        return cpu["model"]
    limit = cpu.get("isa_limit")
    if "amx_tile" not in cpu["simd"]:
        told = "without AMX"
    else:
        told = "with AMX" if "amx_int8" in within_limit({"amx_int8"}, limit) else "AMX switched off"
    return f"{cpu['model']}, {told}" + (f" ({ISA_LIMIT}={limit})" if limit else "")
