"""The score as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.lab.comparison import compare
from tests.lab.score import Coverage, by_class, figures
from tests.lab.verdict import Verdict

COLUMNS = {
    "recall": "recall",
    "own_class": "own class",
    "noticed": "noticed",
    "class_accuracy": "class",
    "precision": "precision",
    "culprit_1": "culprit 1",
    "culprit_3": "culprit 3",
    "severity": "severity",
    "exactly_one": "one",
    "noticed_once": "noticed 1",
    "quiet": "quiet",
}
UNKNOWN = Coverage()
NAMED_MOST = 20  # of what was left out for one reason, where it is read as text


def text(every: Sequence[Verdict], covered: Coverage = UNKNOWN) -> str:
    """Figures and what is not in them, a table by class, and each run that was not all right."""
    verdicts, accompanied = apart(every)
    found = figures(verdicts)
    lines = [f"{label:<12}{interval_text(found[name])}" for name, label in COLUMNS.items()]
    lines += [
        "",
        *_lines(notes(found)),
        *_lines(coverage_notes(covered.document(verdicts, every), NAMED_MOST)),
        "",
        *_classes(verdicts),
        "",
        *(_wrong(one) for one in verdicts if not fine(one)),
        *beside(accompanied),
    ]
    return "\n".join(lines)


def apart(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """The runs that the figures are of, and those with other watchers; the same if there are no others."""
    alone = [one for one in verdicts if not one.accompanied]
    accompanied = [one for one in verdicts if one.accompanied]
    return alone or accompanied, accompanied


def beside(verdicts: Sequence[Verdict]) -> list[str]:
    """Hauswart and others in the same runs, as lines; none without such runs."""
    if not verdicts:
        return []
    found = compare(verdicts)
    rows = watcher_rows(found)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [
        "",
        f"beside others, {len(verdicts)} runs",
        *(line.rstrip() for line in lines),
        *watcher_notes(found),
    ]


def watcher_notes(found: dict[str, Any]) -> list[str]:
    """Which versions the others are and what they cost, who was left out and why, and what was not kept."""
    costs = []
    for name, figure in found["watchers"].items():
        cost, versions = figure["median_cost"], ", ".join(figure["versions"])
        if cost["cpu_s"] is not None and cost["pss_bytes"] is not None:
            used = f"{cost['cpu_s']:.1f} s of processor, {cost['pss_bytes'] / 2**20:.0f} MiB"
            versions += f"; median of a run, warm-up included: {used}"
        costs += [f"{name}: {versions}"] if versions else []
    left_out = [
        f"{name} left out of {count} runs: {reason}"
        for name, reasons in found["left_out"].items()
        for reason, count in reasons.items()
    ]
    dropped = [
        f"{name}: {count} alerts were not kept in {run}"
        for name, runs in found["dropped"].items()
        for run, count in runs.items()
    ]
    return [*costs, *left_out, *dropped]


WATCHER_HEAD = (
    "watcher", "window", "faults", "recall", "p50", "p95", "alerts", "right class", "culprit",
    "stood before", "false alarms", "an hour",
)  # fmt: skip


def watcher_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows of the one table."""
    rows: list[tuple[str, ...]] = [WATCHER_HEAD]
    for name, figure in found["watchers"].items():
        rows += _watcher(name, figure)
        if "hauswart_on_same_runs" in figure:
            rows += _watcher(f"hauswart where {name} ran", figure["hauswart_on_same_runs"])
    return rows


def _watcher(name: str, figure: dict[str, Any]) -> list[tuple[str, ...]]:
    false, rows = figure["false_alarms"], []
    rate = "-" if false["an_hour"] is None else f"{false['an_hour']:.1f} (up to {false['upper_an_hour']:.1f})"
    before = figure["stood_before"]
    told = [f"{cell(before)} of {before['runs']} runs"]
    told += [f"{false['alerts']} in {false['host_hours']:.2f} h, {false['runs']} runs", rate]
    for window, one in figure["windows"].items():
        delay = one["delay_s"]
        cells = [name, window, str(one["recall"]["runs"]), span_text(one["recall"])]
        cells += [_s(delay["p50"]), _s(delay["p95"]), cell(one["alerts"])]
        cells += [cell(one["right_class"]) if figure["names_class"] else "no", cell(one["culprit"]), *told]
        rows.append(tuple(cells))
        name, told = "", ["", "", ""]
    return rows


def fine(verdict: Verdict) -> bool:
    """Whether nothing more could be asked for."""
    if verdict.benign:
        return not verdict.told
    return verdict.exactly_one and verdict.right is not None and verdict.blames(verdict.right, 1)


def interval_text(figure: dict[str, Any]) -> str:
    """Value, interval and count of a figure."""
    if figure["value"] is None:
        return "-"
    return f"{span_text(figure)}, {figure['mechanisms']} mechanisms, {figure['runs']} runs"


def span_text(figure: dict[str, Any]) -> str:
    """Value and interval of a figure."""
    span = f" ({figure['low']:.2f} to {figure['high']:.2f})" if figure["low"] is not None else ""
    return cell(figure) + span


def times_text(found: dict[str, Any]) -> str:
    """The median and the 95th percentile, with intervals."""
    parts = []
    for name in ("p50", "p95"):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        span = "" if low is None else f" ({low:.1f} to {high:.1f})"
        parts.append(f"{name} {_s(found[name])}{span}")
    return ", ".join(parts)


def notes(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures that are no shares, as pairs of what and how much."""
    delay, false, advice, replay = (found[name] for name in ("delay_s", "false_alarms", "advice", "replay"))
    named, told_s = found["named_s"], found["told_s"]
    pairs = [
        ("delay", f"{times_text(delay)}, n={delay['n']}"),
        ("told", f"{times_text(told_s)}: once its words were read"),
        ("named", f"{times_text(named)}: rightly, and for good"),
        ("incidents", f"{span_text(found['incidents'])} a fault, merged ones included"),
    ]
    if false["a_day"] is not None:
        told = f"{false['above_warning']} above warning, {false['told']} told, {false['incidents']} incidents"
        rate = f"{false['a_day']:.0f} false alarms a day (up to {false['upper_a_day']:.0f})"
        pairs.append(("benign", f"{told} in {false['host_hours']:.2f} host-hours: {rate}"))
    pairs.append(
        ("advice", f"{advice['checked']} checked, {advice['violations']} with what no evidence holds")
    )
    twice = "not tried twice" if replay["same_twice"] is None else f"{replay['same_twice']} the same twice"
    return [*pairs, ("replay", f"{twice}, {replay['same_as_live']} as live, of {replay['runs']}")]


def coverage_notes(found: dict[str, Any], most: int | None = None) -> list[tuple[str, str]]:
    """What the figures are not of (`Coverage.document`), as pairs of what and how much."""
    scored = f"{found['scored']} of {found['scenarios']} scored"
    pairs = [] if found["scenarios"] is None else [("scenarios", scored)]
    for reason, names in found["left_out"].items():
        more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
        pairs.append(("left out", f"{len(names)}, {reason}: {', '.join(names[:most])}{more}"))
    for run, lost in found["lossy"].items():
        pairs.append(("lost", f"{run}: {', '.join(f'{name} {n:g}' for name, n in lost.items())}"))
    pairs += [("damaged", f"{run}: {'; '.join(said)}") for run, said in found["damaged"].items()]
    if found["asked"] is not None:
        silent = f"{found['unanswered']} of them nobody answered, as if nothing were wrong"
        pairs.append(("questions", f"{found['asked']} asked, {silent}"))
    return pairs


def cell(figure: dict[str, Any]) -> str:
    """A figure in a table."""
    return "-" if figure["value"] is None else f"{figure['value']:.2f}"


def _lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name:<12}{value}" for name, value in pairs]


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _classes(verdicts: Sequence[Verdict]) -> list[str]:
    head = f"{'class':<22}{'runs':>5}" + "".join(f"{label:>11}" for label in COLUMNS.values()) + f"{'p50':>9}"
    lines = [head]
    for name, found in by_class(verdicts).items():
        cells = "".join(f"{cell(found[column]):>11}" for column in COLUMNS)
        lines.append(f"{name:<22}{found['replay']['runs']:>5}{cells}{_s(found['delay_s']['p50']):>9}")
    return lines


def _wrong(verdict: Verdict) -> str:
    told = verdict.told if verdict.benign else verdict.during
    said = [f"{one.fault_class} {one.severity} {', '.join(one.culprits[:2])}" for one in told]
    wanted = "nothing" if verdict.benign else f"{'/'.join(verdict.right_culprits)}"
    return f"{verdict.id}: wanted {wanted}, got {'; '.join(said) or 'nothing'}"
