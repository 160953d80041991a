"""How incidents, stages and small plots look on a terminal; text from logs never becomes markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.advice.titles import title
from daemon.command import times
from daemon.messages import REVIEWED, Advice, Incident
from daemon.status import StageView

STYLES = {"info": "blue", "warning": "yellow", "error": "red", "critical": "bold white on red"}
MODEL_STATES = {"off": "switched off", "absent": "no bundle", "broken": "the model failed"}
BARS = "▁▂▃▄▅▆▇█"


def incident_table(incidents: Sequence[Incident], lang: str, now: float) -> Table:
    """The list of incidents."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for heading in ("", "id", "since", "severity", "what", "culprit"):
        table.add_column(heading, overflow="fold", no_wrap=heading not in {"what", "culprit"})
    for one in incidents:
        severity = Text(one.severity, style=STYLES[one.severity])
        culprit = one.culprits[0].name if one.culprits else ""
        since = times.clock(one.opened_at, now)
        what, mark = Text(title(one, lang)), "●" if one.state == "open" else " "
        table.add_row(mark, one.id, since, severity, what, Text(culprit), style="" if mark == "●" else "dim")
    return table


def incident_view(
    incident: Incident,
    advice: Advice | None,
    timeline: Sequence[tuple[float, str]],
    plots: Mapping[str, Sequence[float]],
    *,
    lang: str,
    now: float,
    watched: bool,
) -> RenderableType:
    """Everything about one incident: what, advice, evidence, context, plots, timeline.

    `watched`: whether a daemon runs; where none does, nobody knows how an open one went on.
    """
    parts: list[RenderableType] = [_headline(incident, lang), _facts(incident, now, watched=watched)]
    if advice is not None:
        parts += [Text(), Text(advice.text)]
        if advice.action:
            parts.append(Text.assemble(("\n  $ ", "dim"), (advice.action, "bold")))
        parts.append(Text(f"  ({advice.origin}{f', {advice.author}' if advice.author else ''})", style="dim"))
    if incident.context:
        parts += [_heading("Context"), *(Text(f"  {note.text} ({note.effect})") for note in incident.context)]
    parts += [_heading("Evidence"), _evidence(incident, now)]
    if plots:
        parts += [_heading("Around it"), _plots(plots)]
    if timeline:
        parts.append(_heading("Timeline"))
        parts += [Text(f"  {times.clock(at, now)}  {text}") for at, text in timeline]
    return Group(*parts)


def stage_table(stages: Sequence[StageView]) -> Table:
    """What each stage says of itself."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading, justify in (("stage", "left"), ("pid", "right"), ("cpu", "right"), ("memory", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("latency p95", justify="right")
    table.add_column("state", overflow="fold")
    for one in stages:
        style = "" if one.alive else "red"
        table.add_row(
            one.stage,
            str(one.pid),
            f"{one.cpu_ratio * 100:.2f} %",
            f"{one.pss_bytes / (1 << 20):.1f} MiB",
            f"{one.latency_p95_s * 1000:.0f} ms" if one.latency_p95_s is not None else "",
            Text(one.text, style=style),
        )
    return table


def model_table(stages: Sequence[StageView]) -> Table | None:
    """Which path speaks for each tier, and how the models do; None where no stage has one."""
    told = [(one.stage, one.model) for one in stages if one.model is not None]
    if not told:
        return None
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("tier", "speaks", "bundle"):
        table.add_column(heading)
    for heading in ("answered", "baseline", "p50", "p95", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tier, model in told:
        count = model.counters.get
        answered = f"{count('answered', 0)} of {count('asked', 0)}"
        pace = model.latency
        times = [f"{s * 1000:.0f} ms" for s in (pace.p50_s, pace.p95_s)] if pace else ["", ""]
        alone = model.state in {"off", "absent", "broken"}
        speaks = f"baseline ({MODEL_STATES[model.state]})" if alone else f"model ({model.state})"
        memory = f"{model.pss_bytes / (1 << 20):.1f} MiB" if model.pss_bytes else ""
        table.add_row(
            tier,
            Text(speaks, style="red" if model.state == "broken" else ""),
            Text(model.bundle.removeprefix(f"{tier}-")),  # its row names the tier
            answered,
            str(count("fallback", 0)),
            *times,
            memory,
        )
    return table


def sparkline(values: Sequence[float], width: int = 44) -> str:
    """A line of block characters from the smallest to the largest value, one a bucket."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    peaks = [max(values[start : start + size]) for start in range(0, len(values), size)]
    low, high = min(peaks), max(peaks)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in peaks)


def _headline(incident: Incident, lang: str) -> Text:
    return Text.assemble(
        (f" {incident.severity} ", STYLES[incident.severity]),
        " ",
        (title(incident, lang), "bold"),
        f"  {incident.id}",
    )


def _facts(incident: Incident, now: float, *, watched: bool) -> Text:
    ended = incident.closed_at
    until = "now"
    if ended is None and not watched:
        ended = incident.updated_at
        until = f"{times.clock(ended, now)} at least, nothing is watched now"
    elif ended is not None:
        until = times.clock(ended, now)
    lasted = times.ago((ended or now) - incident.opened_at)
    culprits = ", ".join(f"{one.kind} {one.name} ({one.score:.0%})" for one in incident.culprits[:3])
    span = f"{times.clock(incident.opened_at, now)} to {until} ({lasted})"
    text = f"{incident.fault_class}, {incident.state}, {span}"
    lines = [text, f"culprit: {culprits}" if culprits else "no culprit"]
    lines += [one.text for one in incident.evidence if one.ref == REVIEWED]
    lines += ["it is being read; nobody is notified before"] if incident.waits else []
    return Text("\n".join(lines), style="dim")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _evidence(incident: Incident, now: float) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in incident.evidence:
        table.add_row(
            f"  {times.clock(one.start, now)}",
            Text(one.id, style="dim"),
            Text(one.text),
            Text(one.ref, style="dim"),
        )
    return table


def _plots(plots: Mapping[str, Sequence[float]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, values in plots.items():
        table.add_row(
            Text(f"  {name}"),
            Text(sparkline(values), style="cyan"),
            f"{min(values):.3g} to {max(values):.3g}",
        )
    return table
