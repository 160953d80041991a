"""Texts about briefs, put together from written phrases: what the top tier's model learns to write from.

The phrases are data (`advice/phrases.LANG.toml`). `[a|b]` is a choice, `[|a]` may be left out, and choices
nest. Every text keeps the rules of `models.briefs.fault_of`.
"""

from __future__ import annotations

import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from models.briefs import FLAGS, HOST, SLOTS, Brief, Group, fault_of

FOLDER = Path(__file__).with_name("advice")
SENTENCES_MAX = 5
_TRIES = 20
_GENERAL = {  # kinds that are spoken of like another where nothing of their own is written
    "group": "unit",
    "virtual-device": "device",
    "array": "device",
    "mapped-device": "device",
    "physical-interface": "interface",
    "virtual-interface": "interface",
}


@cache
def phrases(lang: str) -> dict[str, Any]:
    """Everything written for one language."""
    return tomllib.loads((FOLDER / f"phrases.{lang}.toml").read_text("utf-8"))


def expand(phrase: str, rng: random.Random) -> str:
    """The phrase with one alternative of each choice."""
    while (end := phrase.find("]")) >= 0:
        start = phrase.rfind("[", 0, end)
        chosen = rng.choice(phrase[start + 1 : end].split("|"))
        phrase = phrase[:start] + chosen + phrase[end + 1 :]
    return phrase


def alternatives(phrase: str) -> list[str]:
    """Every text that `expand` can give."""
    end = phrase.find("]")
    if end < 0:
        return [phrase]
    start = phrase.rfind("[", 0, end)
    found = []
    for choice in phrase[start + 1 : end].split("|"):
        found += alternatives(phrase[:start] + choice + phrase[end + 1 :])
    return found


def compose(brief: Brief, rng: random.Random) -> str:
    """A text about this brief; raises ValueError where the phrases give none that keeps the rules."""
    reason = ""
    for _ in range(_TRIES):
        text = _Author(brief, rng).text()
        if not (reason := fault_of(text, brief)):
            return text
    raise ValueError(f"no text for {brief}: {reason}")


def for_kind(table: dict[str, Any], kind: str) -> list[str] | None:
    """What is written for this kind of culprit, or for the kind that it is an instance of."""
    return table.get(kind) or table.get(_GENERAL.get(kind, ""))


class _Author:
    """Writes one text; holds what it is about and the dice."""

    def __init__(self, brief: Brief, rng: random.Random) -> None:
        self.brief, self.rng = brief, rng
        self.words = phrases(brief.lang)
        self.table = self.words[brief.fault_class]

    def text(self) -> str:
        opening = self._means()
        cited = self._evidence()
        told = [*self._context(), *self._other()]
        so = self._sometimes(0.55, self.table["so"])
        advice = [*([self._look()] if self.rng.random() < 0.85 else []), *self._help()]
        urgency = self._urgency()
        middle = [so, cited] if so and self.rng.random() < 0.3 else [cited, so]
        if told and self.rng.random() < 0.3:
            opening, told = [*opening, *told], []
        parts = [*opening, *middle[0], *told, *middle[1], *advice]
        if urgency and len(parts) < SENTENCES_MAX:
            parts.insert(self.rng.choice((len(opening), len(parts))), urgency)
        return " ".join(self._shorten(parts, [*so, *told]))

    def _shorten(self, parts: list[str], spare: list[str]) -> list[str]:
        for part in spare:
            if len(parts) > SENTENCES_MAX and part in parts:
                parts.remove(part)
        return parts

    def _pick(self, found: list[str]) -> str:
        return expand(self.rng.choice(found), self.rng)

    def _sometimes(self, share: float, found: list[str]) -> list[str]:
        return [self._pick(found)] if self.rng.random() < share else []

    def _means(self) -> list[str]:
        kind = self.brief.kind
        own = for_kind(self.table, kind) if kind != HOST else None
        if own and self.rng.random() < 0.85:
            return [self._pick(own)]
        blame = [] if kind == HOST else [self._pick(for_kind(self.words["blame"], kind) or [])]
        return [self._pick(self.table["any"]), *blame]

    def _evidence(self) -> list[str]:
        """One sentence of each piece of evidence, the log line, and what must not be left out."""
        found: list[str] = []
        for group in self.brief.groups:
            if not found or self.rng.random() < 0.4:
                found += self._stated(group)
        own = self.brief.kind != HOST
        for extra in ("quote", "seen"):
            if extra in self.brief.extras and (not found or self.rng.random() < 0.5):
                found.append(self._pick(self._say({extra}, own=own)))
        return found

    def _stated(self, group: Group) -> list[str]:
        slots = set(group.slots)
        fitting = [
            (fact, said)
            for fact in self.words["facts"]
            if set(fact["needs"]) <= slots and (said := self._forms(fact, own=group.own))
        ]
        if not fitting:
            return []
        urgent = [pair for pair in fitting if pair[0]["needs"] == ["accepted"]]
        calm = [pair for pair in fitting if pair[0]["needs"] == ["safe"]]
        rest = [pair for pair in fitting if not set(pair[0]["needs"]) <= {"accepted", "safe"}]
        found: list[str] = []
        if rest:
            weights = [4.0 ** len(set(fact["needs"]) & (SLOTS.keys() | FLAGS.keys())) for fact, _ in rest]
            found.append(self._pick(self.rng.choices(rest, weights)[0][1]))
        due = [*urgent, *(calm if self.rng.random() < 0.5 else [])]
        return found + [self._pick(forms) for _, forms in due]

    def _forms(self, fact: dict[str, Any], *, own: bool) -> list[str]:
        return (
            [*fact.get("own", ()), *([] if "own" in fact else fact.get("host", ()))]
            if own
            else fact.get("host", [])
        )

    def _say(self, needs: set[str], *, own: bool) -> list[str]:
        fact = next(one for one in self.words["facts"] if set(one["needs"]) == needs)
        return self._forms(fact, own=own)

    def _context(self) -> list[str]:
        context = self.brief.context
        return self._sometimes(0.75, self.words["context"][context]) if context else []

    def _other(self) -> list[str]:
        if "other" not in self.brief.extras or self.rng.random() > 0.5:
            return []
        return [self._pick(self._say({"other"}, own=True))]

    def _urgency(self) -> str:
        share = 0.5 if self.brief.closed else 0.3
        if self.rng.random() > share:
            return ""
        return self._pick(self.words["severity"]["closed" if self.brief.closed else self.brief.severity])

    def _look(self) -> str:
        clauses = [*self.table["look"]]
        if self.brief.kind != HOST and self.rng.random() < 0.5:
            clauses = [*clauses, *(for_kind(self.words["kind-look"], self.brief.kind) or [])]
        openers = self.words["openers"]
        chosen = self.rng.sample(clauses, 2 if self.rng.random() < 0.6 else 1)
        said = expand(self.rng.choice(openers["look-join"]), self.rng).join(
            (" " if place else "") + expand(clause, self.rng) for place, clause in enumerate(chosen)
        )
        return f"{self._pick(openers['look'])} {said}."

    def _help(self) -> list[str]:
        openers = self.words["openers"]
        chosen = self.rng.sample(self.table["help"], 2 if self.rng.random() < 0.5 else 1)
        joiner = self.rng.choice(openers["help-join"])
        said = f"{joiner} ".join(expand(one, self.rng) for one in chosen)
        return [f"{self._pick(openers['help'])} {said}."]


def well_formed(sentence: str, lang: str, fault_class: str) -> bool:
    """Whether a slotted sentence could have been put together from the phrases of its class."""
    simple, openers, clauses, joiners = _parts(lang, fault_class)
    if sentence in simple:
        return True
    body = sentence.removesuffix(".")
    for opener in openers:
        if body.startswith(f"{opener} "):
            rest = body[len(opener) + 1 :]
            if rest in clauses or any(
                rest[:at] in clauses and rest[at + len(joiner) :].lstrip() in clauses
                for joiner in joiners
                if (at := rest.find(joiner)) > 0
            ):
                return True
    return False


@cache
def _parts(lang: str, fault_class: str) -> tuple[set[str], list[str], set[str], list[str]]:
    """Whole sentences, openers, what follows them, and what joins two of these."""
    words = phrases(lang)
    table, openers = words[fault_class], words["openers"]
    whole = [
        one for part in ("blame", "context", "severity") for found in words[part].values() for one in found
    ]
    whole += [one for name, found in table.items() if name not in {"look", "help"} for one in found]
    whole += [one for fact in words["facts"] for name in ("own", "host") for one in fact.get(name, ())]
    clauses = [
        *table["look"],
        *table["help"],
        *(one for found in words["kind-look"].values() for one in found),
    ]
    return (
        _every(whole),
        sorted(_every([*openers["look"], *openers["help"]]), key=len, reverse=True),
        _every(clauses),
        [*openers["look-join"], *openers["help-join"]],
    )


def _every(found: list[str]) -> set[str]:
    return {text for one in found for text in alternatives(one)}
