"""How alike an answer and a target are: as strings, as words, and by what they claim.

`sequence_ratio` is what difflib says: a swapped "not" or digit costs it almost nothing. `composite` looks at
the claims too (see `training.claims`): numbers with their units, negation, contraries, required and forbidden
facts. Knows nothing of models and files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from training import claims
from training.chrf import Nearest, chrf, grams

# What is left of the score for each claim that contradicts: a copy with one swapped word (chrF and words
# about 0.9) must end below a right answer in other words (some below 0.3; see tests/fixtures/answers.jsonl).
CONTRADICTED = 0.1
INVENTED = 0.9  # for each number or name that the target has not
MISSED = 0.9  # for each number or name of the target that the answer has not
FACTS = 0.5  # the share of required facts in the score, where there are any
_COMMON = 500  # texts; a triple that more of them have is a phrase of the data set's
_SHARED = 0.3  # of the word triples: near copies have more in common, and fewer texts are compared in full
DUPLICATE = 0.9  # chrF from which two texts of a data set are taken for the same


class Similarity(NamedTuple):
    """A score in 0..1 and its parts: the alikeness of characters and words, the share of required facts.

    `contradictions` and `forbidden` say what the answer got wrong, in words.
    """

    score: float
    chrf: float
    tokens: float
    facts: float
    contradictions: tuple[str, ...]
    forbidden: tuple[str, ...]


def sequence_ratio(answer: str, target: str) -> float:
    """The ratio of difflib, 0..1."""
    return SequenceMatcher(None, answer, target).ratio()


def token_overlap(answer: str, target: str) -> float:
    """F1 of the words that both have, 0..1, each as often as it occurs; order does not count."""
    mine, theirs = Counter(claims.words(answer)), Counter(claims.words(target))
    common = sum((mine & theirs).values())
    both = sum(mine.values()) + sum(theirs.values())
    return 2.0 * common / both if both else 1.0


def chrf_similarity(answer: str, target: str) -> float:
    """The chrF of two texts, 0..1."""
    return chrf(grams(answer), grams(target))


def composite(
    answer: str, target: str, *, required: Sequence[str] = (), forbidden: Sequence[str] = ()
) -> Similarity:
    """The alikeness that a swapped number, unit, negation or contrary does not fool.

    A fact is a phrase, or several with | between them of which one is enough; denied, it counts as not said.
    Without a target (an empty text) only the facts count.
    """
    characters, tokens = chrf_similarity(answer, target), token_overlap(answer, target)
    surface = (characters + tokens) / 2.0 if target.strip() else 1.0
    facts = sum(says(answer, one) for one in required) / len(required) if required else 1.0
    said = tuple(one for one in forbidden if says(answer, one))
    wrong: tuple[str, ...] = ()
    score = (1.0 - FACTS) * surface + FACTS * facts if required else surface
    if target.strip():
        mine, theirs = claims.read(answer, target), claims.read(target, answer)
        wrong = tuple(dict.fromkeys(_contradictions(mine, theirs)))
        invented, missed = _unshared(mine, theirs)
        score *= INVENTED ** min(3, len(invented)) * MISSED ** min(3, len(missed))
    score *= CONTRADICTED ** min(2, len(wrong) + len(said))
    return Similarity(score if answer.strip() else 0.0, characters, tokens, facts, wrong, said)


def says(answer: str, fact: str) -> bool:
    """Whether an answer states a fact: one of the phrases between |, as whole words and not denied."""
    spoken = claims.words(answer)
    for phrase in fact.split("|"):
        wanted = claims.words(phrase)
        places = range(len(spoken) - len(wanted) + 1) if wanted else ()
        there = any(spoken[at : at + len(wanted)] == wanted for at in places)
        if there and not claims.denied(answer, phrase):
            return True
    return False


def near_duplicates(texts: Sequence[str], *, least: float = DUPLICATE) -> dict[int, int]:
    """For each text that repeats an earlier one (chrF of `least` or more): its place and the earlier one's.

    Texts shorter than three words repeat only when they are the same.
    """
    near, places = Nearest(common=_COMMON), list[int]()  # where each text that is kept lies
    exact: dict[str, int] = {}
    found: dict[int, int] = {}
    for place, one in enumerate(texts):
        text = " ".join(claims.normal(one).split())
        number, alike = (-1, 0.0) if text in exact else near.nearest(text, share=_SHARED)
        if text in exact or alike >= least:
            found[place] = exact[text] if text in exact else places[number]
            continue
        exact[text] = place
        near.add(text)
        places.append(place)
    return found


# --- contradictions -----------------------------------------------------------------------------------------


def _contradictions(answer: claims.Claims, target: claims.Claims) -> Iterator[str]:
    yield from _swapped_numbers(answer, target)
    yield from _swapped_names(answer, target)
    for one in target.sides:
        if wrong := _other_side(one, answer.sides):
            yield f"{wrong} instead of {one.said}"
    yield from (f"not: {one.said}" for one in target.denials if _affirmed(one, answer))
    yield from (f"{one.said}" for one in answer.denials if _affirmed(one, target))


def _unshared(answer: claims.Claims, target: claims.Claims) -> tuple[list[str], list[str]]:
    """Numbers and names that only the answer has, and that only the target has."""
    mine = [one.said for one in answer.quantities if not any(map(one.same, target.quantities))]
    theirs = [one.said for one in target.quantities if not any(map(one.same, answer.quantities))]
    return mine + sorted(answer.names - target.names), theirs + sorted(target.names - answer.names)


def _swapped_numbers(answer: claims.Claims, target: claims.Claims) -> Iterator[str]:
    extra = [one for one in answer.quantities if not any(map(one.same, target.quantities))]
    for one in target.quantities:
        same = [other for other in answer.quantities if one.same(other)]
        if not same:
            if extra:
                yield f"{extra[0].said} instead of {one.said}"
            continue
        # Both numbers are there, but each in the other's place.
        fit = max(len(one.words & other.words) for other in same)
        others = [other for other in answer.quantities if other.kind == one.kind and not one.same(other)]
        better = [other for other in others if len(one.words & other.words) > fit]
        if better and any(map(better[0].same, target.quantities)):
            yield f"{better[0].said} in the place of {one.said}"


def _swapped_names(answer: claims.Claims, target: claims.Claims) -> Iterator[str]:
    extra, missing = answer.names - target.names, target.names - answer.names
    for one in sorted(missing):
        alike = [other for other in sorted(extra) if _shape(other) == _shape(one)]
        if alike:
            yield f"{alike[0]} instead of {one}"


def _shape(name: str) -> str:
    """A name with each run of digits as one 0: eth0 and eth1 have one shape, eth0 and /var/log have not."""
    runs: list[str] = []
    for letter in name:
        one = "0" if letter.isdigit() else letter
        if one != "0" or runs[-1:] != ["0"]:
            runs.append(one)
    return "".join(runs)


def _other_side(one: claims.Side, sides: Sequence[claims.Side]) -> str:
    """The word by which the answer takes the other side of what the target says here, or nothing."""
    same = [other for other in sides if other.pair == one.pair]
    if claims.bound(one.pair):
        same = [other for other in same if other.after == one.after]
    if not same:
        return ""
    fit = max(len(one.words & other.words) for other in same)
    best = [other for other in same if len(one.words & other.words) == fit]
    return best[0].said if all(other.sign != one.sign for other in best) else ""


def _affirmed(denial: claims.Denial, other: claims.Claims) -> bool:
    """Whether the other text says all that is denied here and denies none of it, of the same things.

    "No inodes are left" does not deny "the inodes are used up": the clauses have nothing else in common.
    """
    for one in denial.stems:
        said = other.signs.get(one, [])
        if not said or not all(sign for sign, _ in said):
            return False
        if denial.words and not any(denial.words & clause for _, clause in said):
            return False
    return True
