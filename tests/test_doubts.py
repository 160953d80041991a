"""Incidents by words alone or that may be meant: how long nobody is notified, and what takes that back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from daemon.incidents.doubts import MADE_USE_OF, WAIT_S, doubtful, unheard
from daemon.incidents.lifecycle import closed, evidence, merged
from daemon.incidents.looks import Look, Unread
from daemon.incidents.restoring import restored
from daemon.messages import REVIEWED, Subject
from daemon.replay import Replay
from daemon.settings import Settings
from models.masking import mask
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.lab.said import as_said
from tests.test_middle import context, find
from tests.test_review import WALL, Host, tick

F = FaultClass


def words(t, text="self-test: simulated no space left on device: PASS", unit="app.service", **more):
    said = {"severity": "error", "score": 0.7, "kind": "line", "text": text} | more
    rule, hints = said.pop("rule", "known.no-space"), said.pop("hints", {"disk-full": 0.9})
    return replace(find(t, rule, f"unit:{unit}", hints, **said), words=True)


def at(t):
    return words(t).at


def situation_of(replay):
    (situation,) = replay.middle._gathering.situations.values()
    return situation


@pytest.fixture
def reader():
    one = Host(awaited=True)
    one.until(6.0, words(2.0))
    return one


def told(host, fault=F.DISK_FULL):
    return host.incident(fault).severity.value


def test_an_error_by_words_alone_is_a_warning_until_somebody_looked_who_agrees(reader):
    assert told(reader) == "warning"
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL)
    assert told(reader) == "error"
    assert all(one.ref != REVIEWED for one in reader.incident(F.DISK_FULL).evidence)


def test_nobody_waits_long_for_a_look_nor_where_nobody_looks(reader):
    reader.until(2.0 + WAIT_S - 1.0)
    assert told(reader) == "warning"
    reader.until(2.0 + WAIT_S + 1.0)
    assert told(reader) == "error"
    revision = reader.incident(F.DISK_FULL).revision
    reader.until(40.0)
    assert reader.incident(F.DISK_FULL).revision == revision
    (situation,) = reader.tier._gathering.situations.values()
    assert situation.doubt_t is None  # or it would be judged anew each second
    alone = Host()
    alone.until(6.0, words(2.0))
    assert told(alone) == "error"


def test_words_of_which_somebody_says_that_nothing_is_wrong_are_an_info_and_say_who(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(60.0, words(20.0), words(40.0, "self-test: simulated no space left on device: PASS"))
    incident = reader.incident(F.DISK_FULL)
    assert (incident.severity, incident.path) == (Severity.INFO, "baseline")
    said = "large at 127.0.0.1 read this as harmless; by the rules alone it is disk-full."
    assert incident.evidence[-1].text == said
    reader.review(incident, F.DISK_FULL)  # looked at once more, with more known
    assert told(reader) == "error"
    assert all(one.ref != REVIEWED for one in reader.incident(F.DISK_FULL).evidence)


def test_an_answer_that_comes_late_still_lowers_it(reader):
    reader.until(30.0)
    assert told(reader) == "error"
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    assert told(reader) == "info"


@pytest.mark.parametrize("severity", ["warning", "error"])
def test_notifying_waits_for_the_look_and_no_longer_than_that(severity):
    reader = Host(awaited=True)
    reader.until(6.0, words(2.0, severity=severity))
    assert reader.incident(F.DISK_FULL).waits
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL)
    agreed = reader.incident(F.DISK_FULL)
    assert (agreed.severity.value, agreed.waits, agreed.meant) == (severity, False, None)

    late = Host(awaited=True)
    late.until(2.0 + WAIT_S - 1.0, words(2.0, severity=severity))
    assert late.incident(F.DISK_FULL).waits
    late.until(2.0 + WAIT_S + 1.0)
    assert (told(late), late.incident(F.DISK_FULL).waits) == (severity, False)

    nothing = Host(awaited=True)
    nothing.until(6.0, words(2.0, severity=severity))
    nothing.review(nothing.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    assert (told(nothing), nothing.incident(F.DISK_FULL).waits) == ("info", False)


def test_another_class_by_a_look_is_notified_at_once(reader):
    reader.review(reader.incident(F.DISK_FULL), F.CONFIG_ERROR)
    assert not reader.incident(F.CONFIG_ERROR).waits


def test_what_ends_while_it_is_unread_waits_no_longer(reader):
    (situation,) = reader.tier._gathering.situations.values()
    reader.tier._close(situation)
    (incident,) = reader.tier._give()
    said = (incident.state, incident.severity, incident.meant, incident.waits)
    assert said == ("closed", Severity.ERROR, None, False)


def test_a_measure_takes_the_word_back_at_once(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    full = find(9.0, "fs.used.level", ["mount:/srv", "unit:app.service"], {"disk-full": 0.9}, "error")
    reader.until(13.0, full)
    assert told(reader) == "error"


def test_other_words_are_not_covered_by_what_was_said(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    reader.until(14.0, words(10.0, "panic: no space left on device", **broke))
    assert told(reader) == "info"
    reader.until(10.0 + WAIT_S + 2.0)
    assert told(reader) == "error"


def test_other_words_of_the_same_kind_are_to_be_read_and_unread_a_warning(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(12.0, words(10.0, "upload of 4711 failed: no space left on device"))
    pending = reader.incident(F.DISK_FULL)
    assert (told(reader), pending.waits) == ("info", True)
    assert any("upload" in one.text for one in pending.evidence)  # so that it can be looked at
    reader.until(10.0 + WAIT_S + 2.0)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("warning", False)
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("info", False)
    reader.until(80.0, words(60.0, "upload of 4712 failed: no space left on device"))
    assert told(reader) == "info"  # only the number is another
    reader.until(84.0, words(82.0, "this is no test: no space left on device"))
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL)
    assert told(reader) == "error"


def test_a_writer_of_whom_three_looks_say_nothing_is_a_warning_at_most(reader):
    for number in range(3):
        reader.until(reader.t + 3.0, words(reader.t + 1.0, f"{'abc'[number] * 5}: no space left on device"))
        reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
        assert told(reader) == "info"
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    reader.until(reader.t + WAIT_S + 4.0, words(reader.t + 1.0, "panic: no space left on device", **broke))
    assert told(reader) == "warning"
    other = words(reader.t + 1.0, "panic: no space", "web.service", rule="known.no-space")
    reader.until(reader.t + WAIT_S + 4.0, other)
    assert any(one.severity is Severity.ERROR for one in reader.kept.values())


def test_graver_words_than_were_read_are_as_bad_as_they_say():
    reader = Host(awaited=True)
    reader.until(6.0, words(2.0, severity="warning"))
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(52.0, words(50.0, "another one: no space left on device"))
    assert (told(reader), reader.incident(F.DISK_FULL).meant) == ("info", Severity.ERROR)
    reader.until(50.0 + WAIT_S + 2.0)
    assert told(reader) == "error"


def test_words_beside_what_nobody_wrote_are_not_doubted():
    host = Host(awaited=True)
    kernel = find(2.0, "line.novel", "unit:app.service", {"unknown": 0.6}, severity="error", score=0.8)
    host.until(6.0, kernel, words(2.1))
    (incident,) = host.kept.values()
    assert (incident.severity, incident.waits) == (Severity.ERROR, False)


def test_what_somebody_was_told_of_does_not_wait(reader):
    reader.until(30.0)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("error", False)
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    reader.until(36.0, words(32.0, "panic: no space left on device", **broke))
    assert all(not one.waits for one in reader.kept.values())


def test_a_restart_neither_prolongs_the_wait_nor_takes_unread_words_for_read(reader):
    reader.until(18.0)
    again = Host(reader.incident(F.DISK_FULL), awaited=True, t=18.0)
    again.until(2.0 + WAIT_S + 2.0)
    assert (told(again), again.incident(F.DISK_FULL).waits) == ("error", False)

    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    reader.until(24.0, words(20.0, "panic: no space left on device", **broke))
    assert reader.incident(F.DISK_FULL).waits
    again = Host(reader.incident(F.DISK_FULL), awaited=True, t=25.0)
    again.until(25.0 + WAIT_S + 2.0)
    assert told(again) == "error"


def test_where_nobody_reads_any_more_nothing_is_doubted(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    alone = Host(reader.incident(F.DISK_FULL), t=7.0)
    alone.until(12.0, replace(words(9.0), id="again"))
    assert (told(alone), alone.incident(F.DISK_FULL).meant) == ("error", None)


def test_words_that_came_after_the_question_are_not_covered_by_its_answer(reader):
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    reader.until(14.0, words(10.0, "panic: no space left on device", **broke))
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True, asked_t=8.0)
    assert told(reader) == "info"
    reader.until(10.0 + WAIT_S + 2.0)
    assert told(reader) == "error"


@pytest.mark.parametrize("harmless", [False, True])
def test_a_restart_forgets_neither_the_doubt_nor_that_nothing_is_wrong(reader, harmless):
    if harmless:
        reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    stored = reader.incident(F.DISK_FULL)
    calm = "info" if harmless else "warning"
    assert (stored.severity, stored.meant) == (Severity(calm), Severity.ERROR)
    again = Host(stored, awaited=True, t=7.0)
    again.until(9.0)
    assert (told(again), again.incident(F.DISK_FULL).waits) == (calm, not harmless)
    again.until(9.0 + WAIT_S + 2.0)
    assert told(again) == ("info" if harmless else "error")


def test_a_restart_remembers_what_was_read_of_whomever_it_was_about():
    def full():
        found = words(2.0, "self-test: /srv/x: No space left on device")
        return replace(found, subjects=[*found.subjects, Subject(SubjectKind.MOUNT, "/srv", 0.6)])

    host = Host(awaited=True)
    host.until(6.0, full())
    host.review(host.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    again = Host(host.incident(F.DISK_FULL), awaited=True, t=7.0)
    again.until(8.0 + WAIT_S, replace(full(), id="again", at=words(9.0).at))
    again.until(40.0)
    assert told(again) == "info"


def test_two_that_were_read_as_nothing_stay_that_as_one(reader):
    one, other, wrong = (restored(reader.incident(F.DISK_FULL), 7.0) for _ in range(3))
    mine, theirs = ((("unit", name), F.DISK_FULL) for name in ("app.service", "other.service"))
    new = {(theirs, "c"): Unread(3.0, full=True)}
    read = frozenset(mask(piece.text) for piece in reader.incident(F.DISK_FULL).evidence)
    one.looked = Look(harmless=True, kinds={mine: 2}, texts=read)
    other.looked = Look(harmless=True, kinds={mine: 1, theirs: 1}, texts=frozenset({"b"}), unread=new)
    one.absorb(other)
    assert one.looked == Look(harmless=True, kinds={mine: 2, theirs: 1}, texts=read | {"b"}, unread=new)
    wrong.looked = Look(harmless=False)
    one.absorb(wrong)
    assert one.looked is wrong.looked


def test_a_level_that_a_program_gives_a_line_which_no_rule_knows_is_a_word_too():
    host = Host(awaited=True)
    battery = {"rule": "line.novel", "hints": {"unknown": 0.5}, "severity": "critical"}
    host.until(6.0, words(2.0, "UPS Self Test switch to battery.", **battery))
    assert told(host, F.UNKNOWN) == "warning"
    host.review(host.incident(F.UNKNOWN), F.UNKNOWN, harmless=True)
    host.until(60.0)
    assert told(host, F.UNKNOWN) == "info"
    host.review(host.incident(F.UNKNOWN), F.UNKNOWN)
    assert told(host, F.UNKNOWN) == "critical"


@pytest.mark.parametrize(
    "finding",
    [
        replace(words(2.0), words=False),
        words(2.0, rule="auth.failed", hints={"auth-bruteforce": 0.9}),
        words(2.0, severity="critical"),
    ],
)
def test_what_is_measured_about_security_or_critical_waits_for_nobody(finding):
    host = Host(awaited=True)
    host.until(6.0, finding)
    (incident,) = host.kept.values()
    assert incident.severity is finding.severity
    assert host.review(incident, incident.fault_class, harmless=True) == []


def test_of_what_becomes_part_of_another_one_unread_a_replay_hears_nothing():
    replay = Replay(Settings(), {}, lambda _: ("", 0.0))
    for item in sorted([words(2.0), *(tick(float(t)) for t in range(8))], key=lambda one: one.at.mono):
        replay._take([item])
    (unread,) = replay.incidents.values()
    assert (unread.waits, replay.heard) == (True, {})
    replay._keep([merged(unread, replace(unread, id="older"), at(9.0))])
    assert replay.heard == {}
    situation = situation_of(replay)
    replay._keep([closed(unread, situation, at(9.0), unheard(situation))])
    assert [one.severity.value for one in replay.heard[unread.id]] == ["error"]


def test_a_replay_remembers_how_loud_an_incident_ever_was():
    for seconds, loudest in ((30.0, "error"), (0.0, "")):
        replay = Replay(Settings(), {}, lambda _, seconds=seconds: ('{"fault": "none"}', seconds))
        ticks = [tick(float(t)) for t in range(60)]
        for item in sorted([words(2.0), *ticks], key=lambda one: one.at.mono):
            replay._take([item])
        (incident,) = replay.incidents.values()
        heard = [one.severity.value for one in replay.heard.get(incident.id, [])]
        assert (incident.severity.value, heard[-1:]) == ("info", [loudest] if loudest else [])
        (said,) = as_said([incident], lambda wall: wall, replay)
        assert said.loud == (loudest == "error")  # somebody was woken up, whatever it is called since
        assert (said.told_after_s is None) == (not loudest)


def test_only_what_was_shown_counts_as_read(reader):
    incident = reader.incident(F.DISK_FULL)
    reader.until(7.0, words(6.5, "upload failed: no space left on device"))  # no revision has it yet
    assert all("upload" not in one.text for one in reader.incident(F.DISK_FULL).evidence)
    reader.review(incident, F.DISK_FULL, harmless=True)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("info", True)
    reader.until(7.0 + WAIT_S + 2.0)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("warning", False)


def test_graver_words_after_the_question_are_not_covered_by_its_answer():
    reader = Host(awaited=True)
    reader.until(6.0, words(2.0, severity="warning"))
    asked = reader.incident(F.DISK_FULL)
    reader.until(9.0, words(8.0, severity="error"))  # in the very same words
    reader.review(asked, F.DISK_FULL, harmless=True, asked_t=7.0)
    assert told(reader) == "info"
    reader.until(9.0 + WAIT_S + 2.0)
    assert told(reader) == "error"


def test_what_was_not_read_counts_though_other_words_took_its_place_in_the_evidence(reader):
    def test_says(t):
        return words(t, f"self-test {t}: simulated no space left on device: PASS")

    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(9.0, words(7.0, "self-test: disk full"), test_says(8.0))
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("info", False)
    said = [words(10.0, "the books cannot be written: no space left on device")]
    said += [test_says(11.0 + n) for n in range(9)]
    reader.until(21.0, *said)
    (situation,) = reader.tier._gathering.situations.values()
    left = evidence(situation)
    assert all("books" not in one.text for one in left)
    reader.review(replace(reader.incident(F.DISK_FULL), evidence=left), F.DISK_FULL, harmless=True)
    assert (told(reader), reader.incident(F.DISK_FULL).waits) == ("info", True)
    reader.until(10.0 + WAIT_S + 2.0)
    assert told(reader) == "warning"
    revision = reader.incident(F.DISK_FULL).revision
    reader.until(60.0)
    assert reader.incident(F.DISK_FULL).revision == revision
    again = Host(reader.incident(F.DISK_FULL), awaited=True, t=61.0)  # nobody may have been told yet
    again.until(62.0 + WAIT_S)
    assert told(again) == "warning"


def test_what_opens_late_waits_like_what_opens_at_once():
    reader = Host(awaited=True)
    faint = {"score": 0.4, "hints": {"disk-full": 0.45}}
    reader.until(44.0, words(2.0, **faint), words(41.0, "upload failed: no space left on device"))
    assert reader.incident(F.DISK_FULL).waits
    opened_t = reader.incident(F.DISK_FULL).opened_at - WALL
    reader.until(opened_t + WAIT_S + 2.0)
    assert told(reader) == "error"


def test_what_nobody_wrote_counts_within_the_same_condition(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(12.0, replace(words(10.0), words=False, id="measured"))
    assert told(reader) == "error"


def test_what_ends_with_some_of_its_words_unread_is_as_bad_as_they_may_be(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    for text, more, severity in (
        ("upload failed: no space left on device", {}, "warning"),
        ("panic", {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}, "error"),
    ):
        reader.until(reader.t + 3.0, words(reader.t + 1.0, text, **more))
        (situation,) = reader.tier._gathering.situations.values()
        assert situation.incident.waits
        assert unheard(situation) is Severity(severity)


def test_what_rules_take_for_security_waits_for_nobody_whatever_a_model_calls_it(reader):
    (situation,) = reader.tier._gathering.situations.values()
    verdict = reader.tier._weigh(situation)
    assert doubtful(verdict, situation)
    assert not doubtful(verdict._replace(scores={F.AUTH_BRUTEFORCE: 0.9, F.DISK_FULL: 0.5}), situation)


def test_an_unread_error_gets_the_place_of_a_warning(monkeypatch):
    monkeypatch.setattr("daemon.tiers.middle.OPEN_MAX", 1)
    host = Host(awaited=True)
    calm = find(2.0, "fs.used.level", "mount:/srv", {"disk-full": 0.9}, severity="warning", score=0.95)
    broke = words(9.0, "panic", "web.service", rule="known.program-broke", hints={"service-crash": 0.9})
    host.until(14.0, calm, broke)
    assert {one.fault_class: one.state for one in host.kept.values()} == {
        F.DISK_FULL: "closed",
        F.SERVICE_CRASH: "open",
    }


def test_a_flood_of_new_words_does_not_keep_itself_from_counting(reader):
    reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    broke = {"rule": "known.program-broke", "hints": {"service-crash": 0.9}}
    letters = "abcdefghij"
    flood = [
        words(10.0 + n / 2.0, f"panic {letters[n // 10] * 4} {letters[n % 10] * 5}", **broke)
        for n in range(80)
    ]
    reader.until(10.0 + WAIT_S + 4.0, *flood[:50])
    assert told(reader) == "error"


def test_two_that_write_about_one_place_are_two_writers():
    def about(t, unit):
        found = words(t, "cannot write /srv/x: No space left on device", unit)
        return replace(found, subjects=[Subject(SubjectKind.MOUNT, "/srv", 1.0), *found.subjects])

    host = Host(awaited=True)
    host.until(6.0, about(2.0, "self-test.service"))
    host.review(host.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    assert told(host) == "info"
    host.until(10.0 + WAIT_S + 4.0, replace(about(10.0, "db.service"), id="other"))
    assert told(host) == "error"


def test_graver_words_of_a_writer_who_says_nothing_are_still_a_warning():
    reader = Host(awaited=True)
    reader.until(6.0, words(2.0, severity="warning"))
    for _ in range(3):
        reader.review(reader.incident(F.DISK_FULL), F.DISK_FULL, harmless=True)
    reader.until(10.0 + WAIT_S + 4.0, words(9.0, severity="error"))
    assert told(reader) == "warning"


def restarts(t, unit="drill.service", **more):
    said = {"severity": "error", "kind": "event", "text": f"{unit} was restarted 4 times within 11 s"} | more
    rule, hints = said.pop("rule", "unit.restarts"), said.pop("hints", {"crash-loop": 0.9})
    return find(t, rule, f"unit:{unit}", hints, **said)


def test_what_is_measured_but_may_be_meant_waits_for_the_look_and_is_told_as_a_warning_at_least():
    for harmless, said in ((False, "error"), (True, "warning")):
        host = Host(awaited=True)
        host.until(6.0, restarts(2.0))
        assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("warning", True)
        host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=harmless)
        host.until(60.0, restarts(20.0))
        assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == (said, False)
    unread = Host(awaited=True)
    unread.until(2.0 + WAIT_S + 2.0, restarts(2.0))
    assert (told(unread, F.CRASH_LOOP), unread.incident(F.CRASH_LOOP).waits) == ("error", False)
    unread.review(unread.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    assert told(unread, F.CRASH_LOOP) == "warning"


@pytest.mark.parametrize("fault", sorted(one.value for one in MADE_USE_OF))
def test_what_is_made_use_of_is_notified_after_the_look_and_is_an_info_if_nothing_is_wrong(fault):
    def measured(t, severity="warning"):
        return restarts(t, rule="x.level", hints={fault: 0.9}, severity=severity, text="91 % is used.")

    host = Host(awaited=True)
    host.until(6.0, measured(2.0))
    (incident,) = host.kept.values()
    assert (incident.severity.value, incident.waits) == ("warning", True)
    unread = Host(awaited=True)
    unread.until(2.0 + WAIT_S + 2.0, measured(2.0))
    assert [(one.severity.value, one.waits) for one in unread.kept.values()] == [("warning", False)]
    agreed = Host(awaited=True)
    agreed.until(6.0, measured(2.0))
    agreed.review(agreed.incident(FaultClass(fault)), FaultClass(fault))
    assert [(one.severity.value, one.waits) for one in agreed.kept.values()] == [("warning", False)]
    host.review(incident, FaultClass(fault), harmless=True)
    host.until(40.0, measured(20.0))
    (incident,) = host.kept.values()
    assert (incident.severity.value, incident.waits, incident.meant) == ("info", False, Severity.WARNING)
    again = Host(incident, awaited=True, t=41.0)
    again.until(50.0, measured(45.0))
    assert [(one.severity.value, one.waits) for one in again.kept.values()] == [("info", False)]
    for one in (host, again):
        one.until(60.0, measured(55.0, "error"))
        assert [one.severity.value for one in one.kept.values()] == ["error"]


def more(t, rule, severity="warning", **said):
    return restarts(t, **{"rule": rule, "severity": severity, "text": f"More of {rule} than usual."} | said)


@pytest.mark.parametrize("unread", [False, True])
def test_one_more_such_warning_waits_for_a_look_of_its_own(unread):
    host = Host(awaited=True)
    host.until(6.0, more(2.0, "x.level"))
    host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    host.until(14.0, more(10.0, "y.level"))
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("info", True)
    if not unread:
        host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    host.until(10.0 + WAIT_S + 2.0)
    assert told(host, F.CRASH_LOOP) == ("warning" if unread else "info")
    assert not host.incident(F.CRASH_LOOP).waits
    host.until(40.0, more(35.0, "z.level", "error"))
    assert told(host, F.CRASH_LOOP) == "error"


def few(t, **said):
    hints = {"crash-loop": 0.4}
    return more(t, "y.level", "info", **{"hints": hints, "score": 0.4, "text": "600 are open."} | said)


def read_as_nothing(*findings, until=6.0):
    host = Host(awaited=True)
    host.until(until, *findings)
    host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    return host


def test_what_became_a_warning_after_the_question_is_not_covered_by_its_answer():
    host = Host(awaited=True)
    host.until(6.0, more(2.0, "x.level"), few(2.5))
    asked = host.incident(F.CRASH_LOOP)
    host.until(9.0, more(8.0, "y.level", text="5000 are open."))
    host.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    assert host.incident(F.CRASH_LOOP).waits  # for a look of its own
    host.until(8.0 + WAIT_S + 2.0)
    assert told(host, F.CRASH_LOOP) == "warning"


def test_what_rises_to_a_warning_waits_from_then_on_and_an_info_for_nobody():
    host = read_as_nothing(more(2.0, "x.level"), few(2.5))
    host.until(40.0)
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("info", False)
    host.until(44.0, more(41.0, "y.level", text="5000 are open."))
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("info", True)
    host.until(41.0 + WAIT_S + 2.0)
    assert told(host, F.CRASH_LOOP) == "warning"


def lost(t, *, name="drops_per_s", rate=30.0, **more_values):
    """A measure that has gone on since the first second."""
    found = more(t, "net.drops.level", text=f"{rate} a second are dropped.")
    values = {name: rate} | more_values
    pieces = [replace(one, start=WALL + 1.0, ref="net.drops", values=values) for one in found.evidence]
    return replace(found, evidence=pieces)


@pytest.mark.parametrize("name", ["drops_per_s", "errors_per_s", "processes_count"])
@pytest.mark.parametrize("restart", [False, True])
def test_twice_as_much_as_was_read_as_nothing_is_told_though_it_is_never_more_than_a_warning(name, restart):
    host = read_as_nothing(lost(2.0, name=name))
    host.until(200.0, lost(150.0, name=name, rate=50.0), lost(190.0, name=name))
    if restart:
        host = Host(host.incident(F.CRASH_LOOP), awaited=True, t=201.0)
        host.until(209.0, lost(205.0, name=name))
    assert told(host, F.CRASH_LOOP) == "info"
    host.until(212.0, lost(210.0, name=name, rate=110.0))
    if restart:  # it was heard of anew at 205
        assert host.incident(F.CRASH_LOOP).waits
        host.until(205.0 + WAIT_S + 2.0)
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("warning", False)


def test_each_value_grows_by_itself_and_what_came_after_the_question_was_not_shown():
    host = read_as_nothing(lost(2.0, connections_count=4000.0))
    host.until(40.0, lost(30.0, rate=900.0, connections_count=4000.0))
    assert told(host, F.CRASH_LOOP) == "warning"
    host = Host(awaited=True)
    host.until(6.0, lost(2.0))
    asked = host.incident(F.CRASH_LOOP)
    host.until(9.0, lost(8.0, rate=5000.0))
    host.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    host.until(8.0 + WAIT_S + 2.0)
    assert told(host, F.CRASH_LOOP) == "warning"


def test_after_a_restart_another_program_is_not_taken_for_the_first():
    def hog(t, unit, pid):
        found = more(t, "process.hog", unit=unit, text=f"python3[{pid}] has used 1 of 2 cores for 22 s.")
        return replace(found, evidence=[replace(one, ref="process.hog") for one in found.evidence])

    host = read_as_nothing(hog(2.0, "drill.service", 11))
    again = Host(host.incident(F.CRASH_LOOP), awaited=True, t=7.0)
    other = hog(10.0, "other.service", 77)
    tied = replace(other, subjects=[*other.subjects, *hog(10.0, "drill.service", 11).subjects])
    again.until(60.0, tied)
    assert max(one.severity.rank for one in again.kept.values()) == Severity.WARNING.rank


@pytest.mark.parametrize(
    ("rule", "fault"),
    [("mem.available.level", "memory-exhaustion"), ("proc.total.level", "process-storm")],
)
def test_an_error_that_a_backup_makes_a_warning_waits_for_nobody(rule, fault):
    host = Host(awaited=True)
    host.tier.take([context(1.0, "backup", unit="borg.service")])
    low = find(2.0, rule, "host:", {fault: 0.9}, "error", score=0.95)
    host.until(8.0, low)
    (incident,) = host.kept.values()
    assert (incident.severity, incident.waits) == (Severity.WARNING, False)
    assert host.review(incident, incident.fault_class, harmless=True) == []


def test_an_answer_from_before_a_restart_covers_only_what_it_was_shown():
    host = Host(awaited=True)
    host.until(6.0, more(2.0, "x.level"))
    asked = host.incident(F.CRASH_LOOP)
    host.until(10.0, more(7.0, "y.level"))
    again = Host(host.incident(F.CRASH_LOOP), awaited=True, t=11.0)
    again.until(12.0)
    again.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    again.until(60.0)
    assert told(again, F.CRASH_LOOP) == "warning"


def test_a_restart_does_not_take_one_instance_for_another():
    def stuck(t, number, tied=()):
        found = more(t, "x.level", unit=f"job@{number}.service", text=f"job@{number}.service is stuck")
        others = [who for one in tied for who in more(t, "x", unit=f"job@{one}.service").subjects]
        pieces = [replace(one, ref=f"x|job@{number}.service") for one in found.evidence]
        return replace(found, subjects=[*found.subjects, *others], evidence=pieces)

    host = read_as_nothing(stuck(2.0, 1))
    again = Host(host.incident(F.CRASH_LOOP), awaited=True, t=7.0)
    again.until(12.0, stuck(10.0, 1))
    assert told(again, F.CRASH_LOOP) == "info"
    again.until(60.0, stuck(14.0, 2, tied=(1,)))
    assert told(again, F.CRASH_LOOP) == "warning"


def test_a_new_measure_does_not_put_off_words_that_are_due():
    panic = words(8.0, "panic: cannot go on", "drill.service", rule="known.program-broke", severity="warning")
    panic = replace(panic, hints={FaultClass.SERVICE_CRASH: 0.7})
    host = read_as_nothing(more(2.0, "x.level"))
    host.until(24.0, panic)
    host.until(32.0, more(26.0, "y.level"))
    assert told(host, F.CRASH_LOOP) == "warning"
    late = read_as_nothing(more(2.0, "x.level"))
    late.until(32.0, panic)
    late.until(40.0, more(34.0, "y.level"))
    assert (told(late, F.CRASH_LOOP), late.incident(F.CRASH_LOOP).waits) == ("warning", False)


@pytest.mark.parametrize("fault", ["device-lost", "disk-failing", "clock-jump", "hardware-error"])
def test_a_warning_of_what_nobody_makes_use_of_waits_for_nobody(fault):
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0, hints={fault: 0.9}, severity="warning"))
    (incident,) = host.kept.values()
    assert not incident.waits
    assert host.review(incident, incident.fault_class, harmless=True) == []


@pytest.mark.parametrize(
    "later",
    [
        restarts(10.0, rule="unit.failed", hints={"service-crash": 0.9}, text="drill.service has failed"),
        restarts(10.0, rule="unit.gone", severity="critical", text="drill.service is given up"),
        restarts(10.0, rule="unit.given-up", text="drill.service is given up"),  # of the same kind
        find(10.0, "fs.used.level", ["mount:/srv", "unit:drill.service"], {"disk-full": 0.9}, "error"),
    ],
)
def test_what_else_is_measured_is_not_covered_by_what_was_said(later):
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0))
    host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    host.until(14.0, later)
    assert max(one.severity.rank for one in host.kept.values()) >= Severity.ERROR.rank


@pytest.mark.parametrize("fault", ["disk-full", "device-lost", "memory-exhaustion", "fd-exhaustion"])
def test_what_nobody_means_waits_for_nobody(fault):
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0, hints={fault: 0.9}))
    (incident,) = host.kept.values()
    assert (incident.severity, incident.waits) == (Severity.ERROR, False)
    assert host.review(incident, incident.fault_class, harmless=True) == []


@pytest.mark.parametrize("kind", ["event", "line"])  # the service manager's own lines are no words
def test_a_restart_makes_a_drill_neither_an_error_nor_nothing(kind):
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0, kind=kind))
    host.review(host.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    again = Host(host.incident(F.CRASH_LOOP), awaited=True, t=7.0)
    again.until(60.0, restarts(20.0), restarts(40.0))
    assert told(again, F.CRASH_LOOP) == "warning"
    again.until(70.0, restarts(62.0, rule="unit.given-up", text="drill.service is given up"))
    assert told(again, F.CRASH_LOOP) == "error"
    unread = Host(awaited=True)
    unread.until(6.0, restarts(2.0, kind=kind))
    again = Host(unread.incident(F.CRASH_LOOP), awaited=True, t=7.0)
    again.until(9.0)
    assert (told(again, F.CRASH_LOOP), again.incident(F.CRASH_LOOP).waits) == ("warning", True)
    read = Host(unread.incident(F.CRASH_LOOP), awaited=True, t=7.0)
    read.until(9.0)
    read.review(read.incident(F.CRASH_LOOP), F.CRASH_LOOP, harmless=True)
    assert told(read, F.CRASH_LOOP) == "warning"
    again.until(2.0 + WAIT_S + 3.0)
    assert told(again, F.CRASH_LOOP) == "error"


@pytest.mark.parametrize("fault", ["disk-full", "device-lost", "memory-exhaustion", "fd-exhaustion"])
def test_what_nobody_means_waits_for_nobody_beside_what_may_be_meant_either(fault):
    host = Host(awaited=True)
    other = find(2.1, "z.level", "unit:drill.service", {fault: 0.75}, "error", score=0.6)
    host.until(6.0, restarts(2.0), other)
    assert all(not one.waits for one in host.kept.values())
    assert host.incident(F.CRASH_LOOP).severity is Severity.ERROR


def test_what_comes_back_and_was_told_as_an_error_does_not_wait_again():
    host = Host(awaited=True)
    host.until(50.0, restarts(2.0), restarts(30.0, ended=True))
    assert [one.state for one in host.kept.values()] == ["closed"]
    host.until(60.0, restarts(52.0))
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("error", False)


def test_a_stronger_word_for_the_same_while_the_answer_is_under_way_is_covered():
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0))
    asked = host.incident(F.CRASH_LOOP)
    host.until(9.0, restarts(8.0, score=0.9))
    host.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    assert told(host, F.CRASH_LOOP) == "warning"


def test_an_answer_about_a_warning_does_not_lower_the_error_that_came_after_the_question():
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0, severity="warning"))
    asked = host.incident(F.CRASH_LOOP)
    host.until(9.0, restarts(8.0))
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("warning", True)
    host.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    assert (told(host, F.CRASH_LOOP), host.incident(F.CRASH_LOOP).waits) == ("error", False)


def test_another_instance_of_a_unit_is_not_covered_by_what_was_said_of_the_first():
    host = Host(awaited=True)
    host.until(6.0, restarts(2.0, unit="job@drill.service"))
    asked = host.incident(F.CRASH_LOOP)
    later = restarts(8.0, unit="job@payroll.service")
    tied = [*later.subjects, *restarts(8.0, unit="job@drill.service").subjects]
    host.until(9.0, replace(later, subjects=tied))
    host.review(asked, F.CRASH_LOOP, harmless=True, asked_t=6.0)
    host.until(20.0)
    assert max(one.severity.rank for one in host.kept.values()) == Severity.ERROR.rank


def test_words_that_were_read_stay_read_over_a_restart_though_their_count_made_a_loop_of_them():
    said = {"rule": "known.panic", "hints": {"service-crash": 0.9}, "score": 0.9}
    host = Host(awaited=True)
    host.until(9.0, *(words(2.0 + n, "panic in test", **said) for n in range(4)))
    (loop,) = host.kept.values()
    host.review(loop, loop.fault_class, harmless=True)
    again = Host(*host.kept.values(), awaited=True, t=10.0)
    again.until(40.0, words(12.0, "panic in test", **said))
    assert {one.severity.value for one in again.kept.values()} == {"info"}
