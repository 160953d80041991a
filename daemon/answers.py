"""What the operator says back, from whatever screen: kept by the daemon, or in the store where none runs."""

from __future__ import annotations

import os
from typing import NamedTuple

from msgspec.structs import replace

from daemon.bus import RecordsClient
from daemon.errors import LockedError
from daemon.messages import Incident, KeepFeedback, KeepSilence, Record
from daemon.settings import Settings
from daemon.silences import after_verdict, verdict_id, whom
from daemon.store.reader import StoreReader
from daemon.store.writer import StoreWriter
from models.digest import blake2b

ASK_TIMEOUT_S = 5.0


class Followed(NamedTuple):
    """What followed from a verdict at once: a bad one quiets its like, a good one ends that."""

    made: KeepSilence | None
    ended: list[KeepSilence]


def keep(settings: Settings, record: Record) -> None:
    """Have the daemon keep a record; without a daemon, write it here. Returns when it is committed.

    Raises HauswartError.
    """
    folder = settings.store.parent
    if folder.exists() and not os.access(folder, os.W_OK):  # a member of the group may only ask
        _ask(settings, record)
        return
    try:
        with StoreWriter(settings.store) as writer:
            writer.keep(record)
    except LockedError:
        _ask(settings, record)


def _ask(settings: Settings, record: Record) -> None:
    client = RecordsClient(settings.runtime)
    try:
        client.keep(record, ASK_TIMEOUT_S)
    finally:
        client.close()


def keep_verdict(settings: Settings, incident: Incident, given: KeepFeedback) -> Followed:
    """Keep a verdict and what follows from it."""
    keep(settings, given)
    with StoreReader(settings.store) as reader:
        own = verdict_id(incident.id)
        known = [one for one in reader.silences() if one.id == own and not one.cancelled]
        findings = reader.findings(incident.id) if given.verdict == "bad" and not known else []
    made, ended = None, []
    if given.verdict == "bad" and not known:
        made = after_verdict(incident, findings, given.user, given.at)
        keep(settings, made)
    elif given.verdict == "good":
        ended = known
        for silence in known:
            keep(settings, replace(silence, user=given.user, cancelled=True))
    return Followed(made, ended)


def new_snooze(incident: Incident, *, start: float, end: float, user: str) -> KeepSilence:
    """A silence for a while about an incident's class and whom it blames first, which may be the host."""
    made = new_silence(
        fault_class=incident.fault_class,
        unit=whom(incident),
        start=start,
        end=end,
        user=user,
        reason="snoozed",
    )
    return replace(made, incident_id=incident.id)


def new_silence(
    *,
    fault_class: str,
    unit: str,
    start: float,
    end: float | None,
    user: str,
    recurring: str = "",
    reason: str = "",
) -> KeepSilence:
    """A silence with an id of its own."""
    digest = blake2b(f"{fault_class}|{unit}|{start}|{recurring}".encode(), digest_size=3).hexdigest()
    return KeepSilence(
        id=digest,
        fault_class=fault_class,
        unit=unit,
        start=start,
        end=end,
        recurring=recurring,
        reason=reason,
        user=user,
    )
