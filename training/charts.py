"""Charts as inline SVG: loss, confusion, calibration, precision and recall, size against quality.

Each takes plain lists and gives the text of one `<svg>` element that asks for nothing from anywhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

Curve = tuple[Sequence[float], Sequence[float]]

CLASSES_NAMED = 12  # more class names than these overlap
_SIZE = (4.6, 3.2)  # inches
_INK, _ACCENT, _SOFT = "#24292f", "#0b6e99", "#b9c4cc"


def loss(curves: Mapping[str, Curve]) -> str:
    """Loss against training step, a line for each named curve."""
    figure, axes = _axes("step", "loss")
    for number, (name, (steps, values)) in enumerate(curves.items()):
        style = "-" if number % 2 == 0 else "--"
        axes.plot(steps, values, style, label=name, linewidth=1.4, marker="o" if len(steps) < 3 else "")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "loss" + "".join(curves))


def confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """True class by row, said class by column, as shares of the row; a small table names its counts."""
    figure, axes = _axes("said", "true")
    shares = [[cell / max(1, sum(row)) for cell in row] for row in table]
    # As drawn cells: an embedded picture would be a request of its own to the page's policy.
    axes.pcolormesh(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.invert_yaxis()
    if len(classes) <= CLASSES_NAMED:
        places = [place + 0.5 for place in range(len(classes))]
        axes.set_xticks(places, classes, rotation=30, ha="right", fontsize=7)
        axes.set_yticks(places, classes, fontsize=7)
        for y, row in enumerate(table):
            for x, cell in enumerate(row):
                ink = "white" if shares[y][x] > 0.6 else _INK
                axes.text(x + 0.5, y + 0.5, str(cell), ha="center", va="center", fontsize=7, color=ink)
    return _svg(figure, f"confusion{table}")


def calibration(stated: Sequence[float], observed: Sequence[float], error: float) -> str:
    """Stated probability against what was observed; the diagonal is honest."""
    figure, axes = _axes("stated probability", "observed share")
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1.0)
    axes.plot(stated, observed, color=_ACCENT, marker="o", markersize=3, linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}", fontsize=9)
    return _svg(figure, f"calibration{stated}{observed}")


def precision_recall(curves: Mapping[str, Curve], base_rate: float | None = None) -> str:
    """Precision against recall for each named curve; the line at the base rate is guessing."""
    figure, axes = _axes("recall", "precision")
    for name, (precision, recall) in curves.items():
        axes.step(recall, precision, where="post", label=name, linewidth=1.4)
    if base_rate is not None:
        axes.axhline(base_rate, color=_SOFT, linewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure, f"precision{curves}")


def size_quality(points: Sequence[tuple[str, float, float]], quality: str) -> str:
    """A point for each named model: megabytes (logarithmic) against a quality figure."""
    figure, axes = _axes("MB", quality)
    axes.set_xscale("log")
    for name, size_bytes, value in points:
        axes.plot([size_bytes / 1e6], [value], "o", color=_ACCENT, markersize=5)
        axes.annotate(name, (size_bytes / 1e6, value), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.margins(0.2)
    return _svg(figure, f"size{points}")


def search(targets: Sequence[float], *, chance: int, reference: float | None = None) -> str:
    """A point for each trial, the best so far as a line; the first `chance` were drawn at random."""
    figure, axes = _axes("trial", "target")
    _draw_search(axes, targets, chance, reference)
    return _svg(figure, f"search{targets}")


def choice(name: str, values: Sequence[Any], targets: Sequence[float], best: int) -> str:
    """Each trial's target against one parameter's value; the trial `best` stands out."""
    figure, axes = _axes(name, "target")
    _draw_choice(axes, values, targets, best)
    return _svg(figure, f"choice{name}{values}")


def search_png(
    targets: Sequence[float],
    choices: Mapping[str, Sequence[Any]],
    *,
    chance: int,
    best: int,
    reference: float | None = None,
) -> bytes:
    """The search and each parameter's choices in one picture."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = 3
    rows = -(-(1 + len(choices)) // columns)
    figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows), layout="constrained", dpi=110)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    _draw_search(grid[0], targets, chance, reference)
    grid[0].set_xlabel("trial")
    for axes, (name, values) in zip(grid[1:], choices.items(), strict=False):
        _draw_choice(axes, values, targets, best)
        axes.set_xlabel(name)
    for axes in grid[1 + len(choices) :]:
        axes.set_axis_off()
    found = io.BytesIO()
    figure.savefig(found, format="png", metadata={"Software": None})
    return found.getvalue()


def _draw_search(axes: Any, targets: Sequence[float], chance: int, reference: float | None) -> None:
    steps = list(range(1, len(targets) + 1))
    axes.plot(steps[:chance], targets[:chance], "o", color=_SOFT, markersize=4, label="at random")
    axes.plot(steps[chance:], targets[chance:], "o", color=_ACCENT, markersize=4, label="suggested")
    highest = [max(targets[:step]) for step in steps]
    axes.step(steps, highest, where="post", color=_INK, linewidth=1.2, label="best so far")
    if reference is not None:
        axes.axhline(reference, color=_SOFT, linewidth=1.0, linestyle="--", label="defaults")
    axes.legend(frameon=False, fontsize=8)


def _draw_choice(axes: Any, values: Sequence[Any], targets: Sequence[float], best: int) -> None:
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)
    shown = list(values) if numbers else [str(one) for one in values]
    axes.plot(shown, targets, "o", color=_SOFT, markersize=4)
    axes.plot([shown[best]], [targets[best]], "o", color=_ACCENT, markersize=7)


def _axes(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, and without pyplot no state is kept

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, salt: str) -> str:
    """The figure without XML prologue and metadata; the salt keeps element ids apart in one page."""
    from matplotlib import rc_context  # noqa: PLC0415

    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt[:2000]}):
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    found = text.getvalue()
    found = re.sub(r"<metadata>.*?</metadata>", "", found[found.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", found).strip()
