"""One HTML page about many runs, with a timeline each; it asks for nothing outside of itself."""

from __future__ import annotations

import html
from collections.abc import Sequence

from tests.lab.answers import Alert
from tests.lab.comparison import compare
from tests.lab.said import Said
from tests.lab.score import Coverage, by_class, figures
from tests.lab.tables import (
    COLUMNS,
    UNKNOWN,
    apart,
    cell,
    coverage_notes,
    fine,
    interval_text,
    notes,
    times_text,
    watcher_notes,
    watcher_rows,
)
from tests.lab.verdict import Verdict

_WIDTH, _LEFT, _ROW = 720, 10, 18
_MOST = 10  # alerts of a peer that are written out
_COLOURS = {"info": "#7a869a", "warning": "#c98a00", "error": "#c4412f", "critical": "#8b1a6b"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}h3{margin:1.6rem 0 .2rem}small{color:#667}
svg{display:block;width:100%;max-width:740px}.wrong{color:#a3271b}.right{color:#1e6b3a}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}td,th{border-color:#333}small{color:#99a}}
"""


def page(every: Sequence[Verdict], covered: Coverage = UNKNOWN) -> str:
    """The whole page."""
    verdicts, accompanied = apart(every)
    found = figures(verdicts)
    rows = [(label, interval_text(found[name])) for name, label in COLUMNS.items()] + notes(found)
    rows += coverage_notes(covered.document(verdicts, every))
    summary = "".join(f"<tr><td>{_e(name)}</td><td>{_e(value)}</td></tr>" for name, value in rows)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>hauswart: fault lab</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>hauswart: fault lab</h1><table>{summary}</table>{_classes(verdicts)}"
        f"{_beside(accompanied)}"
        "<h2>Runs</h2><p>Grey: before the injection. Blue: from the injection to the effect. Red: the window "
        "in which an incident counts. Dots: incidents of the replay, small ones became part of another one; "
        "rings: what the daemon said live; ticks below: alerts of others.</p>"
        f"{''.join(_run(one) for one in sorted(every, key=lambda one: one.id))}</html>\n"
    )


def _classes(verdicts: Sequence[Verdict]) -> str:
    head = "".join(f"<th>{_e(label)}</th>" for label in ("class", "runs", *COLUMNS.values(), "delay"))
    rows = []
    for name, found in by_class(verdicts).items():
        cells = [name, str(found["replay"]["runs"]), *(cell(found[column]) for column in COLUMNS)]
        cells.append(times_text(found["delay_s"]))
        rows.append("<tr>" + "".join(f"<td>{_e(one)}</td>" for one in cells) + "</tr>")
    return f"<h2>Classes</h2><table><tr>{head}</tr>{''.join(rows)}</table>"


def _beside(verdicts: Sequence[Verdict]) -> str:
    """Hauswart and others in the same runs, in one table."""
    if not verdicts:
        return ""
    found = compare(verdicts)
    head, *rows = ["".join(f"<td>{_e(one)}</td>" for one in row) for row in watcher_rows(found)]
    body = "".join(f"<tr>{one}</tr>" for one in (head.replace("td>", "th>"), *rows))
    missing = "".join(f"<p>{_e(one)}</p>" for one in watcher_notes(found))
    return f"<h2>Beside others, {len(verdicts)} runs</h2><table>{body}</table>{missing}"


def _run(verdict: Verdict) -> str:
    mark = "right" if fine(verdict) else "wrong"
    wanted = "nothing" if verdict.benign else ", ".join(verdict.right_culprits)
    beside = f", beside {', '.join(verdict.noise)}" if verdict.noise else ""
    texts = "".join(f"<li>{_e(_line(one))}</li>" for one in (*verdict.before, *verdict.told))
    for name, peer in verdict.peers.items():
        said = "; ".join(f"{one.at:+.1f} s {one.severity} {one.text}" for one in peer.alerts[:_MOST])
        texts += f"<li>{_e(name)}: {_e(said or 'nothing')}</li>"
    others = "".join(
        f"<li>not scored, the machine was busy: {_e(_line(one))}</li>" for one in verdict.ambient
    )
    return (
        f'<h3>{_e(verdict.id)} <span class="{mark}">{mark}</span></h3>'
        f"<small>{_e(verdict.system)}{_e(beside)}; wanted: {_e(wanted)}; "
        f"{'as live' if verdict.same_as_live else 'live said otherwise'}</small>{_timeline(verdict)}"
        f"<ul>{texts}{others}</ul>"
    )


def _line(said: Said) -> str:
    blamed = ", ".join(said.culprits[:3])
    merged = ", part of another one since" if said.merged else ""
    return f"{said.opened_s:+.1f} s {said.fault_class} {said.severity}{merged}: {blamed}. {said.text}"


def _timeline(verdict: Verdict) -> str:
    began, end = verdict.span_s
    start = end - verdict.watched_s
    last = max(end, verdict.lingered_s)
    scale = _WIDTH / max(1.0, last - start)

    def x(at_s: float) -> float:
        return round(_LEFT + (min(max(at_s, start), last) - start) * scale, 1)

    bars = [(start, began, "#8884"), (began, 0.0, "#3b7dd855"), (0.0, end, "#d84b3b33")]
    parts = [
        f'<rect x="{x(a)}" y="6" width="{max(0.0, x(b) - x(a)):.1f}" height="{_ROW}" fill="{colour}"/>'
        for a, b, colour in bars
    ]
    told = [*verdict.before, *verdict.during, *verdict.absorbed]
    told += [one for one in verdict.later if one.opened_s > end]
    parts += [_dot(x(one.opened_s), one, filled=False) for one in verdict.live]
    parts += [_dot(x(one.opened_s), one, filled=True) for one in told]
    parts.append(f'<text x="{x(0.0)}" y="38" font-size="11" fill="currentColor">0 s</text>')
    parts.append(f'<text x="{x(last) - 30}" y="38" font-size="11" fill="currentColor">{last:.0f} s</text>')
    height = 42
    for name, peer in verdict.peers.items():
        label = f'<text x="{_LEFT}" y="{height + 10}" font-size="11" fill="currentColor">{_e(name)}</text>'
        parts += [label, *(_tick(x(one.at), height, one) for one in peer.alerts)]
        height += _ROW
    return f'<svg viewBox="0 0 {_WIDTH + 2 * _LEFT} {height}" role="img">{"".join(parts)}</svg>'


def _tick(x: float, top: int, alert: Alert) -> str:
    colour = _COLOURS.get(alert.severity, _COLOURS["error"])
    title = f"<title>{_e(f'{alert.at:+.1f} s {alert.severity} {alert.text}')}</title>"
    return f'<rect x="{x - 1.5}" y="{top}" width="3" height="14" fill="{colour}">{title}</rect>'


def _dot(x: float, said: Said, *, filled: bool) -> str:
    colour = _COLOURS[said.severity]
    paint = f'fill="{colour}"' if filled else f'fill="none" stroke="{colour}" stroke-width="2"'
    title = f"<title>{_e(_line(said))}</title>"
    return f'<circle cx="{x}" cy="{6 + _ROW / 2}" r="{_radius(said, filled=filled)}" {paint}>{title}</circle>'


def _radius(said: Said, *, filled: bool) -> int:
    if not filled:
        return 8
    return 3 if said.merged else 5


def _e(text: str) -> str:
    return html.escape(text)
