"""What the middle tier's model reads of a situation, and how its answer is read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.situations import FAULTS, HEADS, SEVERITIES, SLOT_TOKENS, SLOTS, Sign, View, decode, encode
from models.taxonomy import FaultClass, Severity, SubjectKind

K, F = SubjectKind, FaultClass


def sign(rule: str = "fs.used.level", **fields) -> Sign:
    usual = {
        "severity": Severity.ERROR,
        "score": 0.8,
        "hints": {F.DISK_FULL: 0.9},
        "slots": (0,),
        "text": "/var is 97 % full.",
        "quoted": False,
        "after_s": 0.0,
    }
    return Sign(rule, **(usual | fields))


def view(*signs: Sign, slots=((K.MOUNT, "/var"), (K.UNIT, "db.service")), **fields) -> View:
    return View(signs or (sign(),), slots, **fields)


def scores(fault: FaultClass = F.DISK_FULL, culprit: int = 0) -> dict[str, list[float]]:
    found = {head: [0.0] * size for head, size in HEADS.items()}
    found["fault_class"][FAULTS.index(fault)] = 0.9
    found["severity"][SEVERITIES.index(Severity.CRITICAL)] = 0.8
    found["culprit"][culprit] = 0.7
    found["culprit"][1 - culprit] = 0.2
    return found


def test_names_and_numbers_never_reach_the_text():
    line = "db.service: could not extend /var/lib/db/16384 for alice from 192.0.2.7: No space left on device"
    text = encode(view(sign(), sign("known.no-space", text=line, quoted=True, slots=(1,))))
    assert "no space left on device" in text
    assert not any(name in text for name in ("/var", "db.service", "192", "16384"))


def test_a_name_in_a_line_becomes_its_slot():
    text = encode(view(sign("line.novel", text="db.service lost its lock", quoted=True)))
    assert f"{SLOT_TOKENS[1]} lost its lock" in text


def test_a_line_cannot_forge_a_slot():
    text = encode(view(sign("line.novel", text="alpha beta did it", quoted=True, slots=()), slots=()))
    assert not set(SLOT_TOKENS) & set(text.split())


def test_other_names_and_numbers_give_the_same_text():
    line = "{0}: write to {1}/x failed after {2} s"
    one = view(sign("line.novel", text=line.format("db.service", "/var", 12), quoted=True))
    slots = ((K.MOUNT, "/srv"), (K.UNIT, "shop.service"))
    other = view(sign("line.novel", text=line.format("shop.service", "/srv", 7), quoted=True), slots=slots)
    assert encode(one) == encode(other)


def test_the_strongest_sign_comes_first_and_lateness_is_told():
    late = sign("mem.available.level", hints={F.MEMORY_EXHAUSTION: 0.9}, after_s=20.0)
    weak = sign("line.burst", score=0.3, severity=Severity.INFO, hints={})
    text = encode(view(weak, late))
    assert text.index("late sure error mem available level") < text.index("line burst")


def test_guess_and_contexts_are_told():
    text = encode(view(guesses=((F.DISK_FULL, 0.9), (F.CRASH_LOOP, 0.3)), contexts=(("backup", "lowered"),)))
    assert text.startswith("surely disk full , hardly crash loop . ")
    assert "while backup lowered" in text


def test_many_signs_of_one_rule_take_no_more_room_than_a_few():
    names = tuple((K.UNIT, f"u{n}.service") for n in range(SLOTS))
    signs = [sign("known.unit-failed", slots=(n,)) for n in range(SLOTS)]
    assert encode(view(*signs, slots=names)).count("unit failed") == 1


def test_the_verdict_ranks_the_slots_by_the_culprit_head():
    verdict = decode(scores(culprit=1), view())
    assert verdict.fault_class is F.DISK_FULL
    assert verdict.severity is Severity.CRITICAL
    assert verdict.culprits == ((K.UNIT, "db.service"), (K.MOUNT, "/var"))
    assert (verdict.confidence, verdict.culprit_confidence) == (0.9, 0.7)


def test_slots_that_the_situation_lacks_are_never_culprits():
    found = scores()
    found["culprit"][7] = 0.99
    assert decode(found, view()).culprits[0] == (K.MOUNT, "/var")
    assert decode(scores(), View((sign(),), ())).culprits == ()


@pytest.mark.parametrize("head", HEADS)
def test_scores_of_another_shape_are_refused(head):
    with pytest.raises(ValueError, match=head):
        decode(scores() | {head: [1.0]}, view())


@given(st.text(max_size=3000), st.lists(st.text(min_size=1, max_size=40), max_size=8))
@example("\x000", [])
@example("a\0b web[1] \0", ["web"])
def test_any_line_and_any_names_give_a_bounded_text(line, names):
    slots = tuple((K.PROCESS, name) for name in names)
    text = encode(View((sign("line.novel", text=line, quoted=True, slots=()),), slots))
    assert len(text) <= 900
    assert "\0" not in text
