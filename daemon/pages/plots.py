"""Plots as inline SVG: one curve, its axis, and the incident's window behind it. No script, no request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from daemon.pages.words import Words

WIDTH, HEIGHT = 640, 120
LEFT, BOTTOM, TOP = 72, 18, 6
POINTS_MAX = 400


class Curve(NamedTuple):
    """One metric over time; `window` is the incident's, all times are Unix seconds."""

    name: str
    times: Sequence[float]
    values: Sequence[float]
    window: tuple[float, float]


def thinned(times: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """At most POINTS_MAX points that keep every peak: the lowest and the highest of each bucket."""
    if len(values) <= POINTS_MAX:
        return list(zip(times, values, strict=True))
    size = -(-len(values) // (POINTS_MAX // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(values), size):
        places = range(start, min(start + size, len(values)))
        extremes = {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
        kept += [(times[place], values[place]) for place in sorted(extremes)]
    return kept


def svg(curve: Curve, words: Words) -> Markup:
    """The plot, accessible by its title; Markup, with every name escaped."""
    points = thinned(curve.times, curve.values)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if low > 0.0 and low < 0.5 * high:
        low = 0.0  # a share of something is judged from nothing on
    start, end = points[0][0], points[-1][0]

    def across(t: float) -> float:
        part = (t - start) / ((end - start) or 1.0)
        return round(LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - 4), 1)

    def down(value: float) -> float:
        return round(TOP + (1.0 - (value - low) / ((high - low) or 1.0)) * (HEIGHT - TOP - BOTTOM), 1)

    path = " ".join(f"{across(t)},{down(value)}" for t, value in points)
    begun, over = across(curve.window[0]), across(curve.window[1])
    last = words.value(curve.name, points[-1][1])
    label = f"{curve.name}: {words.value(curve.name, low)}, {words.value(curve.name, high)}, {last}"
    base = HEIGHT - BOTTOM
    return Markup(
        '<svg class="plot" role="img" viewBox="0 0 {w} {h}" preserveAspectRatio="none"><title>{label}</title>'
        '<rect class="window" x="{begun}" y="{top}" width="{wide}" height="{tall}"/>'
        '<line class="axis" x1="{left}" y1="{base}" x2="{w}" y2="{base}"/>'
        '<polyline class="curve" points="{path}"/>'
        '<text x="{edge}" y="{upper}" text-anchor="end">{high}</text>'
        '<text x="{edge}" y="{base}" text-anchor="end">{low}</text>'
        '<text x="{left}" y="{h}">{start}</text><text x="{w}" y="{h}" text-anchor="end">{end}</text></svg>'
    ).format(
        w=WIDTH, h=HEIGHT, label=label, begun=begun, top=TOP, wide=max(1.0, round(over - begun, 1)),
        tall=base - TOP, left=LEFT, base=base, path=path, edge=LEFT - 6, upper=TOP + 9,
        high=words.value(curve.name, high), low=words.value(curve.name, low),
        start=words.clock(start, date=False), end=words.clock(end, date=False),
    )  # fmt: skip
