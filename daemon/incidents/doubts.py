"""An incident by words alone: what programs write may be data, a test or a plan, which a reader can tell.

Where a served model looks at incidents, such a one is a warning, and nobody is notified of it, until it has
looked, or has not within `WAIT_S`. Where it says that nothing is wrong, it is of severity info, as long as no
measure and no event speak for it. Words that it was not shown are read in their turn; what nobody read within
`WAIT_S` is a warning if it is of the same kind, or of a writer of whom three looks said that nothing is
wrong, and else as bad as the rules say. Never doubted is what is about security, nor what is critical, unless
nothing but the level at which a program wrote a line that no rule knows makes it so. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from daemon.incidents.looks import Kind, Look, Unread, joined, kind_of, noted
from daemon.incidents.situations import Situation
from daemon.incidents.verdicts import Verdict
from daemon.messages import REVIEWED
from daemon.subjects import split_pid
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity

WAIT_S = 20.0  # for the answer: as long as until the second look, and what a small model on a processor takes


def look(
    situation: Situation, t: float, *, harmless: bool, shown: Collection[str], until_wall: float = inf
) -> Look:
    """Somebody was shown these pieces of evidence of it, by their ids, as it was at a Unix time."""
    if not harmless:
        return Look(harmless=False)
    strong = list(situation.strong())
    told = situation.incident.evidence if situation.incident else []
    pieces = [piece for one in strong for piece in one.evidence]
    read = {mask(piece.text) for piece in (*pieces, *told) if piece.id in shown}
    kinds: dict[Kind, int] = {}
    for one in strong:
        if any(mask(piece.text) in read for piece in one.evidence):
            later = one.finding.at.wall > until_wall  # graver than what was shown
            rank = (
                min(one.finding.severity.rank, Severity.WARNING.rank) if later else one.finding.severity.rank
            )
            kinds[kind_of(one.finding)] = max(kinds.get(kind_of(one.finding), 0), rank)
    writers = dict.fromkeys((who for who, _ in kinds), 1)
    found = Look(harmless=True, kinds=kinds, texts=frozenset(read), writers=writers)
    before = situation.looked
    if before is not None and before.harmless:
        left = {words: one for words, one in before.unread.items() if words[1] not in read}
        counts = {who: before.writers.get(who, 0) + 1 for who in writers}
        both = joined(found, before._replace(unread=left)) or found
        found = both._replace(writers={**before.writers, **counts})
    for one in strong:
        since_t = t if kind_of(one.finding) in found.kinds else one.first_t
        found = noted(found, one.finding, one.evidence, since_t)
    return found


def recall(situation: Situation, t: float, wall: float) -> None:
    """What a restart leaves of a look: that nothing is wrong, if all of its words had been read.

    What waited for its first look goes on waiting; what was read but for something new begins to.
    """
    known = situation.incident
    if known is None or known.meant is None:
        return
    waited_s = 0.0 if known.severity is Severity.INFO else max(0.0, wall - known.opened_at)
    situation.held_until = t + WAIT_S - waited_s
    if not known.waits and any(one.ref == REVIEWED for one in known.evidence):
        # Which words were read of whom is gone: of all that it was about.
        told = {
            ((who.kind.value, split_pid(who.name)[0]), fault): known.meant.rank
            for who in known.culprits
            for fault in known.scores
        }
        told |= {kind_of(one.finding): one.finding.severity.rank for one in situation.strong()}
        texts = frozenset(mask(one.text) for one in known.evidence)
        # A warning it is because of words that nobody read.
        left = {} if known.severity is Severity.INFO else {(next(iter(told)), ""): Unread(-inf, full=False)}
        situation.looked = Look(harmless=True, kinds=told, texts=texts, unread=left)


def tempered(verdict: Verdict, situation: Situation, t: float, *, awaited: bool) -> Verdict:
    """The verdict by the rules as it is told; `situation.doubt_t` is until when that holds."""
    situation.doubt_t = None
    looked = situation.looked
    if not awaited or verdict.severity.rank < Severity.WARNING.rank or not doubtful(verdict, situation):
        return verdict
    if looked is None:
        return _until_read(verdict, situation, t)
    return _read_as_nothing(verdict, situation, looked, t) if looked.harmless else verdict


def _until_read(verdict: Verdict, situation: Situation, t: float) -> Verdict:
    known = situation.incident
    if known is None or known.state != "open":
        situation.held_until = t + WAIT_S  # from when it opens
    elif not known.waits:
        return verdict  # somebody was told of it
    if t >= situation.held_until:
        return verdict
    situation.doubt_t = situation.held_until
    return verdict._replace(severity=Severity.WARNING, meant=verdict.severity, waits=True)


def _read_as_nothing(verdict: Verdict, situation: Situation, looked: Look, t: float) -> Verdict:
    unread = looked.unread.values()
    over = [one for one in unread if t >= one.since_t + WAIT_S]
    situation.doubt_t = min((one.since_t + WAIT_S for one in unread if one not in over), default=None)
    if any(one.full for one in over):
        return verdict
    if over:
        return verdict._replace(severity=Severity.WARNING, meant=verdict.severity)
    waits = situation.doubt_t is not None
    return verdict._replace(severity=Severity.INFO, meant=verdict.severity, harmless=True, waits=waits)


def unheard(situation: Situation) -> Severity | None:
    """How bad an incident is that ends before all of its words were read; None where they were."""
    known, looked = situation.incident, situation.looked
    if known is None or known.meant is None or not known.waits:
        return None
    full = looked is None or any(one.full for one in looked.unread.values())
    return known.meant if full else Severity.WARNING


def doubtful(verdict: Verdict, situation: Situation) -> bool:
    """Whether a reader may say of what the rules think that it is nothing."""
    known = verdict.fault_class is not FaultClass.UNKNOWN  # else the program's own word for its level counts
    grave = known and verdict.severity is Severity.CRITICAL
    # What the rules take for security stays that, whatever a model calls it.
    rules = max(verdict.scores, key=lambda one: (verdict.scores[one], one), default=verdict.fault_class)
    grave = grave or Category.SECURITY in {verdict.fault_class.category, rules.category}
    return verdict.words and not grave and not situation.stage
