"""Numbers as a person would round them, for the one sentence of an evidence."""

from __future__ import annotations

_STEPS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_BINARY_STEPS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def quantity(value: float, unit: str = "") -> str:
    """A count or rate with at most three significant digits: `0.25`, `12.5`, `1430`."""
    size = abs(value)
    if size >= 100 or value == int(value):
        text = f"{value:.0f}"
    else:
        text = f"{value:.1f}" if size >= 10 else f"{value:.2g}"
    return f"{text} {unit}" if unit else text


def octets(value: float) -> str:
    """Bytes in decimal units: `0 B`, `8.4 MB`, `120 GB`."""
    for step, unit in _STEPS:
        if abs(value) >= step:
            return quantity(value / step, unit)
    return f"{value:.0f} B"


def binary(value: float) -> str:
    """Memory in binary units, in which limits are set: `0 B`, `64 MiB`, `1.5 GiB`."""
    for step, unit in _BINARY_STEPS:
        if abs(value) >= step:
            return quantity(value / step, unit)
    return f"{value:.0f} B"


def percent(ratio: float) -> str:
    """A ratio as percent; only what is truly all or nothing reads 100 or 0."""
    value = 100.0 * ratio
    if 0.0 < value < 10.0 or 99.0 <= value < 99.95:
        return f"{value:.1f} %"
    return f"{min(value, 99.9) if value < 100.0 else value:.0f} %" if value < 99.95 else "100 %"


def span(seconds: float) -> str:
    """A duration: `30 ms`, `0.4 s`, `8 s`, `3 min`, `2 h`."""
    if 0.0 < seconds < 0.095:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0", "")
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
