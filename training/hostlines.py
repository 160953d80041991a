"""Rows for the low tier from a host's own lines: kept telemetry, the journal, plain log files.

A row's label is the priority that its writer chose, where the writer chose one: what services print reaches
the journal as 6 without anybody's choice, so 6 labels only the kernel's lines. Texts pass the same gate as in
the collector. Reads files and journalctl's output; knows nothing of splits or models.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from daemon.errors import MissingDependencyError, SourceError
from daemon.ingest import clean
from daemon.messages import Line
from daemon.store.segments import SegmentReader, segment_paths
from models.lines import encode, split_header
from models.templates import Miner
from training.splits import UNKNOWN_UID
from training.tables import check_size

Row = dict[str, Any]
Tell = Callable[[str], None]

LINES_MAX = 5_000_000  # read from one source; a host's distinct texts are some thousand of these
DEFAULT_PRIORITY = 6  # sd-daemon(3): what has no prefix is logged as "info"
_CLASS_OF_PRIORITY = (0, 0, 0, 0, 1, 2, 2, 3)  # into models.lines.SEVERITY_CLASSES
_JOURNAL_FIELDS = (
    "MESSAGE,PRIORITY,_TRANSPORT,_SYSTEMD_UNIT,SYSLOG_IDENTIFIER,_COMM,_UID,__REALTIME_TIMESTAMP"
)


class Collected:
    """Rows in time order, one for each distinct text of a group, and how many lines were read for them."""

    def __init__(self, group_by: str) -> None:
        self.rows: list[Row] = []
        self.lines = 0
        self._seen: set[tuple[str, str, int | None]] = set()
        self._miner = Miner() if group_by == "template" else None

    def add(
        self,
        text: str,
        *,
        program: str,
        source: str,
        unit: str = "",
        uid: int | None = None,
        severity: int | None = None,
        at: float | None = None,
    ) -> None:
        """Take one line; `uid` None says that the operator vouches for the file it is from."""
        self.lines += 1
        encoded = encode(text, program)
        group = unit or program or source
        if self._miner is not None:
            group = f"template {self._miner.add(text, program)}"
        key = (encoded, group, uid)
        if len(encoded) < 3 or key in self._seen:
            return
        self._seen.add(key)
        row = {"text": encoded, "group": group, "source": source, "uid": uid, "severity": severity, "at": at}
        self.rows.append(row)


def from_telemetry(folder: Path, found: Collected, tell: Tell) -> None:
    """The lines of kept telemetry segments; raises SourceError where the folder cannot be read."""
    try:
        paths = segment_paths(folder) if folder.is_dir() else [folder]
    except OSError as error:
        raise SourceError(f"telemetry {folder}: {error.strerror}") from error
    reader = SegmentReader(paths)
    for batch in reader:
        for one in batch:
            if isinstance(one, Line):
                _take(one, found)
        if found.lines >= LINES_MAX:
            tell(f"{folder}: stopped after {LINES_MAX} lines")
            break
    for note in reader.notes:
        tell(note)


def _take(line: Line, found: Collected) -> None:
    trusted = line.trusted or line.source == "kernel"
    chosen = trusted and (line.source == "kernel" or line.priority != DEFAULT_PRIORITY)
    found.add(
        line.text,
        program="kernel" if line.source == "kernel" else line.identifier,
        unit=line.unit,
        source="telemetry",
        uid=(0 if line.source == "kernel" else line.uid) if trusted else UNKNOWN_UID,
        severity=_CLASS_OF_PRIORITY[line.priority] if chosen else None,
        at=line.at.wall,
    )


def from_journal(found: Collected, tell: Tell, options: Sequence[str] = ()) -> None:
    """This host's journal, or what `options` of journalctl(1) select; raises SourceError."""
    argv = [
        "journalctl",
        "--output=json",
        "--no-pager",
        "--all",
        f"--output-fields={_JOURNAL_FIELDS}",
        *options,
    ]
    try:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise MissingDependencyError("the journal is read with journalctl, which is not there") from error
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        damaged = 0
        for raw in process.stdout:
            damaged += not _take_entry(raw, found)
            if found.lines >= LINES_MAX:
                tell(f"journal: stopped after {LINES_MAX} lines")
                process.kill()
                break
        complaint = process.stderr.read(4096).decode(errors="replace").strip()
    if damaged:
        tell(f"journal: {damaged} entries without a text that can be read")
    if process.returncode > 0:
        raise SourceError(
            f"journalctl failed: {complaint.splitlines()[-1] if complaint else 'no reason given'}"
        )


def _take_entry(raw: bytes, found: Collected) -> bool:
    try:
        entry = json.loads(raw)
        message = entry["MESSAGE"]
        text, _ = clean(bytes(message) if isinstance(message, list) else str(message))
        priority = int(entry.get("PRIORITY", DEFAULT_PRIORITY))
        uid = int(entry.get("_UID", UNKNOWN_UID))
        at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
    except (ValueError, KeyError, TypeError):
        return False  # counted and said
    kernel = entry.get("_TRANSPORT") == "kernel"
    chosen = kernel or (entry.get("_TRANSPORT") != "stdout" and priority != DEFAULT_PRIORITY)
    found.add(
        text,
        program="kernel" if kernel else str(entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or ""),
        unit=str(entry.get("_SYSTEMD_UNIT", "")),
        source="journal",
        uid=0 if kernel else uid,
        severity=_CLASS_OF_PRIORITY[priority] if chosen and 0 <= priority <= 7 else None,
        at=at,
    )
    return True


def from_log(path: Path, found: Collected) -> None:
    """A plain log file that the operator names, and so vouches for; its lines carry no label."""
    check_size(path)
    with path.open("rb") as file:
        for raw in _bounded(file):
            text, _ = clean(raw)
            program, _ = split_header(text)
            found.add(text, program=program, source=path.name)
            if found.lines >= LINES_MAX:
                return


def _bounded(file: Any, most: int = 1 << 16) -> Iterator[bytes]:
    """Lines, each cut to `most` bytes."""
    while raw := file.readline(most):
        if not raw.endswith(b"\n"):
            while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                pass
        yield raw.rstrip(b"\r\n")
