"""Failed logins: a few are somebody's fingers, many within a minute are an attack.

One attempt is often told several times (unknown user, PAM failure, failed password): it counts once. What
could not be checked, since the directory that knows the passwords does not answer, does not count, nor does
the refusal of a module where the next one accepts. An attack lasts until a minute passes without an attempt;
its count and duration are those of the whole attack.
Pure, on observation time, bounded however many addresses take part.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from math import log2
from typing import Literal, NamedTuple

from daemon.messages import MAX_NAME, Stamp, Subject
from daemon.tiers.conditions import GROWN, Breach
from daemon.tiers.wording import span
from models.taxonomy import FaultClass, Severity, SubjectKind

WINDOW_S = 60.0
PER_ADDRESS = 5  # sshd allows six guesses a connection (MaxAuthTries), a person gives up after three
OVERALL = 20
TARGETED = 0.8  # of all attempts: then somebody is after one user, or one service
QUIET_S = 5.0  # or three times the usual gap: then the attack is over or rests, and its total is told
KEY_UNCHECKED = "key-unchecked"
UNCHECKED = frozenset({"login-unchecked", KEY_UNCHECKED})
UNCHECKED_S = 5.0  # between what a PAM module says of its directory and what the service makes of it
REMEMBER_S = 600.0  # a success this long after the guessing still belongs to it, and a pid is reused later
ADDRESSES_MAX = 1024
USERS_MAX = 64
USERS_SHOWN = 4
CONNECTIONS_MAX = 4096
ODD_NAME = "(odd name)"  # a tried name is the attacker's text; only what looks like a name is shown as one
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.$@+-]{0,31}", re.ASCII)
_NUMERIC = re.compile(r"[\d.]{7,15}|[\da-fA-F:.%]*:[\da-fA-F:.%\w]*", re.ASCII)  # an address, not a host name
RULE = "known.auth-bruteforce"
ANYWHERE = "(many)"

Told = Literal["password", "pam", "hint"]  # who speaks: the service, PAM, or something said beside it


class Attempt(NamedTuple):
    """What one line says about failed logins: `number` of them, and where the line stands."""

    address: str
    user: str
    pid: int
    told: Told
    number: int
    ref: str
    at: Stamp
    by: str = ""  # the local user who tries, if that is said
    unit: str = ""  # of the service that is asked


class _Connection:
    """One process that talks to one peer; how often each witness spoke of a failure."""

    __slots__ = ("counted", "hints", "key", "recent", "t", "told", "unchecked_t")

    def __init__(self, key: str, t: float) -> None:
        self.t = t
        self.begin(key)

    def begin(self, key: str) -> None:
        """The pid is somebody else's from now on."""
        self.key = key
        self.told: dict[Told, int] = {"password": 0, "pam": 0, "hint": 0}
        self.counted, self.hints = 0, 1  # attempts so far; how many of them hints may tell
        self.recent: deque[tuple[float, int, bool]] = deque(maxlen=8)  # when, how many, whether everywhere
        self.unchecked_t = -UNCHECKED_S  # when it was said last that a password could not be checked

    def add(self, attempt: Attempt) -> int:
        """How many attempts are new: each witness tells all of them, hints tell one at most."""
        self.told[attempt.told] += attempt.number
        attempts = max(self.told["password"], self.told["pam"], min(self.hints, self.told["hint"]))
        new, self.counted = attempts - self.counted, attempts
        return 0 if self.t - self.unchecked_t < UNCHECKED_S else new


class _Attack:
    """The failures of one address, of one local user, or of everybody."""

    __slots__ = (
        *("accepted", "began_t", "last_t", "over_t", "past", "ref", "row", "said", "said_t", "since"),
        *("sources", "targets", "times", "told", "total", "units", "users"),
    )

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=1024)  # of the last minute
        self.users: OrderedDict[str, None] = OrderedDict()
        self.sources: OrderedDict[str, None] = OrderedDict()
        self.targets: Counter[str] = Counter()  # attempts by user and by service
        self.units: Counter[str] = Counter()
        self.row = 0  # attempts with less than a minute between them
        self.total = 0  # the same once it is an attack, else 0
        self.told = 0  # the total that was told when it last fell quiet
        self.past, self.over_t = 0, -REMEMBER_S  # the total of the attack before, and when it was over
        self.began_t = self.last_t = -REMEMBER_S
        self.since = 0.0
        self.accepted = ""
        self.ref = ""
        self.said, self.said_t = 0, -REMEMBER_S  # the total of the last breach, and when it was made

    def due(self, t: float) -> bool:
        """Whether a breach says more than the last one: in a flood once a second and when it has doubled."""
        if t - self.said_t < 1.0 and self.said <= self.total < GROWN * self.said:
            return False
        self.said, self.said_t = self.total, t
        return True

    def add(self, attempt: Attempt, count: int, t: float, least: int) -> bool:
        """Count attempts; whether this is an attack (still)."""
        if t - self.last_t > WINDOW_S:
            self._rest()
            self.began_t, self.since = t, attempt.at.wall
        while self.times and t - self.times[0] > WINDOW_S:
            self.times.popleft()
        self.times.extend([t] * count)
        self.row += count
        self.last_t, self.ref = t, attempt.ref
        if self.total or len(self.times) >= least:
            self.total = self.row
        return self.total > 0

    def retract(self, count: int) -> None:
        """The last attempts were none."""
        for _ in range(min(count, len(self.times))):
            self.times.pop()
        self.row = max(0, self.row - count)
        self.total = max(0, self.total - count)

    def name(self, user: str) -> None:
        """Somebody was tried."""
        if user and (user in self.users or len(self.users) < USERS_MAX):
            self.users[user] = None
            self.users.move_to_end(user)

    def aim(self, attempt: Attempt, count: int) -> None:
        """Whom and what an attack from everywhere is after."""
        for counts, name in ((self.targets, _plain(attempt.user)), (self.units, attempt.unit)):
            if name and (name in counts or len(counts) < USERS_MAX):
                counts[name] += count

    def quiet(self, t: float) -> bool:
        """Whether it has fallen quiet since its total was last told."""
        gap_s = (self.last_t - self.began_t) / max(1, self.total - 1)
        return self.told < self.total and t - self.last_t >= min(WINDOW_S / 2, max(QUIET_S, 3.0 * gap_s))

    @property
    def lasted_s(self) -> float:
        """From the first attempt to the last, never nothing: log files know whole seconds."""
        return max(1.0, self.last_t - self.began_t)

    def remember(self, t: float) -> bool:
        """Whether it is an attack or was one lately, which then goes on."""
        if not self.total and t - self.over_t <= REMEMBER_S:
            self.total = self.past
        return self.total > 0 and t - self.last_t <= REMEMBER_S

    def _rest(self) -> None:
        if self.total:
            self.past, self.over_t = self.total, self.last_t
        self.accepted = ""
        self.times.clear()
        self.users.clear()
        self.sources.clear()
        self.targets.clear()
        self.units.clear()
        self.row = self.total = self.told = 0


class Logins:
    """Counts failures by address and overall; gives the breach that holds, if any."""

    def __init__(self) -> None:
        self._by: OrderedDict[str, _Attack] = OrderedDict()
        self._everybody = _Attack()
        self._connections: OrderedDict[int, _Connection] = OrderedDict()
        self._names: OrderedDict[str, str] = (
            OrderedDict()
        )  # another name of an address -> the one that is used
        self._loud: dict[str, _Attack] = {}  # attacks whose total is to be told

    def failed(self, attempt: Attempt, t: float) -> Breach | None:
        """One message about failures; the breach if there were enough."""
        connection, key, count = self._count(attempt, t)
        attack = self._attack(key)
        attacked = count > 0 and attack.add(attempt, count, t, PER_ADDRESS)
        attack.name(attempt.user and _plain(attempt.user))
        if count <= 0:
            return None
        if connection is not None:
            connection.recent.append((t, count, not attacked and bool(attempt.address)))
        if attacked:
            self._loud[key] = attack
            return _breach(key, attack) if attack.due(t) else None
        if attempt.address and self._add_everywhere(key, attempt, count, t):
            self._loud[ANYWHERE] = self._everybody
            return _overall(self._everybody) if self._everybody.due(t) else None
        return None

    def unchecked(self, pid: int, t: float, what: str) -> None:
        """A process could not check a password: what it tells of just now was no guess. Or only a key."""
        if not pid:
            return
        connection = self._connection(pid, "", t)
        connection.hints = 0
        if what != KEY_UNCHECKED:
            self._retract(connection, t - UNCHECKED_S, connection.counted)
            connection.unchecked_t = t

    def accepted(self, attempt: Attempt, t: float) -> Breach | None:
        """A login succeeded; a breach if its address had been guessing."""
        connection = self._connections.get(attempt.pid)
        if connection is not None and connection.counted > connection.told["password"]:
            least = connection.counted - connection.told["password"]  # a module refused, the next accepted
            self._retract(connection, t - WINDOW_S, least)
            connection.told["pam"] = connection.counted = connection.told["password"]
        key = self._names.get(attempt.address, attempt.address)
        attack = self._by.get(key)
        if not key or attack is None or not attack.remember(t):
            return None
        attack.accepted, attack.ref = _plain(attempt.user), attempt.ref
        attack.told = attack.total
        return _breach(key, attack, final=True)

    def quiet(self, t: float) -> list[Breach]:
        """The totals of attacks that have fallen quiet since the last call."""
        told = []
        for key, attack in list(self._loud.items()):
            if attack.quiet(t):
                attack.told = attack.total
                told.append(_overall(attack) if key == ANYWHERE else _breach(key, attack, final=True))
            if attack.told >= attack.total:
                del self._loud[key]
        return told

    def _add_everywhere(self, key: str, attempt: Attempt, count: int, t: float) -> bool:
        sources = self._everybody.sources
        attacked = self._everybody.add(attempt, count, t, OVERALL)
        self._everybody.aim(attempt, count)
        sources[key] = None
        if len(sources) > ADDRESSES_MAX:
            sources.popitem(last=False)
        return attacked and len(sources) > 1

    def _retract(self, connection: _Connection, since_t: float, most: int) -> None:
        """Take back what a connection was counted for since then, at most so much."""
        while connection.recent and most > 0 and connection.recent[-1][0] >= since_t:
            _, count, everywhere = connection.recent.pop()
            count = min(count, most)
            most -= count
            if attack := self._by.get(connection.key):
                attack.retract(count)
            if everywhere:
                self._everybody.retract(count)

    def _count(self, attempt: Attempt, t: float) -> tuple[_Connection | None, str, int]:
        """Whose attempt it is, and how many are new."""
        local = f"by {_plain(attempt.by)}" if attempt.by else f"user {_plain(attempt.user)}"
        key = self._names.get(attempt.address, attempt.address) or local
        if not attempt.pid:
            return None, key, attempt.number
        connection = self._connection(attempt.pid, key, t)
        if connection.key != key and attempt.address:
            self._learn_name(connection, key)
        return connection, connection.key, connection.add(attempt)

    def _connection(self, pid: int, key: str, t: float) -> _Connection:
        connection = self._connections.get(pid)
        if connection is None or t - connection.t > REMEMBER_S:
            connection = self._connections[pid] = _Connection(key, t)
        self._connections.move_to_end(pid)
        if len(self._connections) > CONNECTIONS_MAX:
            self._connections.popitem(last=False)
        connection.t = t
        connection.key = connection.key or key
        return connection

    def _learn_name(self, connection: _Connection, key: str) -> None:
        """One connection under two names: PAM gave the host name of what the service calls by its address."""
        named = connection.key
        if not _NUMERIC.fullmatch(key):
            self._alias(key, named)
            return
        if _NUMERIC.fullmatch(named) or named.startswith(_LOCAL):  # the pid is used again
            connection.begin(key)
            return
        attack = self._by.get(named)
        if attack is not None and attack.total:  # it was reported under its host name
            self._alias(key, named)
            return
        self._alias(named, key)
        if attack is not None and key not in self._by:
            self._by[key] = self._by.pop(named)
        connection.key = key

    def _alias(self, name: str, known: str) -> None:
        self._names[name] = known
        if len(self._names) > ADDRESSES_MAX:
            self._names.popitem(last=False)

    def _attack(self, key: str) -> _Attack:
        attack = self._by.get(key)
        if attack is None:
            if len(self._by) >= ADDRESSES_MAX:
                gone, _ = self._by.popitem(last=False)
                self._loud.pop(gone, None)
            attack = self._by[key] = _Attack()
        self._by.move_to_end(key)
        return attack


_LOCAL = ("user ", "by ")  # keys of those without an address: whom they tried, or who they are
_HOST = Subject(SubjectKind.HOST, "")


def _plain(user: str) -> str:
    return user if _PLAIN.fullmatch(user) else ODD_NAME


def _breach(key: str, attack: _Attack, *, final: bool = False) -> Breach:
    """The attack of one address or user; only its total names the users that were tried."""
    users = list(reversed(attack.users))
    local = key.startswith(_LOCAL)
    way, _, name = key.partition(" ")
    whence = f"on this host {'as' if way == 'user' else way} {name}" if local else f"from {key}"
    text = f"{attack.total} failed logins {whence} within {span(attack.lasted_s)}"
    text += "" if way == "user" else f", tried as {_list(users)}"
    values = {"failures_count": float(attack.total), "users_count": float(max(1, len(users)))}
    values |= {"duration_s" if final else "window_s": attack.lasted_s}
    if final:
        values["accepted_count"] = 0.0
    if attack.accepted:
        text += f"; then a login as {attack.accepted} was accepted"
        values["accepted_count"] = 1.0
    named = [attack.accepted] if attack.accepted else users[:USERS_SHOWN] if final else []
    kind = SubjectKind.UNIT if way == "by" and name.endswith(".service") else SubjectKind.USER
    main = Subject(kind, name) if local else Subject(SubjectKind.ADDRESS, key[:MAX_NAME])
    # Less than grouping ties by: two attackers that both try root are not one attack.
    share = 0.25 if attack.accepted else 0.2
    others = [Subject(SubjectKind.USER, user, share) for user in named if not local]
    score = 0.9 if attack.accepted else min(0.89, 0.7 + 0.02 * log2(max(1.0, attack.total / PER_ADDRESS)))
    return Breach(
        rule=RULE,
        label=key,
        severity=Severity.ERROR if attack.accepted else Severity.WARNING,
        score=round(score, 4),
        subjects=[main, *others],
        hints={FaultClass.AUTH_BRUTEFORCE: 0.95 if attack.accepted else 0.9},
        text=text,
        values=values,
        ref=attack.ref,
        kind="event",
        stale_s=WINDOW_S,
        size=float(attack.total),
        since=attack.since,
    )


def _overall(attack: _Attack) -> Breach:
    """Many addresses that try a little each: none of them is the culprit; whom they are after can be told."""
    count, sources = attack.total, len(attack.sources)
    user, unit = (_most(counts) for counts in (attack.targets, attack.units))
    subjects = [Subject(SubjectKind.USER, user)] if user else []
    subjects += [Subject(SubjectKind.UNIT, unit, 0.8)] if unit else []
    text = f"{count} failed logins within {span(attack.lasted_s)} from {sources} addresses"
    text += f", all tried as {user}" if user and attack.targets[user] == attack.targets.total() else ""
    return Breach(
        rule=RULE,
        label=ANYWHERE,
        severity=Severity.WARNING,
        score=round(min(0.89, 0.7 + 0.02 * log2(max(1.0, count / OVERALL))), 3),
        subjects=subjects or [_HOST],
        hints={FaultClass.AUTH_BRUTEFORCE: 0.85},
        text=text,
        values={"failures_count": count, "window_s": attack.lasted_s, "addresses_count": sources},
        ref=attack.ref,
        kind="event",
        stale_s=WINDOW_S,
        size=float(count),
        since=attack.since,
    )


def _most(counts: Counter[str]) -> str:
    """The name that has most of the attempts, if one has; an odd one is the attacker's own text."""
    name, count = next(iter(counts.most_common(1)), ("", 0))
    return name if count >= TARGETED * counts.total() and name not in {"", ODD_NAME} else ""


def _list(users: Iterable[str]) -> str:
    shown = list(users)
    more = len(shown) - USERS_SHOWN
    rest = "" if more <= 0 else f" and {more} more" if len(shown) < USERS_MAX else " and many more"
    return (", ".join(shown[:USERS_SHOWN]) or "an unknown user") + rest
