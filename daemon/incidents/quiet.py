"""What is not to be notified on this host: the operator's silences, and habits learned from the past.

Owns the silences in force; who asks tells the wall time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daemon.incidents.schedules import Schedules
from daemon.messages import Finding, Incident, KeepSilence
from daemon.silences import hushing, quieting

LOOK_S = 10.0  # silences begin and end by the wall clock; open incidents are looked at this often


class Quiet:
    """Silences by id; `past` are the incidents of the last weeks, `silences` also those taken back."""

    def __init__(self, silences: Sequence[KeepSilence], past: Iterable[Incident]) -> None:
        self._silences = {one.id: one for one in silences if not one.cancelled}
        self._schedules = Schedules(past, silences)
        self._learned: list[KeepSilence] = []
        self._looked_t: float | None = None

    def keep(self, silence: KeepSilence) -> None:
        """A silence was made, changed or cancelled."""
        self._schedules.know(silence)
        self._silences.pop(silence.id, None)
        if not silence.cancelled:
            self._silences[silence.id] = silence
        self._looked_t = None

    def forget(self) -> None:
        """The operator has erased all silences, and the incidents that habits were learned from."""
        self._silences, self._schedules, self._learned = {}, Schedules([], []), []
        self._looked_t = None

    def close(self, incident: Incident) -> None:
        """An incident is over, once more or for the first time; a habit is silent from now on."""
        habit = self._schedules.close(incident)
        if habit is not None:
            self._learned.append(habit)
            self.keep(habit)

    def learned(self) -> list[KeepSilence]:
        """Silences that follow from habits, each once."""
        learned, self._learned = self._learned, []
        return learned

    def due(self, t: float) -> bool:
        """Whether open incidents are to be looked at again; True once for each time."""
        if self._looked_t is not None and (not self._silences or t - self._looked_t < LOOK_S):
            return False
        self._looked_t = t
        return True

    def over(self, incident: Incident, wall: float) -> str:
        """The id of the silence that keeps an incident from being notified, or ""."""
        return quieting(self._silences.values(), incident, wall)

    def hushes(self, finding: Finding, wall: float) -> bool:
        """Whether a bad verdict keeps a finding from opening an incident."""
        spoken = [one for one in self._silences.values() if one.templates]
        return bool(spoken) and hushing(spoken, finding, wall)
