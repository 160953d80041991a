"""An episode on a simulated host: a cause, what follows from it and noise, judged by the daemon's own tiers.

Findings come from the real low tier, incidents from the real middle tier; the answer is known because every
finding is traced back to the symptom that made it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from daemon.messages import Event, Finding, Incident, Line, Observation, Stamp
from daemon.settings import Low, Middle
from daemon.tiers.low import LowTier
from daemon.tiers.middle import MiddleTier
from models import known
from models.taxonomy import FaultClass
from training.sources.answers import Answers
from training.sources.cases import Case, Split
from training.sources.effects import EFFECTS, noise
from training.sources.hosts import Host, Service
from training.sources.mechanisms.registry import Mechanism
from training.sources.symptoms import (
    KERNEL,
    MANAGER,
    Cause,
    Counted,
    Course,
    Happened,
    Jumped,
    Said,
    Scene,
    Shown,
    Symptom,
    jittered,
)

WARM_S = 70  # until the low tier has learnt what is usual
LEARN_S = 30.0
BEGIN_S = 3.0  # into the episode
TAIL_S = 8.0
LONGEST_S = 75.0
CAUSE, EFFECT = "simulated", "simulated-effect"  # what a case shows of its episode
LATE_SHARE = 0.3  # of the episodes show their effects before their cause
SHOTS = 3  # views of one incident: when it opens, in the middle, at the end


class Stage(NamedTuple):
    """A host and the low tier that has learnt it."""

    host: Host
    low: LowTier


def warmed(seed: int) -> Stage:
    """A host on which nothing has happened yet."""
    host, random = Host(seed), Random(seed + 1)  # noqa: S311 - nothing secret
    low = LowTier(Low(learn_s=LEARN_S))
    for second in range(WARM_S):
        batch: list[Observation] = [host.sample(second, host.quiet(random))]
        if second % 10 == 0:
            batch.append(host.snapshot(second, [], {}))
        batch += [host.chatter(second + 0.1 * n, random) for n in range(3)]
        low.observe(batch)
    return Stage(host, low)


def composed(mechanism: Mechanism, scene: Scene) -> list[Symptom]:
    """A cause with some of its signs, some of its effects, and noise, each at its time."""
    cause = mechanism.make(scene)
    signs = [one for one in cause.signs if scene.chance(0.7)] or [scene.random.choice(cause.signs)]
    late = scene.chance(LATE_SHARE)
    effects = _effects(mechanism.fault, cause, scene)
    begin = BEGIN_S + (scene.span(3.0, 22.0) if late and effects else 0.0)
    found = [
        Symptom(
            mechanism.fault,
            cause.severity,
            cause.culprits,
            pieces,
            begin + n * scene.span(0.0, 5.0),
            telling=True,
        )
        for n, pieces in enumerate(signs)
    ]
    for effect in effects:
        at_s = BEGIN_S + scene.span(0.0, 4.0) if late else begin + scene.span(0.5, 14.0)
        found.append(effect._replace(at_s=at_s))
    return found + noise(scene)


def _effects(fault: FaultClass, cause: Cause, scene: Scene) -> list[Symptom]:
    choices = EFFECTS.get(fault, ())
    if not choices:
        return []
    count = scene.random.choices((0, 1, 2, 3), (0.25, 0.35, 0.25, 0.15))[0]
    chosen = dict.fromkeys(scene.random.choice(choices) for _ in range(count))
    victims = [*cause.victims] or [scene.service()]
    return [make(scene, cause, scene.random.choice(victims)) for make in chosen]


# --- playing ----------------------------------------------------------------------------------------------


class _Script:
    """An episode's pieces by kind, with the number of the symptom that each belongs to."""

    def __init__(self, symptoms: list[Symptom], random: Random) -> None:
        pieces = [
            (n, piece) for n, one in enumerate(symptoms) for piece in jittered(random, one.pieces, one.at_s)
        ]
        self.pieces = sorted(pieces, key=lambda one: not isinstance(one[1], Said))  # lines are known by place
        self.said = [(n, one) for n, one in pieces if isinstance(one, Said)]
        self.courses = [(n, one) for n, one in pieces if isinstance(one, Course)]
        self.shown = [(n, one) for n, one in pieces if isinstance(one, Shown)]
        self.counted = [(n, one) for n, one in pieces if isinstance(one, Counted)]
        self.happened = [(n, one) for n, one in pieces if isinstance(one, Happened)]
        self.jumped = [(n, one) for n, one in pieces if isinstance(one, Jumped)]
        appearing = {one.after_s for _, one in self.shown} | {one.after_s for _, one in self.counted}
        times = {one.after_s for _, one in self.said} | {one.after_s for _, one in self.happened}
        times |= appearing | {one.after_s for _, one in self.jumped}
        times |= {one.points[-1][0] for _, one in self.courses}
        lasting = 22.0 if self.courses or self.shown else 0.0
        self.end_s = min(LONGEST_S, max(times, default=0.0) + max(TAIL_S, lasting))
        self.jumps = {int(after_s) + 2 for after_s in appearing}

    def values(self, second: float, usual: dict[str, float]) -> dict[str, float]:
        """The readings of a second."""
        for _, course in self.courses:
            if course.points[0][0] <= second < course.until_s:
                usual[course.metric] = _at(course, second)
        return usual

    def counts(self, second: float) -> dict[str, float]:
        """The counts of a second's snapshot."""
        grown = ((one.key, one.value, (second - one.after_s) / one.over_s) for _, one in self.counted)
        return {key: value * min(1.0, part) for key, value, part in grown if part > 0.0}


def _at(course: Course, second: float) -> float:
    before = course.points[0]
    for point in course.points:
        if point[0] >= second:
            span = point[0] - before[0]
            return before[1] + (point[1] - before[1]) * ((second - before[0]) / span if span else 1.0)
        before = point
    return before[1]


def _line(host: Host, number: int, said: Said, place: int, jump_s: float) -> Line:
    at, cursor = host.stamp(WARM_S + said.after_s, jump_s), f"e{number}.{place}"
    writer, text, priority = said.writer, said.text, said.priority
    if isinstance(writer, Service):
        return Line(
            at,
            "journal",
            text,
            priority,
            writer.unit,
            "",
            writer.program,
            writer.pid,
            writer.uid,
            cursor=cursor,
        )
    if writer == KERNEL:
        return Line(at, "kernel", text, priority, identifier="kernel", cursor=cursor)
    if writer == MANAGER:
        return Line(at, "journal", text, priority, "init.scope", said.unit, "systemd", 1, 0, cursor=cursor)
    unit = (
        f"{'ssh' if writer == 'sshd' else writer}.service"
        if writer not in {"sudo", "su", "useradd"}
        else "session-4.scope"
    )
    return Line(at, "journal", text, priority, unit, "", writer, 900 + place, 0, cursor=cursor)


def _batches(host: Host, script: _Script, random: Random) -> Iterator[list[Observation]]:
    """One second after another, as the collectors would send it."""
    lines = sorted(
        (
            _line(host, n, one, place, _jump(script, one.after_s))
            for place, (n, one) in enumerate(script.said)
        ),
        key=lambda line: line.at.mono,
    )
    for second in range(int(script.end_s) + 1):
        jump_s, t = _jump(script, second), WARM_S + second
        batch: list[Observation] = [host.sample(t, script.values(second, host.quiet(random)), jump_s)]
        if second % 10 == 0 or second in script.jumps:
            shown = [one.process for _, one in script.shown if one.after_s <= second < one.until_s]
            batch.append(host.snapshot(t, shown, script.counts(second), jump_s))
        if random.random() < 0.5:
            batch.append(host.chatter(t + 0.01, random))
        for _, one in script.happened:
            if int(one.after_s) == second:
                at = host.stamp(WARM_S + one.after_s, jump_s)
                batch.append(Event(at, one.kind, one.kind, one.name, one.action, dict(one.attributes)))
        low, high = host.stamp(t).mono, host.stamp(t + 1).mono
        batch += [line for line in lines if low <= line.at.mono < high]
        yield batch


def _jump(script: _Script, second: float) -> float:
    return sum(one.by_s for _, one in script.jumped if one.after_s <= second)


class _Played(NamedTuple):
    """What the tiers made of an episode."""

    findings: dict[str, Finding]
    events: list[Event]
    revisions: dict[str, list[tuple[Incident, Stamp]]]  # of each incident, while it was open


def play(stage: Stage, mechanism: Mechanism, random: Random, name: str, split: Split) -> list[Case]:
    """The cases of one episode: up to SHOTS views of every incident that it made."""
    symptoms = composed(mechanism, Scene(stage.host, random))
    script = _Script(symptoms, random)
    played = _play(stage, script, random)
    answers = Answers(symptoms, script.pieces)
    cases: list[Case] = []
    for told in played.revisions.values():
        for incident, at in views(told):
            held = [played.findings[one] for one in incident.finding_ids if one in played.findings]
            answer = answers.of(held)
            if answer is not None:
                number = f"{name}.{incident.id}.{incident.revision}"
                before = [one for one in played.events if one.at.mono <= at.mono]
                known_by = list(answer.culprits)
                if answer.fault is mechanism.fault:
                    group, part, source = mechanism.name, split, CAUSE
                else:  # effects are the same blocks in every split
                    group, part, source = f"effect/{answer.fault}", "train", EFFECT
                cases.append(Case(number, group, part, at, held, *answer[:2], known_by, before, source))
    return cases


def _play(stage: Stage, script: _Script, random: Random) -> _Played:
    catalogue = known.load()
    low = copy.deepcopy(stage.low, {id(catalogue): catalogue})
    middle = MiddleTier(Middle())
    played = _Played({}, [], {})
    for batch in _batches(stage.host, script, random):
        upward = low.observe(batch)
        played.findings.update({one.id: one for one in upward if isinstance(one, Finding)})
        told = (one for one in upward if isinstance(one, Event) and one.kind in {"context", "session"})
        played.events.extend(told)
        for incident in middle.take(upward):
            if incident.state == "open":
                played.revisions.setdefault(incident.id, []).append((incident, batch[0].at))
    return played


def views(told: list[tuple[Incident, Stamp]]) -> list[tuple[Incident, Stamp]]:
    """An incident as it opened, in the middle of its life, and as it was told last."""
    places = dict.fromkeys((0, len(told) // 2, len(told) - 1))
    return [told[place] for place in places][:SHOTS]
