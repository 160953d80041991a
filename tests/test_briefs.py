"""The top tier's language: prompts without values, slots that only evidence fills, texts to learn from."""

import random
import re
import tomllib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import pytest

import models
from daemon.advice import brief
from daemon.advice.check import check, check_advice
from daemon.advice.compose import catalogue_advice
from daemon.advice.tokens import SPELLED, scan
from daemon.messages import Advice, Culprit, Evidence, Incident
from models.briefs import SLOTS, Brief, Group, _cues, citing, fault_of, sentences, special_tokens
from models.taxonomy import FaultClass, SubjectKind
from training.chrf import Nearest, chrf, grams
from training.sources import briefs, phrasing

FIXTURES = Path(__file__).parent / "fixtures/advice"
FULL = Brief("en", "disk-full", "mount", "critical", (Group(own=True, slots=("used", "free", "total")),))
GOOD = "<culprit> fills up. It is <used> full, <free> of <total> are left."


def load(name, **changes):
    found = msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes(), type=Incident)
    return msgspec.structs.replace(found, **changes)


# --- prompts and slots --------------------------------------------------------------------------------------


def test_prompt_holds_no_value_and_no_name():
    told = brief.tell(load("full-file-system"), "en")
    assert told.prompt.startswith("<en><c:disk-full><k:mount><s:critical><own><used><free><total>")
    assert "small" not in told.prompt
    assert not re.search(r"\d", told.prompt)


def test_prompt_is_made_of_special_tokens_alone():
    known = set(special_tokens())
    rng = random.Random(5)
    for number in range(200):
        prompt = brief.tell(briefs.incident(rng, number), "de").prompt
        assert set(re.findall(r"<[^>]*>", prompt)) <= known
        assert "".join(re.findall(r"<[^>]*>", prompt)) == prompt


def test_text_is_filled_with_what_the_evidence_holds():
    incident = load("full-file-system")
    advice = brief.fill(GOOD, brief.tell(incident, "en"), incident)
    assert advice.text == "/mnt/small fills up. It is 100 % full, 0 B of 8.4 MB are left."
    assert advice.origin == "model"
    assert advice.action == "du -xah --max-depth=1 /mnt/small | sort -h | tail -n 20"
    assert advice.sources["100 %"] == "7a-1"
    assert check_advice(advice, incident) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<culprit> fills up. It is <celsius> hot.", "not offered"),
        ("<culprit> fills up. It has <used> of 7.", "'7' outside"),
        ("<culprit> fills up to <used>. Run `rm`.", "outside a slot"),
        ("<culprit> fills up to <used>. It is “bad”.", "outside a slot"),
        ("It fills up. It is <used> full.", "name the culprit"),
        ("<culprit> fills up. Nobody knows more.", "cites no evidence"),
        ("<culprit> is <used> full.", "too few"),
        ("<culprit> is <used> full. Look. Look.", "twice"),
        (
            "<culprit> is <used> full. See whether it makes progress, and whether it makes progress.",
            "something twice",
        ),
        ("<culprit> is busy. It failed <used> times.", "something else"),
        ("<culprit> is <used> full. Of it <free> is left.", "half of a statement"),
        ("<culprit> is <used> full. And then", "does not end"),
        ("<culprit> is <used> full. " + "So it goes on and on. " * 40, "too long"),
    ],
)
def test_rules_refuse(text, reason):
    assert reason in fault_of(text, FULL)


def test_rules_accept_a_true_text():
    assert fault_of(GOOD, FULL) == ""


def test_culprit_is_tied_to_no_number_that_is_not_about_it():
    about = Brief("en", "cpu-saturation", "process", "error", (Group(own=False, slots=("busy", "cores")),))
    assert "not about it" in fault_of("<culprit> keeps all <cores> cores <busy> busy. See why.", about)
    assert fault_of("<culprit> computes. All <cores> cores are <busy> busy.", about) == ""


def test_one_sentence_never_mixes_two_pieces_of_evidence():
    two = Brief(
        *("en", "memory-exhaustion", "process", "error"),
        (Group(own=True, slots=("rss",)), Group(own=False, slots=("avail", "availb"))),
    )
    assert "mixes" in fault_of("It is <culprit>. It has <rss> of <availb>, <avail>.", two)


def test_numbers_of_another_culprit_are_not_offered():
    other = [Evidence("e1", "metric", "fs.used{/var}", 1.0, 1.0, "/var is 99 % full.", {"used_ratio": 0.99})]
    told = brief.tell(load("full-file-system", evidence=other), "en")
    assert "used" not in told.brief.offered
    assert told.brief.extras == ("seen",)


def test_counts_too_small_for_a_plural_are_not_offered():
    evidence = [Evidence("e1", "event", "x", 1.0, 1.0, "a.service failed", {"failures_count": 1.0})]
    culprits = [Culprit(SubjectKind.UNIT, "a.service", 0.9)]
    told = brief.tell(
        load("crash-three-times", evidence=evidence, culprits=culprits, fault_class=FaultClass.CRASH_LOOP),
        "en",
    )
    assert "crashes" not in told.brief.offered


def test_own_words_of_hauswart_may_be_quoted_and_a_stranger_line_not():
    metric = Evidence("e1", "metric", "x", 1.0, 1.0, "eth0 has lost its carrier.", {})
    odd = Evidence("e2", "line", "x", 1.0, 1.0, "please run the following as root", {})
    incident = load("link-down", evidence=[metric, odd])
    assert check("Seen: “eth0 has lost its carrier”.", incident, "en") == []
    assert check("Seen: “please run the following as root”.", incident, "en") != []


def test_name_of_a_signal_with_a_digit_is_known():
    evidence = [Evidence("e1", "line", "x", 1.0, 1.0, "a.service died", {"signal_number": 10.0})]
    incident = load("crash-three-times", evidence=evidence)
    assert check("It ended by signal 10 (SIGUSR1).", incident, "en") == []


# --- what is learned ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "de"])
def test_phrases_state_no_number_and_no_name(lang):
    for phrase in _phrases(phrasing.phrases(lang)):
        for text in phrasing.alternatives(phrase):
            assert "  " not in text
            assert not re.search(r" [.,;:]", text), text
            for token in scan(re.sub(r"<[^>]*>", "…", text)):
                assert token.kind in {"word", "mark"} or "…" in token.text, text
                assert token.text.lower() not in SPELLED, text


def _phrases(table):
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if isinstance(value, str):
            yield value
        elif key != "needs":
            yield from _phrases(value)


@pytest.mark.parametrize("lang", ["en", "de"])
def test_every_class_has_words_in_each_part(lang):
    words = phrasing.phrases(lang)
    for fault in FaultClass:
        assert {"any", "so", "look", "help"} <= words[fault.value].keys()
        assert all(words[fault.value].values())


def test_both_languages_speak_of_the_same_facts():
    facts = [[fact["needs"] for fact in phrasing.phrases(lang)["facts"]] for lang in ("en", "de")]
    assert facts[0] == facts[1]
    stated = {need for needs in facts[0] for need in needs}
    assert SLOTS.keys() - stated == set()


@pytest.mark.parametrize("lang", ["en", "de"])
def test_phrases_call_each_number_by_a_name_of_its_own(lang):
    table = tomllib.loads((Path(models.__file__).with_name("cues.toml")).read_text("utf-8"))[lang]
    assert table.keys() == SLOTS.keys()
    for phrase in _phrases({"facts": phrasing.phrases(lang)["facts"]}):
        for text in phrasing.alternatives(phrase):
            for slot in set(re.findall("<([^>]*)>", text)) & SLOTS.keys():
                assert re.search(table[slot], re.sub("<[^>]*>", "…", text), re.IGNORECASE), (slot, text)


@pytest.mark.parametrize("lang", ["en", "de"])
def test_composed_sentences_are_well_formed_and_spoilt_ones_are_not(lang):
    rng = random.Random(9)
    for number in range(40):
        told = brief.tell(briefs.incident(rng, number), lang)
        parts = sentences(phrasing.compose(told.brief, rng))
        assert sum(phrasing.well_formed(one, lang, told.brief.fault_class) for one in parts) >= len(parts) - 1
        spoilt = " ".join(reversed(parts[0].split()))
        assert not phrasing.well_formed(spoilt, lang, told.brief.fault_class)


def test_composed_texts_pass_the_rules_and_the_fact_check():
    rng = random.Random(3)
    for number in range(120):
        incident = briefs.incident(rng, number)
        told = brief.tell(incident, ("en", "de")[number % 2])
        advice = brief.fill(briefs.row(told, rng)["completion"], told, incident)
        assert isinstance(advice, Advice), advice
        assert check_advice(advice, incident) == []


@pytest.mark.parametrize("lang", ["en", "de"])
def test_what_advises_is_told_from_what_cites(lang):
    advises = _cues("advises")[lang]
    for fault in FaultClass:
        whole, openers, _, _ = phrasing._parts(lang, fault.value)
        assert [one for one in openers if not advises.match(f"{one} x")] == []
        assert [one for one in whole if advises.match(one)] == []
    told = replace(FULL, lang=lang)
    (opener, *_) = phrasing._parts(lang, "disk-full")[1]
    text = f"<culprit> is to blame. It is <used> full. {opener} <free>."
    assert citing(text, told) == "It is <used> full."
    assert citing(f"It fills up. {opener} <culprit>, it is <used> full.", told) == ""


def test_a_model_cites_and_the_catalogue_says_what_is_wrong_and_what_helps():
    incident = load("full-file-system")
    told = brief.tell(incident, "en")
    advice = brief.cite(f"{GOOD} It usually helps to reboot it.", told, incident)
    whole = catalogue_advice(incident, "en")
    first = whole.text.partition(". ")[0]
    assert advice.text.startswith(f"{first}. It is 100 % full, 0 B of 8.4 MB are left.\n\nCheck:\n- ")
    assert "reboot" not in advice.text
    assert advice.text.partition("\n\n")[2] == whole.text.partition("\n\n")[2]
    assert (advice.origin, advice.action, advice.sources["0 B"]) == ("model", whole.action, "7a-1")
    assert check_advice(advice, incident) == []
    assert brief.cite("It fills up. See <culprit>. It is <used> full.", told, incident) == "cites nothing"


def test_rows_are_the_same_for_a_seed_and_hold_combinations_out():
    first, second = (list(islice(briefs.rows(seed=1, count=150), 300)) for _ in range(2))
    assert first == second
    assert {row["lang"] for row in first} == {"en", "de"}
    splits = {}
    for row in first:
        assert splits.setdefault(row["group"], row["split"]) == row["split"]
    assert {"train", "test"} <= set(splits.values())


def test_choices_nest_and_may_be_left_out():
    assert set(phrasing.alternatives("[a|b[ c|]] d")) == {"a d", "b c d", "b d"}
    assert phrasing.expand("[x|x] y", random.Random(1)) == "x y"


def test_chrf_tells_copies_from_new_texts():
    nearest = Nearest(["The disk is nearly full and slow.", "A service hangs and nobody knows why."])
    assert nearest.highest("The disk is nearly full and slow.") == pytest.approx(1.0)
    assert 0.0 < nearest.highest("The disk is nearly gone today.") < 0.8
    assert nearest.highest("Nothing alike here at all.") == 0.0
    assert chrf(grams("abc"), grams("xyz")) == 0.0
