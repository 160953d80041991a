"""How the operator is reached: hook, Apprise targets and Alertmanager, each message in a child process.

Nothing here waits: a child is started, polled and, past its time, killed with all it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from daemon.errors import ConfigError
from daemon.settings import Notify
from models.digest import blake2b

FAILED, NOT_UNDERSTOOD, NOT_INSTALLED = (
    1,
    2,
    3,
)  # exit codes of `send`; only FAILED is worth another try
TIMEOUT_S = 30.0
MAX_OUTPUT = 2048  # bytes of a child's standard error that are kept
MAX_AT_ONCE = 4
MAX_WAITING = 256
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0)  # then it has failed for good
MAX_TARGETS_BYTES = 1 << 16
ALERTMANAGER = "alertmanager"  # to whom an alert fires until it is resolved
CREDENTIAL = "hauswart.targets"  # as units/hauswart-notify.service loads it


@dataclass(frozen=True)
class Channel:
    """One way to the operator; `name` stands in the store and the log, `url` and `argv` never do."""

    name: str
    argv: tuple[str, ...] = field(repr=False)
    url: str = field(default="", repr=False)
    whole: bool = False  # it reads the incident itself beside title and text
    fires: bool = False  # what it was told stays in force until it hears of the end


class Outcome(NamedTuple):
    """How a notification ended: `final` failures are not tried again."""

    ok: bool
    final: bool
    error: str
    output: str


class Letter(NamedTuple):
    """One notification for one channel: the revisions it tells of, and what the child is given.

    `without` writes a digest anew, silent about the incidents with these ids.
    """

    channel: Channel
    about: tuple[tuple[str, int], ...]
    stdin: bytes
    environment: dict[str, str]
    without: Callable[[Collection[str]], Letter] | None = None


def channels_of(settings: Notify, otlp: str = "") -> list[Channel]:
    """The configured channels, an OpenTelemetry collector too; raises ConfigError, which quotes no target."""
    found = [Channel("hook", tuple(settings.hook))] if settings.hook else []
    urls = [*settings.targets, *_read_targets(settings.targets_file), *_read_targets(_credential())]
    for name, key, url in (
        (ALERTMANAGER, "notify.alertmanager", settings.alertmanager),
        ("otlp", "metrics.otlp", otlp),
    ):
        found += [over_http(name, url, key)] if url else []
    argv = (sys.executable, "-P", "-m", "daemon.notify.send")
    for number, url in enumerate(urls, 1):
        scheme, colon, _ = url.partition("://")
        if not colon or not scheme.isascii() or not scheme.replace("+", "").replace("-", "").isalnum():
            raise ConfigError(
                f"notify target {number} is not SCHEME://...", hint="see Apprise's list of URLs"
            )
        short = blake2b(url.encode(errors="surrogateescape"), digest_size=2).hexdigest()
        found.append(Channel(f"{scheme[:32]}-{short}", argv, url))
    return found


def over_http(name: str, url: str, key: str) -> Channel:
    """A channel whose sender, `daemon.notify.NAME`, posts JSON; raises ConfigError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{key} is no http address", hint="http://127.0.0.1:PORT")
    return Channel(
        name,
        (sys.executable, "-P", "-m", f"daemon.notify.{name}"),
        url,
        whole=True,
        fires=name == ALERTMANAGER,
    )


def _credential() -> str:
    """The file with targets that systemd handed this unit (LoadCredential=), "" if there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder, CREDENTIAL)
    return str(path) if folder and path.exists() else ""


def _read_targets(path: str) -> list[str]:
    if not path:
        return []
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = [line.strip() for line in file.read(MAX_TARGETS_BYTES).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"notify.targets_file {path}: {reason}") from error
    return [line for line in lines if line and not line.startswith("#")]


def letter(
    channel: Channel,
    about: Sequence[tuple[str, int]],
    document: dict[str, Any],
    *,
    title: str,
    body: str,
    severity: str,
    facts: dict[str, str],
) -> Letter:
    """What a channel's child reads: the document for the hook, title and text for an Apprise target."""
    request: dict[str, Any] = {"url": channel.url, "title": title, "body": body, "severity": severity}
    if channel.whole:
        request["document"] = document
    environment = child_environment()
    if not channel.url:
        facts = facts | {"title": title, "text": body, "severity": severity}
        environment |= {f"HAUSWART_{name.upper()}": value.replace("\0", "") for name, value in facts.items()}
    content = msgspec.json.encode(request if channel.url else document)
    return Letter(channel, tuple(about), content, environment)


def child_environment() -> dict[str, str]:
    """What a sender inherits: nothing of our own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HAUSWART_")}


class Post:
    """Sends letters, a few at a time, again after a pause if that fails.

    `sent` is called with a letter and its outcome when it was handed over or has failed for good.
    """

    def __init__(self, done: Callable[[Letter, Outcome], None], tell: Callable[[str], None]) -> None:
        self._done, self._tell = done, tell
        self._waiting: deque[_Attempt] = deque()
        self._running: list[_Running] = []
        self.dropped = 0

    def add(self, one: Letter, mono: float) -> None:
        """Queue a letter; what older ones to the same channel say of its incidents is not sent any more."""
        about = {name for name, _ in one.about}
        left = (_left(other, one.channel, about) for other in self._waiting)
        self._waiting = deque(other for other in left if other is not None)
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(_Attempt(one, 0, mono))

    def step(self, mono: float) -> float | None:
        """Start and finish what is due; seconds until there is something to do, None if there is nothing."""
        for running in list(self._running):
            outcome = running.poll(mono)
            if outcome is not None:
                self._running.remove(running)
                self._finish(running.attempt, outcome, mono)
        for attempt in [one for one in self._waiting if one.due <= mono]:
            if len(self._running) >= MAX_AT_ONCE:
                break
            if any(_same(running.attempt.letter, attempt.letter) for running in self._running):
                continue  # in the order in which it happened
            self._waiting.remove(attempt)
            self._start(attempt, mono)
        if self._running:
            return 0.2
        return max(0.0, min(one.due for one in self._waiting) - mono) if self._waiting else None

    def close(self) -> None:
        """Kill what still runs; what was not delivered is planned again by the next process."""
        for running in self._running:
            running.kill()
        self._running.clear()

    def _start(self, attempt: _Attempt, mono: float) -> None:
        try:
            self._running.append(_Running(attempt, mono + TIMEOUT_S))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be started"
            self._finish(attempt, Outcome(ok=False, final=False, error=reason, output=""), mono)

    def _finish(self, attempt: _Attempt, outcome: Outcome, mono: float) -> None:
        one, number = attempt.letter, attempt.number
        # Metrics are about no incident: their next push is the next attempt.
        if outcome.ok or outcome.final or number >= len(BACKOFF_S) or not one.about:
            self._done(one, outcome)
            return
        newer = {
            name
            for other in self._waiting
            if other.letter.channel == one.channel
            for name, _ in other.letter.about
        }
        left = _left(attempt, one.channel, newer)
        if left is None:
            return  # there is newer news of all of it
        pause_s = BACKOFF_S[number]
        self._tell(f"notification through {one.channel.name}: {outcome.error}; again in {pause_s:.0f} s")
        self._waiting.append(_Attempt(left.letter, number + 1, mono + pause_s))


def _same(one: Letter, other: Letter) -> bool:
    """Whether two letters tell one channel of one incident, or of none."""
    names = {name for name, _ in other.about}
    return one.channel == other.channel and (not one.about or any(name in names for name, _ in one.about))


class _Attempt(NamedTuple):
    letter: Letter
    number: int
    due: float


def _left(attempt: _Attempt, channel: Channel, newer: Collection[str]) -> _Attempt | None:
    """What is still to be said beside newer news to a channel; None if that is nothing."""
    one, told = attempt.letter, {name for name, _ in attempt.letter.about}
    if one.channel != channel:
        return attempt
    if told <= set(newer):
        return None
    if one.without is None or told.isdisjoint(newer):
        return attempt
    return attempt._replace(letter=one.without(newer))


class _Running:
    """One child: input from memory, output bounded, a process group of its own."""

    def __init__(self, attempt: _Attempt, deadline: float) -> None:
        self.attempt = attempt
        self._deadline = deadline
        self._output = b""
        channel, stdin, environment = attempt.letter.channel, attempt.letter.stdin, attempt.letter.environment
        descriptor = os.memfd_create("notification", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, stdin)
            os.lseek(descriptor, 0, os.SEEK_SET)
            self._child = subprocess.Popen(
                list(channel.argv),
                stdin=descriptor,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        assert self._child.stderr is not None
        self._stderr = self._child.stderr.fileno()
        os.set_blocking(self._stderr, False)

    def poll(self, mono: float) -> Outcome | None:
        """The outcome once there is one."""
        self._read()
        code = self._child.poll()
        if code is None and mono < self._deadline:
            return None
        if code is None:
            self.kill()
            return self._outcome(ok=False, final=False, error=f"took more than {TIMEOUT_S:.0f} s")
        self._read()
        self._close()
        if code == 0:
            return self._outcome(ok=True, final=True, error="")
        if self.attempt.letter.channel.url:
            final = code in {NOT_UNDERSTOOD, NOT_INSTALLED}
            return self._outcome(ok=False, final=final, error=self._text() or f"exit code {code}")
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._outcome(ok=False, final=False, error=reason)

    def kill(self) -> None:
        """End the child and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._close()

    def _outcome(self, *, ok: bool, final: bool, error: str) -> Outcome:
        return Outcome(ok, final, error, self._text())

    def _text(self) -> str:
        return self._output.decode(errors="replace").strip()

    def _read(self) -> None:
        """Take what is there, keep the beginning; a pipe holds 64 KiB, what is left waits for later."""
        for _ in range(2):
            try:
                piece = os.read(self._stderr, 1 << 16)
            except (BlockingIOError, ValueError, OSError):
                return
            if not piece:
                return
            self._output += piece[: MAX_OUTPUT - len(self._output)]

    def _close(self) -> None:
        assert self._child.stderr is not None
        self._child.stderr.close()
