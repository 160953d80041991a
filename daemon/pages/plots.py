"""Plots as inline SVG: one curve, its axis, and the incident's window behind it. No script, no request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from daemon.pages.words import Words

WIDTH, HEIGHT = 640, 120
EDGE = 4  # so that the curve's own width stays inside
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


def figure(curve: Curve, words: Words) -> Markup:
    """The plot with its name, range and times around it; Markup, with every name escaped."""
    points = thinned(curve.times, curve.values)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if 0.0 < low < 0.5 * high:
        low = 0.0  # a share of something is judged from nothing on
    start, end = points[0][0], points[-1][0]

    def across(t: float) -> float:
        part = (t - start) / ((end - start) or 1.0)
        return round(min(1.0, max(0.0, part)) * WIDTH, 1)

    def down(value: float) -> float:
        return round(EDGE + (1.0 - (value - low) / ((high - low) or 1.0)) * (HEIGHT - 2 * EDGE), 1)

    begun, over = across(curve.window[0]), across(curve.window[1])
    return Markup(
        '<figure><figcaption>{name}: {range}, {ends}</figcaption>'
        '<svg class="plot" role="img" viewBox="0 0 {w} {h}" preserveAspectRatio="none"><title>{name}</title>'
        '<rect class="window" x="{begun}" y="0" width="{wide}" height="{h}"/>'
        '<polyline class="curve" points="{path}"/></svg>'
        '<p class="ends"><span>{start}</span><span>{end}</span></p></figure>'
    ).format(
        w=WIDTH, h=HEIGHT, name=curve.name, begun=begun, wide=max(2.0, round(over - begun, 1)),
        path=" ".join(f"{across(t)},{down(value)}" for t, value in points),
        range=words("range", low=words.value(curve.name, low), high=words.value(curve.name, high)),
        ends=words("at_last", value=words.value(curve.name, points[-1][1])),
        start=words.clock(start, date=False), end=words.clock(end, date=False),
    )  # fmt: skip
