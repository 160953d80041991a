"""Who is logged in: logind's session files, or utmp where there is no logind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from daemon.collectors.source import MAX_ATTRIBUTE, reader_event
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.messages import Event, Observation, Stamp

INTERVAL_S = 5.0
MAX_SESSIONS = 1024
_FILE_BYTES = 8192
_PEOPLE = (
    "user",
    "user-early",
    "user-light",
    "",
)  # CLASS= of a person's session; greeters and managers are not


class Session(NamedTuple):
    """One login."""

    id: str
    user: str
    tty: str
    host: str
    service: str
    leader: int
    since: float  # Unix seconds, 0.0 if unknown
    seat: str = ""  # of somebody who sits at the machine


class UtmpUser(NamedTuple):
    """What `psutil.users()` gives for one login."""

    name: str
    terminal: str | None
    host: str | None
    started: float
    pid: int | None


def _read_utmp() -> list[UtmpUser]:
    return [
        UtmpUser(user.name, user.terminal, user.host, user.started, int(user.pid or 0) or None)
        for user in psutil.users()
    ]


class SessionCollector:
    """Compares the sessions of now with those of the last look."""

    name = "sessions"
    interval_s: float | None = INTERVAL_S

    def __init__(
        self,
        run: Path = Path("/run"),
        clean_text: Clean = clean,
        hide_user: Callable[[str], str] = str,
        hide_host: Callable[[str], str] = str,
        read_utmp: Callable[[], Iterable[UtmpUser]] = _read_utmp,
    ) -> None:
        self._folder = run / "systemd/sessions"
        self._clean = clean_text
        self._hide_user = hide_user
        self._hide_host = hide_host
        self._read_utmp = read_utmp
        self._logind = False
        self._sessions: dict[str, Session] = {}
        self._changed_at = -1
        self._failed = False
        self._first = True

    def open(self) -> list[Event]:
        """Choose the source; raises SourceError where there is neither logind nor utmp."""
        self._logind = (self._folder.parent / "system").is_dir() and self._folder.is_dir()
        if not self._logind:
            try:
                list(self._read_utmp())
            except (OSError, RuntimeError) as error:
                raise SourceError(f"sessions: no logind, and utmp: {error}") from error
        return [
            reader_event(
                self.name, "present", "logind's sessions" if self._logind else "utmp, no logind runs"
            )
        ]

    def fileno(self) -> int | None:
        """Sessions are looked at, not waited for."""
        return None

    def pending(self) -> bool:
        """Every look is whole."""
        return False

    def position(self) -> str:
        """Sessions have no position."""
        return ""

    def close(self) -> None:
        """Nothing is held open."""

    def read(self, now: Stamp) -> list[Observation]:
        """Sessions that began and ended since the last look; at the first look all, marked as existing."""
        try:
            found = self._read_logind() if self._logind else self._read_users()
        except (OSError, RuntimeError) as error:
            said = [] if self._failed else [reader_event(self.name, "error", f"sessions: {error}", now)]
            self._failed = True
            return list(said)
        self._failed = False
        if found is None:
            return []
        before, self._sessions = self._sessions, found
        events: list[Observation] = [
            self._event(before[key], "end", now) for key in before.keys() - found.keys()
        ]
        events += [self._event(found[key], "start", now) for key in found.keys() - before.keys()]
        self._first = False
        return sorted(
            events, key=lambda event: (event.action, event.name) if isinstance(event, Event) else ("", "")
        )

    def _event(self, session: Session, action: str, now: Stamp) -> Event:
        attributes = {
            "user": self._hide_user(session.user),
            "tty": session.tty,
            "host": self._hide_host(session.host),
            "service": session.service,
            "seat": session.seat,
            "leader": str(session.leader or ""),
            "since": str(round(session.since)) if session.since else "",
            "existing": "1" if self._first and action == "start" else "",
        }
        kept = {key: self._clean(value)[0][:MAX_ATTRIBUTE] for key, value in attributes.items() if value}
        return Event(now, self.name, "session", self._clean(session.id)[0][:MAX_ATTRIBUTE], action, kept)

    # --- sources ------------------------------------------------------------------------------------

    def _read_logind(self) -> dict[str, Session] | None:
        """The sessions of people; None if no file changed (logind replaces them by renaming)."""
        changed_at = self._folder.stat().st_mtime_ns
        if changed_at == self._changed_at:
            return None
        found: dict[str, Session] = {}
        for path in sorted(self._folder.iterdir())[: 2 * MAX_SESSIONS]:
            if path.suffix or len(found) >= MAX_SESSIONS:  # `7.ref` is the pipe that keeps session 7
                continue
            session = _parse_session(path)
            if session:
                found[session.id] = session
        self._changed_at = changed_at
        return found

    def _read_users(self) -> dict[str, Session]:
        found: dict[str, Session] = {}
        for user in list(self._read_utmp())[:MAX_SESSIONS]:
            key = f"{user.terminal or '?'}:{user.pid or round(user.started)}"
            found[key] = Session(
                key, user.name, user.terminal or "", user.host or "", "", user.pid or 0, user.started
            )
        return found


def _parse_session(path: Path) -> Session | None:
    """A logind session file; None if it is gone, closing, or no person's."""
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES).decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return None
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    fields = {key: value.strip('"') for key, _, value in pairs}
    if fields.get("CLASS", "") not in _PEOPLE or fields.get("STATE") == "closing":
        return None
    return Session(
        path.name,
        fields.get("USER", fields.get("UID", "")),
        fields.get("TTY", fields.get("DISPLAY", "")),
        fields.get("REMOTE_HOST", ""),
        fields.get("SERVICE", ""),
        _number(fields.get("LEADER")),
        _number(fields.get("REALTIME")) / 1e6,
        fields.get("SEAT", ""),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
