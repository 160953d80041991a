"""How much of what lines give goes up: bounds that nobody overruns with a clever log."""

from __future__ import annotations

from collections import Counter

from daemon.messages import Finding
from daemon.tiers.oddities import COMPLAINED_AT, READ_AT, UNREAD
from daemon.tiers.writers import KERNEL, MANAGER
from models.templates import Template

WEAK_PER_SECOND, WEAK_PER_MINUTE, KNOWN_PER_SECOND = 10, 60, 50
UNREAD_PER_MINUTE, UNREAD_OF_ONE = 60, 40  # of the whole host, of one writer


class Few:
    """So many a minute of all and of one writer, so that nobody keeps the others from being heard."""

    def __init__(self, limit: int, of_one: int) -> None:
        self._limit, self._of_one = limit, of_one
        self._minute = 0
        self._told: Counter[str] = Counter()  # by who pays for it

    def take(self, payer: str, t: float, share: float = 1.0) -> bool:
        """Whether there is room for one more; `share` of it is for what matters less."""
        if int(t) // 60 != self._minute:
            self._minute, self._told = int(t) // 60, Counter()
        if self._told.total() >= share * self._limit or self._told[payer] >= share * self._of_one:
            return False
        self._told[payer] += 1
        return True


class Unread:
    """Which lines somebody is to read who understands what no rule does: few of a kind, few at a time."""

    def __init__(self) -> None:
        self._few = Few(UNREAD_PER_MINUTE, UNREAD_OF_ONE)

    def wants(self, template: Template, payer: str, t: float, *, complains: bool = False) -> bool:
        """Whether this line of the template is one: its first, second, eighth, a complaint's fourth, too."""
        if template.count not in (COMPLAINED_AT if complains else READ_AT):
            return False
        # What was shown before leaves room for what is new.
        return self._few.take(payer, t, 1.0 if template.count in READ_AT else 0.5)


class Gate:
    """Lets a bounded number of findings through, so that nobody floods the tier above with a clever log."""

    def __init__(self) -> None:
        self._second = self._minute = 0
        self._weak_s = self._weak_m = 0
        self._known: Counter[str] = Counter()  # in this second, of the kernel, the manager, and all others
        self._refused = 0
        self._told_t = 0.0

    def open(self, finding: Finding, t: float, origin: str = "") -> bool:
        """Whether this finding may pass; one that ends a condition always may.

        What the kernel and the manager say (`origin`, of the template) has a bound of its own: a service
        under attack must not keep it from being heard.
        """
        if finding.ended:
            return True
        if int(t) != self._second:
            self._second, self._weak_s = int(t), 0
            self._known.clear()
        if int(t) // 60 != self._minute:
            self._minute, self._weak_m = int(t) // 60, 0
        if finding.rule == UNREAD:
            return True  # they have a bound of their own
        if finding.rule.startswith("line."):
            self._weak_s += 1
            self._weak_m += 1
            passed = self._weak_s <= WEAK_PER_SECOND and self._weak_m <= WEAK_PER_MINUTE
        else:
            who = origin if origin in {KERNEL, MANAGER} else ""
            self._known[who] += 1
            passed = self._known[who] <= KNOWN_PER_SECOND
        self._refused += not passed
        return passed

    def held_back(self, t: float) -> int:
        """How many were refused since this was last asked with an answer, at most once in ten seconds."""
        if not self._refused or t - self._told_t < 10.0:
            return 0
        self._told_t = t
        refused, self._refused = self._refused, 0
        return refused
