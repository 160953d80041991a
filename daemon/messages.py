"""The typed messages of the bus and the store, and their hard limits; PROTOCOL.md is the specification.

Everything here is frozen. What arrives from outside a process is decoded through `daemon.codec`,
which enforces the limits before a message exists.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.taxonomy import Category, FaultClass, Severity, SubjectKind

SCHEMA = 1

MAX_TEXT = 2048  # characters of a log line's text after cutting; journald's own default line limit is 48 KiB
MAX_NAME = 512
UNNAMED = "-"  # of a line: its writer gives no name that can be read (RFC 5424's NILVALUE)
MAX_VALUES = 8192
MAX_LIST = 4096

Name = Annotated[str, Meta(max_length=MAX_NAME)]
Text = Annotated[str, Meta(max_length=2 * MAX_TEXT)]  # escaping may lengthen what was cut
Values = Annotated[dict[Name, float], Meta(max_length=MAX_VALUES)]
Attributes = Annotated[dict[Name, Text], Meta(max_length=64)]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]


class Stamp(Struct, frozen=True, array_like=True, gc=False):
    """When something was observed: boot id, monotonic and wall seconds (CLOCK_MONOTONIC, Unix time)."""

    boot: Annotated[str, Meta(max_length=64)]
    mono: float
    wall: float


# --- observations: what a collector saw -------------------------------------------------------------


class Sample(Struct, frozen=True, tag="sample"):
    """Values of metrics at one instant; names are `models.metrics` names, e.g. `fs.used{/var}`."""

    at: Stamp
    source: Name
    values: Values


class Line(Struct, frozen=True, tag="line", omit_defaults=True, gc=False):
    """One log line, already cut, escaped and redacted.

    `unit`, `identifier`, `pid`, `uid` come from trusted journal fields (leading underscore) or, for a
    followed file, are parsed from the text and then `trusted` is False. `subject_unit` is the `UNIT=` field
    and is set only when pid 1 wrote the line.
    """

    at: Stamp
    source: Name  # "journal", "kernel" or "file:/path"
    text: Text
    priority: Annotated[int, Meta(ge=0, le=7)] = 6
    unit: Name = ""
    subject_unit: Name = ""
    identifier: Name = ""
    pid: int = 0
    uid: int = -1
    trusted: bool = True
    truncated: bool = False
    cursor: Name = ""
    message_id: Name = ""
    fields: Attributes = {}


class Event(Struct, frozen=True, tag="event"):
    """A discrete change: a device, a link, a session, a context, a reader or a stage.

    Actions by kind: device add|remove|change; link up|down|admin-down|removed|added; session start|end|sudo;
    context start|end|running (name: boot, backup, update, rebuild, scrub, maintenance-job, timer; attributes
    say which unit or generation; running: said once more by the low stage, began running_s ago);
    reader present|absent|gap|error (attributes: reason, lost); stage start|stop|crashed|silent.
    """

    at: Stamp
    source: Name
    kind: Literal["device", "link", "session", "context", "reader", "stage"]
    name: Name
    action: Name
    attributes: Attributes = {}


class Process(Struct, frozen=True, array_like=True):
    """One process in a snapshot; cpu in cores since the last snapshot, io in bytes per second."""

    pid: int
    ppid: int
    name: Name
    unit: Name  # systemd unit or cgroup path, "" if none
    uid: int
    state: Annotated[str, Meta(max_length=1)]
    cpu: float
    rss_bytes: int
    fds: int  # -1: not readable
    fd_limit: int  # soft RLIMIT_NOFILE, -1: not readable
    threads: int
    io_bytes: float
    age_s: float
    command: Name = ""


class Snapshot(Struct, frozen=True, tag="snapshot"):
    """The processes that matter (top by cpu, rss, io, descriptors, age) and counts by parent and socket.

    `counts` is keyed like metrics: `children{PID/name}`, `name{python3}`, `socket{tcp/SYN_RECV}`,
    `peer{192.0.2.7}` (connections by remote address), `backlog{web.service}` (connections in a full queue).
    """

    at: Stamp
    source: Name
    reason: Literal["interval", "jump"]
    processes: Annotated[list[Process], Meta(max_length=MAX_LIST)]
    counts: Values = {}


Observation = Sample | Line | Event | Snapshot


class Tick(Struct, frozen=True, tag="tick"):
    """Observation time has reached `at`; lets a stage downstream close windows without its own clock."""

    at: Stamp


# --- findings ---------------------------------------------------------------------------------------


class Subject(Struct, frozen=True, array_like=True):
    """What a finding points at, with the share of the blame in 0..1."""

    kind: SubjectKind
    name: Name
    score: Score = 1.0


REVIEWED = "incident.reviewed"  # the `ref` of what an incident's evidence says of who read it
REOPENED = "incident.reopened"  # and that it came back


class Evidence(Struct, frozen=True, omit_defaults=True):
    """A piece of evidence, kept with its incident because the journal forgets.

    `ref` is a journal cursor, a `file:path` or a metric name; `start` and `end` are Unix seconds; `values`
    are the numbers that the text states, so that the advice can cite them (keys: plain words, SI base units
    in the name, e.g. `used_ratio`, `free_bytes`, `failures_count`, `duration_s`). `speaks_for` says of a log
    line which fault classes it names, and how strongly; a line that is merely odd names none.
    """

    id: Name
    kind: Literal["line", "metric", "event", "snapshot"]
    ref: Name
    start: float
    end: float
    text: Text
    values: Annotated[dict[Name, float], Meta(max_length=64)] = {}
    speaks_for: Annotated[dict[FaultClass, Score], Meta(max_length=33)] = {}


class Finding(Struct, frozen=True, tag="finding", omit_defaults=True):
    """The low tier's verdict that an observation or a window is noteworthy.

    `hints` maps fault classes to weights in 0..1 (what this finding speaks for); `ended` marks that the
    condition named by `rule` and the first subject no longer holds. `path` names who spoke. `words` marks
    that nothing but what a program wrote speaks for it: no measure, no event, no kernel, no service manager.
    """

    id: Name
    at: Stamp
    rule: Name  # the detector's name, e.g. "fs.used.level", "line.rate", "known.oom-kill"
    category: Category
    severity: Severity
    score: Score
    subjects: Annotated[list[Subject], Meta(max_length=32)]
    hints: Annotated[dict[FaultClass, float], Meta(max_length=33)]
    evidence: Annotated[list[Evidence], Meta(max_length=32)]
    ended: bool = False
    template: Name = ""
    path: Literal["baseline", "model"] = "baseline"
    words: bool = False


# --- incidents --------------------------------------------------------------------------------------


class Culprit(Struct, frozen=True):
    """Who or what caused an incident."""

    kind: SubjectKind
    name: Name
    score: Score


class ContextNote(Struct, frozen=True):
    """What the host was doing on purpose near an incident; `effect` says how it was weighed."""

    kind: Name  # a benign fault class, "session" or "timer"
    name: Name
    started: float  # Unix seconds
    ended: float | None
    effect: Literal["noted", "lowered", "explained"]
    text: Text


class Advice(Struct, frozen=True, omit_defaults=True):
    """What it means and what to do; `sources` maps each number or name in the text to an evidence id.

    `author` is the served model that wrote it and where it is served; else the tier itself wrote it.
    """

    text: Annotated[str, Meta(max_length=16384)]
    lang: Literal["en", "de"]
    origin: Literal["model", "catalogue"]
    action: Name = ""  # at most one recommended command, never run by hauswart itself
    sources: Annotated[dict[Name, Name], Meta(max_length=256)] = {}
    author: Name = ""


class Incident(Struct, frozen=True, tag="incident"):
    """A group of findings with one cause; `revision` counts its changes, times are Unix seconds."""

    id: Name
    revision: int
    state: Literal["open", "closed", "merged"]
    fault_class: FaultClass
    severity: Severity
    score: Score
    culprits: Annotated[list[Culprit], Meta(max_length=32)]
    opened_at: float
    updated_at: float
    closed_at: float | None
    boot_id: Name
    context: Annotated[list[ContextNote], Meta(max_length=32)]
    evidence: Annotated[list[Evidence], Meta(max_length=256)]
    finding_ids: Annotated[list[Name], Meta(max_length=MAX_LIST)]
    findings_count: int
    evidence_at: float  # Unix seconds of the first observation that speaks for it
    merged_into: Name = ""
    quieted: Name = ""  # id of the silence that keeps it from being notified
    path: Literal["baseline", "model"] = "baseline"
    scores: Annotated[dict[FaultClass, float], Meta(max_length=33)] = {}
    meant: Severity | None = None  # by the rules, as long as they are doubted
    waits: bool = False  # it is still to be read, or some of its words: nobody is notified before
    measured: bool = False  # more than what programs wrote speaks for it


# --- records: what the other stages and the operator ask the middle tier to keep -----------------------


class KeepAdvice(Struct, frozen=True, tag="keep-advice"):
    """The top tier's advice for one revision of an incident, one entry a language."""

    incident_id: Name
    revision: int
    advice: Annotated[list[Advice], Meta(max_length=8)]


class KeepFeedback(Struct, frozen=True, tag="keep-feedback"):
    """The operator's verdict on an incident or its advice; an edit keeps both texts."""

    incident_id: Name
    verdict: Literal["good", "bad", "edited", "acknowledged"]
    user: Name
    at: float
    lang: Name = ""
    original: Annotated[str, Meta(max_length=16384)] = ""
    improved: Annotated[str, Meta(max_length=16384)] = ""
    comment: Text = ""


class KeepSilence(Struct, frozen=True, tag="keep-silence"):
    """Do not notify about what matches, inside a window; empty fields match everything.

    `recurring` is "" (from `start` to `end`, Unix seconds) or a rule of days (`Mon,Tue`, `Mon-Fri`, `daily`,
    `weekdays`, `weekends`) and times (`02:00-04:00`), local. Findings of `templates` about the same subject
    support other evidence, but open no incident.
    """

    id: Name
    fault_class: Name
    unit: Name  # a culprit's name, or a shell-style pattern on it if an operator wrote it
    start: float
    end: float | None
    recurring: Name
    reason: Text
    user: Name
    cancelled: bool = False
    incident_id: Name = ""  # whose bad verdict or snooze it follows from
    templates: Annotated[list[Name], Meta(max_length=16)] = []


class KeepDelivery(Struct, frozen=True, tag="keep-delivery"):
    """A notification was handed to a target (or finally failed)."""

    incident_id: Name
    revision: int
    target: Name  # "hook", "digest" or the target's scheme, never a URL with its credentials
    ok: bool
    at: float
    error: Text = ""


class KeepFinding(Struct, frozen=True, tag="keep-finding"):
    """A finding that did not come through the low tier: stage health, or what a served model read."""

    finding: Finding


class KeepReview(Struct, frozen=True, tag="keep-review", omit_defaults=True):
    """What somebody who read an incident says is its cause, and which other open one has the same.

    `baseline` is the class that it had when it was asked about; with another one the review is of no use.
    With the same class and nothing else it agrees; `harmless`: nothing is wrong, it only sounds or looks so.
    `evidence` are the ids of what shows the cause. It is kept with the incident's next revision.
    """

    incident_id: Name
    baseline: FaultClass
    at: float
    fault_class: FaultClass
    author: Name
    culprit: Culprit | None = None
    same_as: Name = ""
    evidence: Annotated[list[Name], Meta(max_length=16)] = []
    harmless: bool = False
    asked_at: float = 0.0  # Unix seconds of what was read; 0: all until `at`
    shown: Annotated[list[Name], Meta(max_length=32)] = []  # ids of the incident's evidence that was read

    @property
    def agrees(self) -> bool:
        """Whether it leaves the incident's class as rules have it."""
        return self.fault_class is self.baseline and not self.same_as and not self.harmless


class KeepPurge(Struct, frozen=True, tag="keep-purge"):
    """Erase incidents and what belongs to them; both conditions must hold, None and "" match everything.

    `before` is compared with an incident's last change, in Unix seconds.
    """

    user: Name
    at: float
    before: float | None = None
    fault_class: Name = ""

    def erases(self, incident: Incident) -> bool:
        """Whether it erases an incident."""
        older = self.before is None or incident.updated_at < self.before
        return older and self.fault_class in {"", incident.fault_class.value}

    @property
    def everything(self) -> bool:
        """Whether silences go, too."""
        return self.before is None and not self.fault_class


Record = KeepAdvice | KeepFeedback | KeepSilence | KeepDelivery | KeepFinding | KeepReview | KeepPurge


class Committed(Struct, frozen=True, tag="committed"):
    """The record with this request number is on the disk."""

    request: int


class Refused(Struct, frozen=True, tag="refused"):
    """The record with this request number was not kept."""

    request: int
    reason: Text


Reply = Committed | Refused


class Wake(Struct, frozen=True, tag="wake"):
    """Something new is in the store; a hint only, the store is the authority."""

    table: Literal["incidents", "advice", "feedback", "silences", "findings"]
    id: Name


Upward = Finding | Event | Tick  # what the low tier sends to the middle tier
