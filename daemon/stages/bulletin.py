"""What the journal hears of incidents: that one opened, changed in what matters, or ended.

Each line names its incident (`journalctl HAUSWART_INCIDENT=ID`), and follows the commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from daemon.message_ids import MessageId
from daemon.messages import Incident
from daemon.stages.log import StageLog

MAX_TOLD = 1024
_Told = tuple[str, str, str, str]  # state, class, severity, culprit


class Bulletin:
    """Tells each incident's news once; what only added evidence is no news."""

    def __init__(self, tell: StageLog) -> None:
        self._tell = tell
        self._told: OrderedDict[str, _Told] = OrderedDict()

    @property
    def summary(self) -> str:
        """One line for `systemctl status`."""
        count = sum(1 for state, *_ in self._told.values() if state == "open")
        return f"grouping; {count or 'no'} open incident{'' if count == 1 else 's'}"

    def know(self, incident: Incident) -> None:
        """It was told before, by the process before this one."""
        self._told[incident.id] = _told(incident)

    def forget(self, ids: Iterable[str]) -> None:
        """They were erased."""
        for one in ids:
            self._told.pop(one, None)

    def tell(self, incident: Incident) -> None:
        """Tell what is committed."""
        before, now = self._told.pop(incident.id, None), _told(incident)
        self._told[incident.id] = now
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        if now == before:
            return
        message_id, said = _news(incident, before)
        culprit, severity = now[3], incident.severity.value
        fields = {"incident": incident.id, "class": now[1], "culprit": culprit, "severity": severity}
        level = severity if incident.state == "open" else "info"
        whose = f" of {culprit}" if culprit else ""
        text = f"incident {incident.id} {said}: {now[1]}{whose}, {severity}"
        self._tell.say(level, text, message_id, **fields)


def _told(incident: Incident) -> _Told:
    culprit = incident.culprits[0].name if incident.culprits else ""
    return incident.state, incident.fault_class.value, incident.severity.value, culprit


def _news(incident: Incident, before: _Told | None) -> tuple[MessageId, str]:
    if incident.state == "merged":
        return MessageId.INCIDENT_MERGED, f"merged into {incident.merged_into}"
    if incident.state == "closed":
        return MessageId.INCIDENT_CLOSED, "closed"
    if before is None:
        return MessageId.INCIDENT_OPENED, "opened"
    return MessageId.INCIDENT_UPDATED, "opened again" if before[0] == "closed" else "changed"
