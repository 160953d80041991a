"""Rights that somebody asked for and was denied: three in ten minutes are no slip, of a service none is.

Pure, on observation time, bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from daemon.messages import MAX_NAME, Line, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.wording import span
from models.known import Reading
from models.taxonomy import FaultClass, Severity, SubjectKind

RULE = "known.privilege-misuse"
WINDOW_S = 600.0
SLIPS = 3  # sudo gives up after three wrong passwords (passwd_tries)
USERS_MAX = 256
ODD_MAX = 100  # that one line may claim
# Accounts of programs, by number: people begin at 1000 (login.defs(5)), dynamic users of units at 61184.
_PEOPLE, _DYNAMIC, _NOBODY = 1000, 61184, 65534
# Where the number is root's, as sudo speaks, by the names that distributions give (base-passwd, uidgid).
_NAMES = (
    "daemon bin sys games man lp mail news uucp proxy www-data list irc nobody nginx apache http wwwrun"
    " mysql postgres redis mongodb memcache memcached tomcat named bind postfix dovecot squid"
)
_PROGRAMS = frozenset(_NAMES.split())
_ASKERS = frozenset(["sudo", "sudo-rs", "su", "su-l", "doas", "pkexec", "crontab"])  # run as whoever asks


class Privileges:
    """Who was denied how often lately."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def denied(self, reading: Reading, line: Line, t: float) -> Breach | None:
        """One line about it; the breach if that is too often."""
        user = reading.parts.get("user", "")[:MAX_NAME]
        if not user or user == "root":
            return None
        count = max(1, min(ODD_MAX, int(reading.values.get("failures_count", 1.0))))
        asks = line.trusted and line.identifier in _ASKERS  # others speak of whoever asked, as themselves
        program = user in _PROGRAMS or (asks and _of_program(line.uid))
        if "asked" in reading.parts and not program:
            return None  # a script that asks whether there is a password to be typed
        times = self._recent(user, t)
        times.extend([t] * count)
        return _breach(user, times, line, program=program) if program or len(times) >= SLIPS else None

    def _recent(self, user: str, t: float) -> deque[float]:
        times = self._times.get(user)
        if times is None:
            if len(self._times) >= USERS_MAX:
                self._times.popitem(last=False)
            times = self._times[user] = deque(maxlen=256)
        self._times.move_to_end(user)
        while times and t - times[0] > WINDOW_S:
            times.popleft()
        return times


def _of_program(uid: int) -> bool:
    return 0 < uid < _PEOPLE or _DYNAMIC <= uid <= _NOBODY


def _breach(user: str, times: deque[float], line: Line, *, program: bool) -> Breach:
    count, lasted_s = len(times), max(1.0, times[-1] - times[0])
    who = f"The service account {user}" if program else user
    often = "" if count == 1 else f" {count} times within {span(lasted_s)}"
    return Breach(
        rule=RULE,
        label=user,
        severity=Severity.WARNING,
        score=0.6,
        subjects=[Subject(SubjectKind.USER, user)],
        hints={FaultClass.PRIVILEGE_MISUSE: 0.75, FaultClass.AUTH_BRUTEFORCE: 0.4},  # passwords are guessed
        text=f"{who} asked for another user's rights and was denied{often}.",
        values={"failures_count": float(count), "window_s": lasted_s},
        ref=line.cursor or line.source,
        kind="event",
        stale_s=WINDOW_S,
        size=float(count),
    )
