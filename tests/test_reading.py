"""What no rule knows, read by a served model: what is asked and when, what of an answer is believed."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from types import SimpleNamespace

import msgspec
import pytest

from daemon.allowance import HOUR_S, Allowance
from daemon.errors import ConfigError
from daemon.incidents import reading, review, unexplained
from daemon.incidents.unexplained import Unexplained
from daemon.messages import Evidence, Finding, Line, Sample, Stamp, Subject, Tick
from daemon.replay import Replay
from daemon.served import Read, ServedModel
from daemon.settings import Low, Middle, Served, Settings, Top
from daemon.store.reader import StoreReader
from daemon.store.writer import StoreWriter
from daemon.tiers.gates import UNREAD_OF_ONE, UNREAD_PER_MINUTE
from daemon.tiers.low import LowTier
from daemon.tiers.middle import MiddleTier
from models.taxonomy import Category, FaultClass, Severity, SubjectKind
from tests.fixtures.chat import Reply, serve
from tests.lab.reader import Reader

T0 = 1.8e9
LINES = [
    "1795883932: New connection from 203.0.113.164:46238 on port 1883.",
    "1795883932: Client <unknown> disconnected, not authorised.",
]


def at(t):
    return Stamp("b", t, T0 + t)


def found(number, text, unit="broker.service", *, t=0.0, rule="line.unread", **more):
    evidence = Evidence(f"e{number}", "line", "cursor", T0 + t, T0 + t, text, more.pop("values", {}))
    subjects = [Subject(SubjectKind.UNIT, unit)]
    return Finding(
        f"f{number}", at(t), rule, Category.UNKNOWN, Severity.INFO, 0.1, subjects, {}, [evidence], **more
    )


@pytest.fixture
def findings():
    return [
        found(number, text, t=float(number), values={"lines_count": 8.0}, template=f"k{number}")
        for number, text in enumerate(LINES)
    ]


def says(fault="auth-bruteforce", evidence=("F2",), **more):
    said = {"fault": fault, "kind": "address", "name": "203.0.113.164", "severity": "warning"}
    return json.dumps(said | {"evidence": list(evidence)} | more)


# --- what is asked ------------------------------------------------------------------------------------------


def test_a_question_holds_lines_as_data_how_often_and_what_is_told_already(findings):
    asked = reading.question(findings, {"f0": "disk-full"}, T0 + 5.0)
    system, user = (one["content"] for one in asked.messages)
    assert all(f"  {fault.value}: " in system for fault in reading.FAULTS)
    assert sum(not one.benign for one in FaultClass) - 1 == len(reading.FAULTS)  # all but unknown
    inner = user.removeprefix("<found>\n").removesuffix("\n</found>")
    assert "<" not in inner  # nothing a program writes ends the block
    first, second = json.loads(inner)
    assert first == {
        "id": "F1", "ago_s": 5.0, "of": "unit broker.service", "line": LINES[0], "times": 8,
        "told": "disk-full",
    }  # fmt: skip
    assert "told" not in second
    enumerated = asked.schema["json_schema"]["schema"]["properties"]
    assert enumerated["evidence"]["items"]["enum"] == ["F1", "F2"]
    assert enumerated["fault"]["enum"][0] == "none"


def test_of_each_kind_of_line_the_latest_is_shown_and_what_is_told_of_one_is_told_of_all():
    several = [
        found(n, text, t=float(n), template=text[:3]) for n, text in enumerate(["abc 1", "xyz", "abc 2"])
    ]
    asked = reading.question(several, {"f0": "disk-full"}, T0 + 5.0)
    shown = json.loads(asked.messages[1]["content"].removeprefix("<found>\n").removesuffix("\n</found>"))
    assert [(one["line"], one.get("told")) for one in shown] == [("xyz", None), ("abc 2", "disk-full")]
    assert list(asked.findings.values()) == several[1:]
    at_once = [
        found(n, "abc", template="abc", values={"lines_count": float(count)})
        for n, count in enumerate([8, 1, 2])
    ]
    assert list(reading.question(at_once, {}, T0).findings.values()) == at_once[:1]  # a store gives them so


def disk_full(*ids):
    """An open incident that has these findings."""
    return SimpleNamespace(
        open=True, incident=SimpleNamespace(fault_class=FaultClass.DISK_FULL), ids=dict.fromkeys(ids)
    )


def test_what_is_new_is_asked_about_once_after_a_moment_and_not_too_often(findings):
    kept = Unexplained()
    kept.note(findings[0], 10.0)
    assert kept.due(10.3, ())[0] == []
    assert kept.due(10.5, ())[0] == findings[:1]
    kept.note(findings[1], 10.7)
    assert kept.due(12.3, ())[0] == []
    assert kept.due(12.5, ())[0] == findings  # with what was found before
    assert kept.due(20.0, ())[0] == []
    kept.note(found(3, "more"), 21.0)
    assert kept.due(25.0, [disk_full("f3")]) == ([], {"f3": "disk-full"})  # an incident explains it
    assert kept.due(75.0, ())[0] == [found(3, "more")]  # no longer, and the others are forgotten
    assert kept.due(90.0, ())[0] == []


def test_nothing_about_ourselves_or_that_is_over_is_asked():
    kept = Unexplained()
    for rule in ("reader.absent", "stage.silent", "read.disk-full"):
        kept.note(found(1, "x", rule=rule), 0.0)
    kept.note(found(2, "x", ended=True), 0.0)
    assert kept.due(10.0, ())[0] == []


def test_of_too_many_kinds_those_that_are_told_give_way():
    many = [
        found(number, f"kind {number}", f"{number % 3}.service", template=f"k{number}")
        for number in range(reading.LATELY + 10)
    ]
    told = {f"f{number}": "disk-full" for number in range(20, 30)}
    shown = [one.id for one in reading.question(many, told, T0).findings.values()]
    assert shown == [one.id for one in many if one.id not in told]


def test_of_one_writer_no_more_are_shown_than_leave_room_for_others():
    flood = [found(number, f"kind {number}", template=f"k{number}") for number in range(40)]
    beside = [found(50, "a pump", "pump.service", template="p"), found(51, "a user", "broker", template="u")]
    told = {f"f{number}": "disk-full" for number in range(30, 36)}
    shown = [one.id for one in reading.question([*beside, *flood], told, T0).findings.values()]
    untold = [one.id for one in flood if one.id not in told]
    assert shown == ["f50", "f51", *untold[-reading.OF_ONE :]]
    few = [*beside, *flood[: reading.OF_ONE]]
    assert list(reading.question(few, told, T0).findings.values()) == few


def test_memory_of_what_was_asked_is_bounded(monkeypatch):
    monkeypatch.setattr(unexplained, "ASKED_MAX", 4)
    kept = Unexplained()
    for number in range(40):
        kept.note(found(number, "x"), 4.0 * number)
        assert kept.due(4.0 * number + 3.5, ())[0]
    assert len(kept._asked) == 4


def observed(tier, texts, *, step=1.0, start=10.0, unit="broker.service"):
    upward = []
    for number, text in enumerate(texts):
        line = Line(at(start + step * number), "journal", text, unit=unit, identifier="mosquitto")
        upward += tier.observe([line])
    return [one for one in upward if isinstance(one, Finding)]


def test_lines_nobody_understands_are_findings_only_where_somebody_reads_them():
    texts = [f"Client c{number} took the turnip off the shelf" for number in range(9)]
    assert observed(LowTier(Low()), texts) == []
    told = observed(LowTier(Low(), unread=True), texts)
    assert [one.rule for one in told] == ["line.unread"] * 3
    assert [one.evidence[0].values["lines_count"] for one in told] == [1.0, 2.0, 8.0]
    assert all(one.hints == {} for one in told)


def flood(count):
    words = "abcdefghijklmnopqrstuvwxyz"
    return [
        " ".join(words[(n * k) % 26] * 5 for k in range(1, 9)) + f" {words[n % 26]}{n}x" for n in range(count)
    ]


def test_a_flood_of_new_lines_is_bounded_and_leaves_room_for_others():
    tier = LowTier(Low(), unread=True)
    told = observed(tier, flood(300), step=0.01)
    assert 10 < len(told) <= UNREAD_OF_ONE < UNREAD_PER_MINUTE
    beside = observed(tier, ["The pump says that it has lost its water."], unit="pump.service", start=14.0)
    assert [one.rule for one in beside] == ["line.unread"]


def counts(told, of):
    return [
        int(one.evidence[0].values["lines_count"])
        for one in told
        if one.rule == "line.unread" and of in one.evidence[0].text
    ]


def test_a_complaint_is_shown_at_its_fourth_time_and_what_an_access_log_says_is_none():
    refused = [f"Certificate invalid: not yet valid for train {n}" for n in range(9)]
    asked = [f'10.1.1.{n} - - [29/Nov/2026:20:56:4{n} +0000] "GET /a{n} HTTP/1.1" 200 5' for n in range(9)]
    tier = LowTier(Low(), unread=True)
    assert counts(observed(tier, refused), "Certificate") == [1, 2, 4, 8]
    assert 4 not in counts(observed(tier, asked, unit="web.service", start=30.0), "GET")


def test_a_fourth_time_takes_no_room_from_what_is_new():
    kinds = ["trains", "barges", "trams", "ferries", "lifts", "cranes", "buses", "planes", "carts", "sledges"]
    texts = [f"{kind}: certificate {n} is not yet valid, {kind} wait" for kind in kinds for n in range(4)]
    told = observed(LowTier(Low(), unread=True), texts, step=0.1)
    fourth = [kind for kind in kinds if 4 in counts(told, kind)]
    assert 0 < len(fourth) < len(kinds)
    assert all(1 in counts(told, kind) for kind in kinds)


# --- what is believed ---------------------------------------------------------------------------------------


def heard(answer, findings):
    return reading.read(answer, reading.question(findings, {}, T0), at(6.0))


def test_an_answer_becomes_a_finding_with_its_evidence_and_whom_that_names(findings):
    one = heard(says(), findings).finding
    assert (one.rule, one.category, one.severity) == (
        "read.auth-bruteforce", Category.SECURITY, Severity.WARNING,
    )  # fmt: skip
    assert one.path == "model"
    assert one.template == "k1"  # of the line that was cited: a bad verdict quiets that
    # The address stands in F1 only, which was not cited: it is not believed.
    assert [(who.kind.value, who.name) for who in one.subjects] == [("unit", "broker.service")]
    both = heard(says(evidence=["F1", "F2"]), findings).finding
    assert [(who.name, who.score) for who in both.subjects] == [
        ("203.0.113.164", 1.0),
        ("broker.service", 0.5),
    ]
    assert [piece.text for piece in both.evidence] == LINES
    assert both.evidence[0].speaks_for == {FaultClass.AUTH_BRUTEFORCE: 0.8}


def test_kind_of_what_is_known_is_not_the_models_to_choose(findings):
    one = heard(says(kind="file", name="broker.service"), findings).finding
    assert [(who.kind.value, who.score) for who in one.subjects] == [("unit", 1.0)]
    host = heard(says(kind="host", name="x"), findings).finding
    assert [who.name for who in host.subjects] == ["broker.service"]


def test_nothing_wrong_is_no_finding_and_no_complaint(findings):
    assert heard('{"fault": "none"}', findings) == (None, "", {})
    assert heard('Well: {"fault": "none", "evidence": []} I think.', findings) == (None, "", {})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "not the JSON"),
        ("[1]", "not the JSON"),
        ("{" * 5000, "not the JSON"),
        (says(fault="boot"), "no fault is called 'boot'"),
        (says(fault="rm -rf /" * 5), "no fault is called"),
        (says(severity="info"), "not the JSON"),
        (says(evidence=[]), "cites no evidence"),
        (says(evidence=["F9", "E1"]), "cites no evidence"),
        (says(action="reboot"), "not the JSON"),
        (says(name="n" * 300), "not the JSON"),
    ],
)
def test_what_was_not_asked_for_is_refused(findings, answer, said):
    one = heard(answer, findings)
    assert one.finding is None
    assert said in one.fault


def test_a_reading_opens_an_incident_and_the_same_again_no_second_one(findings):
    tier = MiddleTier(Middle())
    changed = []
    for number in range(3):
        tier.take([Tick(at(6.0 + number)), *findings])
        one = reading.read(says(evidence=["F1", "F2"]), reading.question(findings, {}, T0), at(6.0 + number))
        changed += tier.take([one.finding, Tick(at(8.0 + number))])
    (incident,) = {one.id: one for one in changed}.values()
    assert incident.fault_class is FaultClass.AUTH_BRUTEFORCE
    assert incident.culprits[0].name == "203.0.113.164"
    assert tier.counters["opened"] == 1
    assert incident.path == "model"
    assert one.told == {"f0": "auth-bruteforce", "f1": "auth-bruteforce"}


def test_an_incident_that_nobody_understands_is_asked_about_and_gets_its_class(findings):
    tier = MiddleTier(Middle())
    alarm = msgspec.structs.replace(
        found(7, "Battery charge is 0 %", t=1.0, rule="line.novel"),
        severity=Severity.CRITICAL,
        score=0.9,
        hints={FaultClass.UNKNOWN: 0.6},
    )
    changed = tier.take([alarm, Tick(at(3.0)), Tick(at(5.0))])
    assert [one.fault_class for one in changed] == [FaultClass.UNKNOWN]
    shown, told = tier.puzzles()
    assert shown == [alarm]
    assert told == {}
    said = reading.read(
        says("hardware-error", ["F1"], severity="error", kind="unit", name="broker.service"),
        reading.question(shown, told, T0),
        at(6.0),
    )
    changed = tier.take([said.finding, Tick(at(9.0))])
    assert [one.fault_class for one in changed] == [FaultClass.HARDWARE_ERROR]
    assert tier.counters["opened"] == 1


# --- in a replay and in the daemon --------------------------------------------------------------------------


def course():
    """A minute of a broker whose clients are refused, and a metric a second."""
    for second in range(30):
        yield Sample(at(float(second)), "host", {"cpu.busy": 0.1})
        if second >= 10:
            for text in LINES * 4:
                yield Line(
                    at(second + 0.5),
                    "journal",
                    text,
                    unit="broker.service",
                    identifier="mosquitto",
                    cursor="c",
                )


def test_a_replay_asks_and_takes_the_answer_when_it_comes():
    asked = []

    def read(question):
        if isinstance(question, review.Question):
            return '{"fault": "auth-bruteforce", "evidence": ["E1"]}', 0.0
        asked.append(question)
        many = any(one.evidence[0].values.get("lines_count", 0) >= 8 for one in question.findings.values())
        names = [name for name, one in question.findings.items() if one.rule == "line.unread"]
        return (says(evidence=names[:2]) if many else '{"fault": "none"}'), 1.5

    replays = [Replay(Settings(), {}, read), Replay(Settings())]
    for one in replays:
        one.feed(list(course()))
        one.finish()
    (incident,) = replays[0].incidents.values()
    assert incident.culprits[0].name == "203.0.113.164"
    assert 1.5 <= incident.opened_at - (T0 + 11.5) <= 7.0  # of the eighth line; asked at the next tick
    assert replays[1].incidents == {}
    assert 2 <= len(asked) <= 4
    assert '"told":"auth-bruteforce"' in asked[-1].messages[1]["content"]


def test_store_gives_what_was_found_lately_and_which_of_it_is_told(tmp_path, findings):
    with StoreWriter(tmp_path / "store.sqlite") as store:
        store.save([], [found(9, "long ago", t=-500.0), *findings])
    with StoreReader(tmp_path / "store.sqlite") as reader:
        assert reader.found(T0 - 1.0) == (findings, {})
        assert reader.found(T0 - 1.0, limit=1) == (findings[1:], {})


def hear(model, within_s=10.0):
    told, until = [], time.monotonic() + within_s
    while time.monotonic() < until:
        told += model.step()
        if not model.busy:
            return told
        time.sleep(0.01)
    raise AssertionError("it is still busy")


def test_a_served_model_reads_within_its_hour_and_what_it_reads_is_audited(findings):
    question = reading.question(findings, {}, time.time())
    with serve([Reply(says(evidence=["F1", "F2"])), Reply("nonsense"), Reply('{"fault": "none"}')]) as server:
        model = ServedModel(Served(url=server.url, reads=True, readings_per_hour=18), ["en"])
        try:
            model.want_reading(lambda: question)
            (told,) = hear(model)
            assert isinstance(told, Read)
            assert told.finding.rule == "read.auth-bruteforce"
            for _ in range(3):
                model.want_reading(lambda: question)
                assert hear(model) == []
        finally:
            model.close()
    assert server.asked[0]["response_format"] == msgspec.to_builtins(question.schema)
    counts = {name: model.counters[name] for name in ("readings", "found", "refused", "skipped", "requests")}
    assert counts == {"readings": 3, "found": 1, "refused": 1, "skipped": 0, "requests": 3}
    assert [name for name, _ in model.audits] == ["", "", ""]
    said = " ".join(model.notes)
    assert "what it read was refused" in said
    assert "asked very much at once: what is new waits 400 s" in said


def test_what_is_new_waits_where_a_quarter_of_the_hours_questions_was_asked_at_once(findings):
    clock, question = [1000.0], reading.question(findings, {}, time.time())

    def read_clock():
        clock[0] += 1e-7  # as a clock does between two looks at it
        return clock[0]

    with serve([Reply('{"fault": "none"}')] * 4) as server:
        settings = Served(url=server.url, reads=True, readings_per_hour=12)  # four of them looks
        model = ServedModel(settings, ["en"], clock=read_clock)
        try:
            for number in range(4):
                model.want_reading(lambda: question)
                assert model.busy == (number < 2)
                hear(model)
                assert model.counters["readings"] == min(number + 1, 2)
            assert model.wait_s == pytest.approx(20.0, abs=1e-3)  # then its process ends
            clock[0] += 599.0
            assert model.wait_s == 0.0  # only the process
            model.step()
            assert model.wait_s == pytest.approx(1.0, abs=1e-3)
            clock[0] += 1.0
            assert model.busy
            hear(model)
        finally:
            model.close()
    assert (model.counters["readings"], model.counters["skipped"]) == (3, 0)


@pytest.mark.parametrize("per_hour", [1, 2, 3, 4, 60, 150, 400])
def test_never_more_than_the_hours_number_and_never_none_for_long(per_hour):
    allowance, asked, now_s = Allowance(per_hour), [], 0.0
    while now_s < 2.5 * HOUR_S:
        now_s = allowance.at_s(now_s)
        allowance.take(now_s)
        asked.append(now_s)
    assert asked.count(0.0) == allowance.most
    longest_s = HOUR_S / max(1, per_hour - allowance.most) + 1e-3
    assert all(after - before <= longest_s for before, after in pairwise(asked))
    within = [sum(start <= one < start + HOUR_S - 1e-3 for one in asked) for start in asked if start < HOUR_S]
    assert max(within) <= per_hour


def test_a_clock_set_back_allows_nothing_and_a_quiet_time_all_again():
    allowance = Allowance(24)
    for _ in range(6):
        assert allowance.at_s(50.0) == 50.0
        allowance.take(50.0)
    assert not allowance.full(50.0)
    assert allowance.at_s(10.0) == pytest.approx(10.0 + HOUR_S / 18)
    assert allowance.full(10.0 + HOUR_S)


def test_what_says_something_new_each_second_is_read_at_first_and_then_ever_again():
    asked = []

    def read(question):
        asked.append(question)
        return '{"fault": "none"}', 0.0

    replay = Replay(Settings(top=Top(served=Served(readings_per_hour=24))), {}, read)  # eight of them looks
    for second in range(640):
        word = "".join(chr(ord("a") + int(digit)) for digit in f"{second:03d}")
        text = " ".join(word + end for end in ("ing", "able", "ness", "ward"))  # nothing in common
        replay.feed([Line(at(float(second)), "journal", text, unit=f"{word}.service", cursor="c")])
        replay.feed([Sample(at(second + 0.5), "host", {"cpu.busy": 0.1})])
    assert len(asked) == 4 + 2  # one each five minutes
    shown = asked[-1].messages[1]["content"]
    assert (
        int(re.findall(r"unit (\w+).service", shown)[-1].translate(str.maketrans("abcdefghij", "0123456789")))
        > 550
    )


def test_reading_needs_an_address_and_the_operators_word():
    assert not Served().reading
    assert not Served(url="http://127.0.0.1:1").reading
    assert not Served(reads=True).reading
    assert Served(url="http://127.0.0.1:1", reads=True).reading


# --- answers that are kept ----------------------------------------------------------------------------------


def question(findings):
    return reading.question(findings, {}, T0 + 9)


def test_a_served_models_answers_are_kept_and_not_asked_for_again(findings, tmp_path):
    file = tmp_path / "answers.jsonl"
    with serve([Reply(says())]) as server:
        first = Reader(server.url, "m", file)
        told = first(question(findings))
    assert told[0] == says()
    assert told[1] > 0.0
    again = Reader(kept=file)
    assert again(question(findings)) == told
    assert (again.asked, again.left, again.close()) == (1, 0, None)


def test_what_nobody_answered_is_written_down_for_others(findings, tmp_path):
    file = tmp_path / "answers.jsonl"
    reader, asked = Reader(kept=file), question(findings)
    assert reading.read(reader(asked)[0], asked, at(9.0)).finding is None
    assert (reader.asked, reader.left, reader.unanswered) == (1, 1, 1)
    (row,) = [json.loads(line) for line in reader.close().read_text().splitlines()]
    assert row["system"] == asked.messages[0]["content"]
    assert row["user"] == asked.messages[1]["content"]
    file.write_text(json.dumps({"question": row["question"], "answer": json.loads(says())}) + "\n")
    answered = Reader(kept=file)
    assert reading.read(answered(asked)[0], asked, at(9.0)).finding.hints == {FaultClass.AUTH_BRUTEFORCE: 0.8}
    assert answered.close() is None
    assert not (tmp_path / "answers.open.jsonl").exists()
    assert (answered.asked, answered.unanswered) == (1, 0)
    file.write_text(json.dumps({"question": row["question"], "answer": " "}) + "\n")
    silent = Reader(kept=file)
    silent(asked)
    assert (silent.left, silent.unanswered) == (0, 1)


@pytest.mark.parametrize(
    "line", ["{", '{"question": "no hash", "answer": {}}', '{"question": "' + "a" * 64 + '", "answer": 3}']
)
def test_a_bad_line_of_kept_answers_is_refused_by_its_number(line, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"question": "' + "b" * 64 + '", "answer": {"fault": "none"}}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"answers\.jsonl:2: "):
        Reader(kept=file)
