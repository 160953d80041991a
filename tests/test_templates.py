"""Template mining: lines that say the same thing share a template, whatever a hostile writer sends."""

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from models.templates import CANDIDATES, Miner, assign

NAMES = ["anna", "bernd", "clara", "dora", "emil", "frida"]


def words(rng, count, size=6):
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=size)) for _ in range(count))


def test_numbers_paths_and_addresses_do_not_split_a_template():
    lines = [f"slot {n} of /srv/data/{n}/x moved to 192.0.2.{n}" for n in range(9)]
    assert len(set(assign(lines))) == 1


def test_word_that_takes_many_values_varies():
    lines = [f"quota of {name} was exceeded today" for name in NAMES]
    assert len(set(assign(lines))) == 1


def test_word_with_two_values_stays_constant():
    one, other = "pump a1 was started by hand", "pump a1 was stopped by hand"
    assert assign([one, other, one, other]) == [1, 2, 1, 2]


def test_two_varying_words_far_apart_are_found_again():
    miner = Miner()
    for name in NAMES:
        miner.add(f"door of {name} was opened today by the keeper of key red")
    for colour in ("blue", "green", "white", "black"):
        miner.add(f"door of anna was opened today by the keeper of key {colour}")
    found = {
        miner.add(f"door of {n} was opened today by the keeper of key {c}").number
        for n, c in zip(NAMES, NAMES, strict=True)
    }
    assert len(found) == 1


def test_list_of_any_length_is_one_template():
    assert len(set(assign(["free blocks: 1", "free blocks: 2 3 4", "free blocks: 5 6 7 8 9"]))) == 1


def test_different_writers_do_not_share_templates():
    miner = Miner()
    assert miner.add("all is well", "a") is not miner.add("all is well", "b")


def test_merged_template_keeps_its_identity_and_count():
    miner = Miner()
    first = [miner.add(f"quota of {name} was exceeded today") for name in NAMES]
    assert {template.newest() for template in first} == {first[0]}
    assert first[0].count == len(NAMES)
    assert len(miner) == 1


def test_merge_is_told_before_state_is_lost():
    told = []
    miner = Miner(on_merge=lambda heir, other: told.append((heir.state, other.state)))
    for name in NAMES:
        miner.add(f"quota of {name} was exceeded today").state = name
    assert ("anna", "bernd") in told


def test_number_of_templates_stays_below_the_limit():
    rng = random.Random(1)
    miner = Miner(templates_max=256)
    for number in range(3000):
        miner.add(words(rng, 8), f"writer{number % 7}")
        assert len(miner) <= 256
    assert miner.evicted > 1000
    assert len(list(miner)) == len(miner)


def test_one_writer_cannot_drive_out_the_others():
    rng = random.Random(1)
    miner = Miner(templates_max=256)
    kept = miner.add("the quiet service is alive", "quiet")
    for _ in range(3000):
        miner.add(words(rng, 8), "loud")
    assert miner.add("the quiet service is alive", "quiet") is kept


def test_work_per_line_is_bounded_on_a_crafted_prefix():
    rng = random.Random(1)
    miner = Miner()
    for _ in range(2000):
        before = miner.work
        miner.add("connection from the client failed because " + words(rng, 12))
        assert miner.work - before < 40 + 4 * 2 * CANDIDATES + 3 * 24


def test_hostile_lines_do_not_slow_the_miner_down():
    """A quarter million lines a minute is the floor; the bound is loose because the machine may be busy."""
    rng = random.Random(1)
    lines = ["alpha beta " + words(rng, rng.randint(1, 60), 4) for _ in range(2000)]
    miner = Miner()
    began = time.process_time()
    for line in lines:
        miner.add(line)
    assert (time.process_time() - began) / len(lines) < 500e-6


def test_same_lines_give_the_same_templates_again():
    rng = random.Random(5)
    lines = [words(rng, rng.randint(1, 6), 2) for _ in range(500)]
    assert assign(lines) == assign(lines)
    one, other = Miner(templates_max=64), Miner(templates_max=64)
    assert [one.add(line).key for line in lines] == [other.add(line).key for line in lines]


@settings(max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=60))
def test_any_lines_get_a_template_and_equal_lines_the_same(lines):
    numbers = assign(lines)
    assert len(numbers) == len(lines)
    assert len({(line, number) for line, number in zip(lines, numbers, strict=True)}) == len(set(lines))


def test_restored_template_is_found_again():
    miner = Miner()
    for name in NAMES:
        last = miner.add(f"quota of {name} was exceeded today")
    again = Miner()
    restored = again.restore(last.origin, last.words, last.count, last.key)
    assert again.add("quota of gustav was exceeded today") is restored
    assert restored.key == last.key


def test_overlong_line_is_cut_at_a_word():
    line = "blocks to delete: " + " ".join(f"blk_{n}" for n in range(400))
    assert len(set(assign([line, line[:-200], line[:900]]))) == 1
