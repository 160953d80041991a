"""What the middle stage needs of its tier and of the store's writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from daemon.messages import Finding, Incident, KeepPurge, KeepReview, KeepSilence, Record, Upward
from daemon.questions import Question


class Grouper(Protocol):
    """The middle tier."""

    def take(self, batch: Sequence[Upward]) -> list[Incident]:
        """Group findings; the changed incidents."""
        ...

    def keep(self, silence: KeepSilence) -> None:
        """Heed a silence from now on."""
        ...

    def forget(self, purge: KeepPurge) -> list[str]:
        """Keep nothing of incidents that were erased; the ids of those that were open."""
        ...

    def asked(self) -> list[Question]:
        """What a model is to be asked about open incidents."""
        ...

    def told(
        self, number: int, scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]
    ) -> list[Incident]:
        """Take its answer; the incidents that it revises."""
        ...

    def learned(self) -> list[KeepSilence]:
        """Silences that follow from habits, each once."""
        ...

    def reviewed(self, said: KeepReview) -> list[Incident]:
        """Take what somebody who read an incident says of it; the incidents that it changes."""
        ...

    def puzzles(self) -> tuple[list[Finding], dict[str, str]]:
        """Findings that nothing explains, if there is news in them."""
        ...

    @property
    def unsettled(self) -> bool:
        """Whether findings are held that are in no incident yet."""
        ...


class Keeper(Protocol):
    """The store's writer; `notes` says what it could not keep as it is."""

    notes: list[str]

    def save(self, incidents: Sequence[Incident], findings: Sequence[Finding]) -> None:
        """Commit incidents and findings."""
        ...

    def keep(self, record: Record, client: str = "", request: int = 0) -> None:
        """Commit a record once."""
        ...

    def expire(self, wall: float, incidents_days: int) -> dict[str, int]:
        """Erase what is older than the retention."""
        ...
