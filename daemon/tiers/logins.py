"""Failed logins in a sliding window: a few are somebody's fingers, many are an attack.

One connection often says several things (unknown user, PAM failure, failed password): they count once.
Pure, on observation time, bounded however many addresses take part.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterable

from daemon.messages import MAX_NAME, Subject
from daemon.tiers.conditions import Breach
from models.taxonomy import FaultClass, Severity, SubjectKind

WINDOW_S = 60.0
PER_ADDRESS = 5  # sshd allows six guesses a connection (MaxAuthTries), a person gives up after three
OVERALL = 20
REMEMBER_S = 600.0  # a success this long after the guessing still belongs to it
ADDRESSES_MAX = 1024
USERS_MAX = 16
CONNECTIONS_MAX = 64  # sshd's MaxStartups stays below it
ODD_NAME = "(odd name)"  # a tried name is the attacker's text; only what looks like a name is shown as one
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.$@+-]{0,31}", re.ASCII)
RULE = "known.auth-bruteforce"
ANYWHERE = "(many)"


class _Guesses:
    """The failures of one address (or of one local user)."""

    __slots__ = ("attacked_t", "connections", "times", "users")

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=1024)
        # By pid: whether a softer message was counted for which a failed password may still come.
        self.connections: OrderedDict[int, bool] = OrderedDict()
        self.users: OrderedDict[str, None] = OrderedDict()
        self.attacked_t = -REMEMBER_S

    def expire(self, t: float) -> None:
        while self.times and t - self.times[0] > WINDOW_S:
            self.times.popleft()


class Logins:
    """Counts failures by address and overall; gives the breach that holds, if any."""

    def __init__(self) -> None:
        self._by: OrderedDict[str, _Guesses] = OrderedDict()
        self._all: deque[float] = deque(maxlen=4096)
        self._sources: OrderedDict[str, float] = OrderedDict()

    def failed(self, address: str, user: str, pid: int, t: float, *, hard: bool) -> Breach | None:
        """One message about a failure; `hard` ones count each, others only once a connection."""
        guesses = self._guesses(address or f"user {user}")
        if user:
            user = user if _PLAIN.fullmatch(user) else ODD_NAME
            guesses.users[user] = None
            guesses.users.move_to_end(user)
            if len(guesses.users) > USERS_MAX:
                guesses.users.popitem(last=False)
        if not self._counts(guesses, pid, hard=hard):
            return None
        guesses.expire(t)
        guesses.times.append(t)
        self._note_overall(address, t)
        if len(guesses.times) >= PER_ADDRESS:
            guesses.attacked_t = t
            return _breach(address, guesses, len(guesses.times))
        if len(self._all) >= OVERALL and len(self._sources) > 1:
            return self._overall_breach(address)
        return None

    def accepted(self, address: str, user: str, t: float) -> Breach | None:
        """A login succeeded; a breach if its address had been guessing."""
        guesses = self._by.get(address)
        if guesses is None or t - guesses.attacked_t > REMEMBER_S:
            return None
        user = user if _PLAIN.fullmatch(user) else ODD_NAME
        guesses.users[user] = None
        return _breach(address, guesses, max(PER_ADDRESS, len(guesses.times)), accepted=user)

    def _counts(self, guesses: _Guesses, pid: int, *, hard: bool) -> bool:
        """Whether a message is one more attempt, and not more words about one that was counted."""
        if not pid:
            return True
        credit = guesses.connections.get(pid)
        guesses.connections[pid] = not hard and credit is not False
        if len(guesses.connections) > CONNECTIONS_MAX:
            guesses.connections.popitem(last=False)
        return credit is None or (hard and not credit)

    def _guesses(self, key: str) -> _Guesses:
        guesses = self._by.get(key)
        if guesses is None:
            if len(self._by) >= ADDRESSES_MAX:
                self._by.popitem(last=False)
            guesses = self._by[key] = _Guesses()
        self._by.move_to_end(key)
        return guesses

    def _note_overall(self, address: str, t: float) -> None:
        self._all.append(t)
        while self._all and t - self._all[0] > WINDOW_S:
            self._all.popleft()
        self._sources[address] = t
        self._sources.move_to_end(address)
        while self._sources and (
            len(self._sources) > ADDRESSES_MAX or t - next(iter(self._sources.values())) > WINDOW_S
        ):
            self._sources.popitem(last=False)

    def _overall_breach(self, address: str) -> Breach:
        count, sources = len(self._all), len(self._sources)
        return Breach(
            rule=RULE,
            label=ANYWHERE,
            severity=Severity.WARNING,
            score=0.7,
            subjects=[Subject(SubjectKind.ADDRESS, _name(address), 0.5)] if address else [_HOST],
            hints={FaultClass.AUTH_BRUTEFORCE: 0.85},
            text=f"{count} failed logins within {WINDOW_S:.0f} s from {sources} addresses",
            values={"failures_count": count, "window_s": WINDOW_S, "addresses_count": sources},
            kind="event",
            stale_s=WINDOW_S,
        )


_HOST = Subject(SubjectKind.HOST, "")


def _breach(address: str, guesses: _Guesses, count: int, accepted: str = "") -> Breach:
    users = list(reversed(guesses.users))
    whence = f"from {address}" if address else "on this host"
    text = f"{count} failed logins {whence} within {WINDOW_S:.0f} s, tried as {_list(users)}"
    if accepted:
        text = f"login as {accepted} accepted {whence} after {count} failed ones, tried as {_list(users)}"
    named = [Subject(SubjectKind.ADDRESS, _name(address))] if address else []
    named += [Subject(SubjectKind.USER, _name(user), 0.3) for user in ([accepted] if accepted else users[:4])]
    return Breach(
        rule=RULE,
        label=address or f"user {users[0] if users else ''}",
        severity=Severity.ERROR if accepted else Severity.WARNING,
        score=0.9 if accepted else 0.7,
        subjects=named or [_HOST],
        hints={FaultClass.AUTH_BRUTEFORCE: 0.95 if accepted else 0.9},
        text=text,
        values={"failures_count": count, "window_s": WINDOW_S, "users_count": len(users)},
        kind="event",
        stale_s=WINDOW_S,
    )


def _name(text: str) -> str:
    return text[:MAX_NAME]


def _list(users: Iterable[str]) -> str:
    shown = list(users)
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (", ".join(shown[:4]) or "an unknown user") + more
