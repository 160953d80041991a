"""What a reader may call nothing: words that are data, a test or a plan, and what people do on purpose.

Where a served model looks at incidents, such a one is a warning, and nobody is notified of it, until it has
looked, or has not within `WAIT_S`. Where it says that nothing is wrong, it is of severity info, as long as no
measure and no event speak for it. Words that it was not shown are read in their turn; what nobody read within
`WAIT_S` is a warning if it is of the same kind, or of a writer of whom three looks said that nothing is
wrong, and else as bad as the rules say. Never doubted is what is about security, nor what is critical, unless
nothing but the level at which a program wrote a line that no rule knows makes it so.

What measures and events call an error, but people do on purpose, too (a drill that ends a service again and
again, a load test), waits in the same way. Read as nothing it stays a warning, for as long as nothing else
is measured. What they call a warning may be meant more often, since things may be made use of (a recorder
that keeps its disk nine tenths full, a batch that has all processors); read as nothing it is an info. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf

from daemon.incidents.context import main_class
from daemon.incidents.looks import Kind, Look, Unread, joined, kind_of, noted
from daemon.incidents.situations import RESTORED, Condition, Situation, condition_key
from daemon.incidents.verdicts import Verdict
from daemon.messages import REOPENED, REVIEWED, Evidence, Finding
from daemon.subjects import key, split_pid
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity

_F = FaultClass
# Services that end and load that comes may be somebody's doing; a full disk or a lost device is never meant.
ON_PURPOSE = frozenset(
    {
        _F.SERVICE_CRASH,
        _F.CRASH_LOOP,
        _F.SERVICE_HUNG,
        _F.DEPENDENCY_FAILED,
        _F.PROCESS_STORM,
        _F.CPU_SATURATION,
        _F.IO_SATURATION,
        _F.CONNECTION_FLOOD,
    }
)
MADE_USE_OF = ON_PURPOSE | {
    _F.MEMORY_EXHAUSTION,
    _F.DISK_FULL,
    _F.INODE_EXHAUSTION,
    _F.FD_EXHAUSTION,
    _F.PACKET_LOSS,  # a shaper's queue drops what is too much
}
_MEANT = {Severity.WARNING: MADE_USE_OF, Severity.ERROR: ON_PURPOSE}
_BOUNDLESS = frozenset(  # what there is at a time; what has come together since only ever grows
    {
        "rate_per_s",
        "drops_per_s",
        "errors_per_s",
        "forks_per_s",
        "processes_count",
        "children_count",
        "namesakes_count",
        "threads_count",
        "tasks_count",
        "connections_count",
        "fds_count",
    }
)
GROWN = 2.0  # times as much as was shown is no longer what was shown
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
    kinds = _kinds(strong, read, until_wall)
    seen = [one for one in strong if not one.words and _was_shown(one, read, shown)]
    found = Look(
        harmless=True,
        kinds=kinds,
        texts=frozenset(read),
        writers=dict.fromkeys((who for who, _ in kinds), 1),
        # What became worse after the question was not shown as bad as that.
        measured={
            condition_key(one.finding): one.finding.severity.rank if one.risen_wall <= until_wall else -1
            for one in seen
        },
        sizes=_sizes(piece for one in seen for piece in one.evidence if piece.end <= until_wall),
        refs=frozenset(piece.ref for one in seen for piece in one.evidence),
    )
    before = situation.looked
    if before is not None and before.harmless:
        left = {words: one for words, one in before.unread.items() if words[1] not in read}
        counts = {who: before.writers.get(who, 0) + 1 for who in found.writers}
        both = joined(found, before._replace(unread=left)) or found
        found = both._replace(writers={**before.writers, **counts})
    for one in strong:
        since_t = t if kind_of(one.finding) in found.kinds else one.first_t
        found = noted(found, one.finding, one.evidence, since_t)
    return found


def _was_shown(one: Condition, read: Collection[str], shown: Collection[str]) -> bool:
    """Whether a measure was shown: a number is no word that is known again by its form.

    What stands for all that there was before a restart was, if all of it was.
    """
    if one.finding.rule == RESTORED:
        return all(mask(piece.text) in read for piece in one.evidence)
    return any(piece.id in shown for piece in one.evidence)


def _sizes(pieces: Iterable[Evidence]) -> dict[tuple[str, str], float]:
    """How much there is of what has no bound, by what was measured and the name of the value."""
    found: dict[tuple[str, str], float] = {}
    for piece in pieces:
        for name, value in piece.values.items():
            if name in _BOUNDLESS:
                found[piece.ref, name] = max(value, found.get((piece.ref, name), 0.0))
    return found


def _kinds(strong: Iterable[Condition], read: Collection[str], until_wall: float) -> dict[Kind, int]:
    kinds: dict[Kind, int] = {}
    for one in strong:
        if any(mask(piece.text) in read for piece in one.evidence):
            kind, rank = kind_of(one.finding), _shown_rank(one.finding, one.finding.at.wall, until_wall)
            kinds[kind] = max(kinds.get(kind, 0), rank)
    return kinds


def _shown_rank(finding: Finding, since_wall: float, until_wall: float) -> int:
    """How bad it was when it was shown: what came later may be graver than that."""
    rank = finding.severity.rank
    return rank if since_wall <= until_wall else min(rank, Severity.WARNING.rank)


def recall(situation: Situation, t: float, wall: float) -> None:
    """What a restart leaves of a look: that nothing is wrong, if all of its words had been read.

    What waited for its first look goes on waiting; what was read but for something new begins to.
    """
    known = situation.incident
    if known is None or known.meant is None:
        return
    since = max([known.opened_at, *(one.start for one in known.evidence if one.ref == REOPENED)])
    waited_s = 0.0 if known.severity is Severity.INFO else max(0.0, wall - since)
    situation.held_until = t + WAIT_S - waited_s
    if not known.waits and any(one.ref == REVIEWED for one in known.evidence):
        # Which words were read of whom is gone: of all that it was about.
        told = {
            ((who.kind.value, split_pid(who.name)[0]), fault): known.meant.rank
            for who in known.culprits
            for fault in known.scores
            if not known.measured or fault is known.fault_class
        }
        strong = list(situation.strong())
        told |= {kind_of(one.finding): one.finding.severity.rank for one in strong}
        measured = {condition_key(one.finding): one.finding.severity.rank for one in strong if not one.words}
        texts = frozenset(mask(one.text) for one in known.evidence)
        # A warning it is because of words that nobody read.
        left = {} if known.severity is Severity.INFO else {(next(iter(told)), ""): Unread(-inf, full=False)}
        refs = frozenset(one.ref for one in known.evidence)
        situation.looked = Look(
            harmless=True,
            kinds=told,
            texts=texts,
            unread=left,
            measured=measured,
            sizes=_sizes(known.evidence),
            refs=refs,
        )


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
    if known is not None and known.state != "open" and known.severity.rank > Severity.WARNING.rank:
        return verdict  # it comes back, and somebody was told how bad it is
    if known is None or known.state != "open":
        situation.held_until = t + WAIT_S  # from when it opens
    elif not known.waits:
        return verdict  # somebody was told of it
    if t >= situation.held_until:
        return verdict
    situation.doubt_t = situation.held_until
    return verdict._replace(severity=Severity.WARNING, meant=verdict.severity, waits=True)


def _read_as_nothing(verdict: Verdict, situation: Situation, looked: Look, t: float) -> Verdict:
    if not verdict.words and (beyond := _beyond(situation, looked)):
        since = [*(one.risen_t for one in beyond), *(one.since_t for one in looked.unread.values())]
        until_t = min(since) + WAIT_S
        if verdict.severity is not Severity.WARNING or t >= until_t:
            return verdict
        situation.doubt_t = until_t
        return verdict._replace(severity=Severity.INFO, meant=verdict.severity, harmless=True, waits=True)
    unread = looked.unread.values()
    over = [one for one in unread if t >= one.since_t + WAIT_S]
    situation.doubt_t = min((one.since_t + WAIT_S for one in unread if one not in over), default=None)
    if any(one.full for one in over):
        return verdict
    if over:
        return verdict._replace(severity=Severity.WARNING, meant=verdict.severity)
    waits = situation.doubt_t is not None
    slight = verdict.words or verdict.severity is Severity.WARNING
    severity = Severity.INFO if slight else Severity.WARNING
    return verdict._replace(severity=severity, meant=verdict.severity, harmless=True, waits=waits)


def _beyond(situation: Situation, looked: Look) -> list[Condition]:
    """Warnings and worse that were measured and not shown, or not as bad by then, or half of it."""
    stands_for = next((one for (rule, _), one in situation.conditions.items() if rule == RESTORED), None)
    before = max((rank for (rule, _), rank in looked.measured.items() if rule == RESTORED), default=-1)
    return [
        one
        for one in situation.strong()
        if not one.words
        and (rank := one.finding.severity.rank) >= Severity.WARNING.rank
        and (
            _grown(one, looked)
            or not (
                looked.measured.get(condition_key(one.finding), -1) >= rank
                or (before >= rank and stands_for is not None and _told(one, stands_for, looked))
            )
        )
    ]


def _grown(one: Condition, looked: Look) -> bool:
    now = _sizes(one.evidence)
    return any(0.0 < looked.sizes.get(name, 0.0) * GROWN <= value for name, value in now.items())


def _told(one: Condition, before: Condition, looked: Look) -> bool:
    """Whether it is what a restart left of the look: its texts, what these are of, and of whom."""
    who = one.finding.subjects[:1]
    same = not who or key(who[0]) in before.subjects
    return same and any(mask(each.text) in looked.texts and each.ref in looked.refs for each in one.evidence)


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
    if grave or situation.stage:
        return False
    meant = _MEANT.get(verdict.severity, frozenset())
    return verdict.words or (
        meant.issuperset({verdict.fault_class, rules})
        and all(
            main_class(one.finding) in meant
            # What a backup has lowered was measured as worse than that.
            and one.finding.severity.rank <= verdict.severity.rank
            for one in situation.strong()
            if not one.words
        )
    )
