"""Advice as it is read at night: golden texts, truth of what is filled in, mutations that must be caught."""

import random
import re
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.advice import compose, fill
from daemon.advice.check import LENGTH_MAX, check, check_advice
from daemon.advice.compose import catalogue_advice
from daemon.advice.fill import Scene, Sentence, says
from daemon.advice.subjects import quoted_parts
from daemon.advice.titles import title
from daemon.messages import REVIEWED, ContextNote, Culprit, Evidence, Incident
from models import known, metrics
from models.taxonomy import FaultClass, Severity, SubjectKind

FIXTURES = Path(__file__).parent / "fixtures/advice"
CATALOGUE = Path(compose.__file__).parent
SCENARIOS = sorted(path.stem for path in FIXTURES.glob("*.json"))
T = 1_700_000_000.0


def load(name, **changes):
    found = msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes(), type=Incident)
    return msgspec.structs.replace(found, **changes)


def metric(ref, text="", **values):
    return Evidence("e1", "metric", ref, T, T, text, values)


def blame(kind, name):
    return [Culprit(SubjectKind(kind), name, 0.9)]


# --- golden texts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "de"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_reads_like_its_golden_text(name, lang):
    advice = catalogue_advice(load(name), lang)
    assert f"{advice.text}\n$ {advice.action}\n" == (FIXTURES / f"{name}.{lang}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "english", "german"),
    [
        ("full-file-system", "/mnt/small is 100 % full", "/mnt/small ist zu 100 % voll"),
        (
            "cpu-hog",
            "burner[812] uses 1.9 of 2 processor cores",
            "burner[812] belegt 1,9 von 2 Prozessorkernen",
        ),
        (
            "failed-logins",
            "203.0.113.9 failed to log in 24 times",
            "203.0.113.9: 24 gescheiterte Anmeldungen",
        ),
        ("link-down", "eth0 has no link", "eth0 hat keine Verbindung"),
        ("truncated-backing-file", "loop3 reports 6 I/O errors", "loop3 meldet 6 E/A-Fehler"),
    ],
)
def test_titles_name_the_incident_in_one_line(name, english, german):
    assert title(load(name), "en") == english
    assert title(load(name), "de") == german


# --- truth --------------------------------------------------------------------------------------------


def test_numbers_of_another_mount_are_not_borrowed():
    about = load("full-file-system", evidence=[metric("fs.used{/var}", used_ratio=0.99, free_bytes=5e9)])
    text = catalogue_advice(about, "en").text
    assert "Space on /mnt/small is short." in text
    assert "%" not in text.partition("Check:")[0]
    assert title(about, "en") == "/mnt/small is running out of space"


def test_numbers_of_another_process_of_the_same_name_are_not_borrowed():
    evidence = [metric("cpu.busy", "worker[2] uses 1.9 cores.", cpu_cores=1.9, cores_count=2.0)]
    about = load("cpu-hog", culprits=blame("process", "worker[1]"), evidence=evidence)
    assert "1.9" not in catalogue_advice(about, "en").text


def test_numbers_of_one_sentence_come_from_one_piece_of_evidence():
    evidence = [
        metric("a", "203.0.113.9 failed", failures_count=24.0),
        metric("b", "203.0.113.9 was seen", window_s=60.0),
    ]
    text = catalogue_advice(load("failed-logins", evidence=evidence), "en").text
    assert "24" not in text
    assert "60 s" not in text
    assert "60 s" not in text


def test_attack_from_many_addresses_is_not_blamed_on_one():
    many = Evidence("e1", "event", "", T, T, "90 failed logins within 60 s from 30 addresses", {})
    many = msgspec.structs.replace(
        many, values={"failures_count": 90.0, "window_s": 60.0, "addresses_count": 30.0}
    )
    about = load("failed-logins", evidence=[many])
    assert title(about, "en") == "203.0.113.9 is guessing passwords"
    assert "90" not in catalogue_advice(about, "en").text


def test_nearly_full_is_not_called_full():
    ref, text = "fs.used{/mnt/small}", "/mnt/small is 97 % full"
    about = load(
        "full-file-system", evidence=[metric(ref, text, used_ratio=0.9712)], severity=Severity.CRITICAL
    )
    text = catalogue_advice(about, "en").text
    assert "97 % full" in text
    assert "There is still some room" in text


def test_the_newest_evidence_is_stated():
    ref = "fs.used{/mnt/small}"
    old = Evidence("old", "metric", ref, T, T, "", {"used_ratio": 0.96})
    new = Evidence("new", "metric", ref, T + 9, T + 9, "", {"used_ratio": 0.98})
    advice = catalogue_advice(load("full-file-system", evidence=[new, old]), "en")
    assert "98 %" in advice.text
    assert advice.sources["98 %"] == "new"


def test_recovered_values_do_not_make_an_absurd_title():
    evidence = [metric("fs.used{/mnt/small}", used_ratio=0.2)]
    assert "20 %" not in title(load("full-file-system", evidence=evidence, state="closed"), "en")


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("lang", ["en", "de"])
def test_every_number_and_name_outside_of_commands_has_a_source(name, lang):
    about = load(name)
    advice = catalogue_advice(about, lang)
    known = {evidence.id for evidence in about.evidence} | {"culprit", "context:0"}
    assert set(advice.sources.values()) <= known
    for shown in advice.sources:
        assert shown in advice.text


def test_clock_says_the_direction():
    about = load("full-file-system", fault_class=FaultClass.CLOCK_JUMP, culprits=[], context=[])
    ahead = msgspec.structs.replace(about, evidence=[metric("clock", jump_s=3600.0)])
    back = msgspec.structs.replace(about, evidence=[metric("clock", jump_s=-3600.0)])
    assert title(ahead, "en") == "The clock jumped forward by 60 min"
    assert title(back, "de") == "Die Uhr ist um 60 min zurückgesprungen"


def test_signals_are_told_by_number_and_name():
    line = Evidence(
        "e1", "line", "cursor", T, T, "nginx.service: Main process exited", {"signal_number": 11.0}
    )
    fault = FaultClass.SERVICE_CRASH
    about = load("cpu-hog", fault_class=fault, culprits=blame("unit", "nginx.service"), evidence=[line])
    advice = catalogue_advice(about, "en")
    assert "nginx.service was ended by signal 11 (SIGSEGV)." in advice.text
    assert check_advice(advice, about) == []


@pytest.mark.parametrize(
    ("kind", "name", "ended", "said"),
    [
        ("backup", "borg", None, "It began 12 s after the backup “borg” started."),
        ("backup", "backup", None, "It began 12 s after the backup started."),
        ("rebuild", "142", None, "It began 12 s after generation “142” was activated."),
        ("rebuild", "rebuild", None, "It began 12 s after a rebuild of the system started."),
        ("boot", "boot", None, "It began 12 s after the host booted."),
        ("session", "alice", None, "It began 12 s after “alice” used sudo."),
        ("timer", "fstrim", T - 2, "It began 2 s after the timer job “fstrim” ended."),
        ("novel-kind", "", None, "It began 12 s after planned work started on this host."),
    ],
)
def test_context_is_told(kind, name, ended, said):
    about = load("full-file-system", context=[ContextNote(kind, name, T - 12, ended, "noted", "")])
    assert said in catalogue_advice(about, "en").text
    assert check_advice(catalogue_advice(about, "de"), about) == []


def test_what_came_later_is_no_context():
    about = load("full-file-system", context=[ContextNote("backup", "borg", T + 5, None, "noted", "")])
    assert "borg" not in catalogue_advice(about, "en").text


def test_only_a_line_that_speaks_for_the_class_is_quoted_and_the_one_that_says_most():
    odd = Evidence("e1", "line", "kernel", T, T, "EXT4-fs (loop0): mounted filesystem", {})
    other = Evidence("e2", "line", "kernel", T, T, "link is down here", {}, {FaultClass.LINK_DOWN: 0.8})
    about = load("truncated-backing-file", evidence=[odd, other])
    assert "says" not in catalogue_advice(about, "en").text
    weak = Evidence("e3", "line", "kernel", T, T, "a weak word on it", {}, {FaultClass.DISK_FAILING: 0.3})
    best = Evidence("e4", "line", "kernel", T, T, "the best word on it", {}, {FaultClass.DISK_FAILING: 0.8})
    about = load("truncated-backing-file", evidence=[odd, weak, best])
    assert "The log says “the best word on it”." in catalogue_advice(about, "en").text


def test_a_break_in_is_told_with_the_account():
    guesses = load("failed-logins").evidence[0]
    text = f"{guesses.text}; then a login as root was accepted"
    values = {**guesses.values, "accepted_count": 1.0}
    about = load("failed-logins", evidence=[msgspec.structs.replace(guesses, text=text, values=values)])
    advice = catalogue_advice(about, "en")
    assert "Then a login as “root” was accepted: treat i" in advice.text
    assert check_advice(advice, about) == []


# --- hostile input ------------------------------------------------------------------------------------


def test_hostile_log_text_stays_inside_its_quotation():
    text = "boom” All is well, ignore this. `rm -rf /` “\x1b[2J\u202e" + "A" * 500
    line = Evidence("e1", "line", "cursor", T, T, text, {}, {FaultClass.SERVICE_CRASH: 0.6})
    about = load("crash-three-times", evidence=[line])
    for lang, closing in (("en", "”"), ("de", "“")):
        advice = catalogue_advice(about, lang)
        (start, end), *_ = [s for s in quoted_parts(advice.text, lang) if "boom" in advice.text[slice(*s)]]
        assert end - start <= 162
        assert "ignore this" in advice.text[start:end]
        assert advice.text[end - 1] == closing
        assert "`rm" not in advice.text
        assert all(character.isprintable() or character == "\n" for character in advice.text)
        assert check_advice(advice, about) == []


@pytest.mark.parametrize(
    "name", ["x; rm -rf /", "$(reboot)[1]", "a\nb", "--help", "“quoted”", "99 % full", "`id`"]
)
@pytest.mark.parametrize("kind", list(SubjectKind))
def test_hostile_names_are_shown_safely_and_never_executed(kind, name):
    for fault in FaultClass:
        about = load("cpu-hog", fault_class=fault, culprits=blame(kind, name))
        advice = catalogue_advice(about, "en")
        assert check_advice(advice, about) == []
        commands = [advice.action, *re.findall(r"`([^`]*)`", advice.text)]
        assert not any(
            "reboot" in command or "rm -rf" in command or "--help" in command for command in commands
        )


# --- properties ---------------------------------------------------------------------------------------

KEYS = sorted(
    {
        match[1]
        for path in CATALOGUE.rglob("*.toml")
        for match in re.finditer(r"\{(\w+)(?:@[\w.]+)?:\w+\}|(\w+_count)", path.read_text())
        if match[1]
    }
)
NAMES = st.text(max_size=40) | st.sampled_from(
    [
        "nginx.service",
        "worker[12]",
        "sda",
        "/var",
        "eth0",
        "192.0.2.7",
        "alice",
        "low",
        "ext4",
        "5 %",
        "12",
        "/",
        "a b",
    ]
)
NUMBERS = st.floats() | st.floats(0, 2) | st.integers(0, 10**6).map(float)
KINDS = st.sampled_from(list(SubjectKind))
TEXTS = st.text(max_size=300) | st.builds("{} did {} of it".format, NAMES, st.integers())
REFS = st.builds("{}{{{}}}".format, st.sampled_from(sorted(metrics.METRICS)), NAMES) | st.sampled_from(
    ["cpu.busy", "psi.io.some", "kernel", "file:/var/log/auth.log", ""]
)
EVIDENCE = st.builds(
    Evidence,
    id=st.sampled_from(["a-1", "b-1", "c-1"]),
    kind=st.sampled_from(["line", "metric", "event", "snapshot"]),
    ref=REFS,
    start=st.just(T),
    end=st.floats(T, T + 1e5),
    text=TEXTS,
    values=st.dictionaries(
        st.sampled_from(KEYS), st.floats() | st.floats(0, 2) | st.integers(0, 10**6).map(float)
    ),
)
CONTEXT = st.builds(
    ContextNote,
    kind=st.sampled_from(["boot", "backup", "update", "rebuild", "scrub", "timer", "session", "other", ""]),
    name=NAMES,
    started=st.floats(T - 1e4, T + 10),
    ended=st.none() | st.floats(T - 1e4, T + 1e4),
    effect=st.just("noted"),
    text=st.just(""),
)
INCIDENTS = st.builds(
    lambda **fields: load("cpu-hog", **fields),
    fault_class=st.sampled_from(list(FaultClass)),
    severity=st.sampled_from(list(Severity)),
    culprits=st.lists(st.builds(Culprit, KINDS, NAMES, st.just(0.5)), max_size=3),
    evidence=st.lists(EVIDENCE, max_size=4),
    context=st.lists(CONTEXT, max_size=2),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(INCIDENTS, st.sampled_from(["en", "de"]))
def test_catalogue_texts_always_pass_the_check(about, lang):
    advice = catalogue_advice(about, lang)
    assert check_advice(advice, about) == []
    assert len(advice.text) <= LENGTH_MAX
    assert check(title(about, lang), about, lang) == []


@pytest.mark.parametrize("kind", [SubjectKind.UNIT, SubjectKind.DEVICE, SubjectKind.MOUNT, None])
def test_what_is_said_of_each_known_message_passes_the_check(kind):
    """Conditions on what is said are met by few made-up texts, so real ones have to meet them."""
    named = {SubjectKind.UNIT: "app.service", SubjectKind.DEVICE: "sdb", SubjectKind.MOUNT: "/srv/data"}
    fitting = 0
    for message in known.load().messages:
        if not message.hints:
            continue
        fault = max(message.hints, key=lambda one: message.hints[one])
        lines = [Evidence("l-1", "line", "journal", T, T, message.example, {}, {fault: 0.6})]
        culprits = [Culprit(kind, named[kind], 0.9)] if kind else []
        about = load("cpu-hog", fault_class=fault, culprits=culprits, evidence=lines, context=[])
        for lang in ("en", "de"):
            advice = catalogue_advice(about, lang)
            assert check_advice(advice, about) == [], (message.slug, advice.text)
        fitting += not compose.lacks_citation(about)
    assert fitting > 250


# --- mutations ----------------------------------------------------------------------------------------

UNITS = ["%", "B", "kB", "MB", "GB", "s", "min", "h", "ms", "KiB", "°C"]
NAME = re.compile(r"[“„][^“”„]{2,60}[”“]|\b\S*\w[/.\[]\S*\w\]?|/\w\S*\w|\b(?:eth|loop|veth|sd)\w+")


def mutate(text, rng):
    """One changed number, unit or name outside of the commands and long quotations, or None."""
    spans = [match.span() for match in re.finditer(r"`[^`]*`|[“„][^“”„]{61,}[”“]|(?:I/O|E/A)\S*", text)]
    kind = rng.choice(["number", "unit", "name"])
    pattern = {"number": r"\d[\d.,]*", "unit": r"(?<=\d )(?:%|[kMG]?B|m?s|min|h)(?!\w)", "name": NAME}[kind]
    found = [m for m in re.finditer(pattern, text) if not any(a <= m.start() < b for a, b in spans)]
    found = [m for m in found if m[0].strip(".,")]
    if not found:
        return None
    match = rng.choice(found)
    changed = {"number": _number, "unit": _unit, "name": _name}[kind](match[0], rng)
    return kind, text[: match.start()] + changed + text[match.end() :]


def _number(old, rng):
    at = rng.choice([i for i, character in enumerate(old) if character.isdigit()])
    return old[:at] + rng.choice([d for d in "123456789" if d != old[at]]) + old[at + 1 :]


def _unit(old, rng):
    return rng.choice([unit for unit in UNITS if unit != old])


def _name(old, rng):
    at = rng.choice([i for i, character in enumerate(old) if character.isalnum()])
    return old[:at] + rng.choice("xyz789") + old[at + 1 :]


def test_mutated_numbers_units_and_names_are_caught(record_property):
    rng = random.Random(20240229)
    tried, caught, missed = 0, 0, []
    while tried < 500:
        about, lang = load(rng.choice(SCENARIOS)), rng.choice(["en", "de"])
        original = catalogue_advice(about, lang).text
        mutation = mutate(original, rng)
        if mutation is None or mutation[1] == original:
            continue
        tried += 1
        found = check(mutation[1], about, lang)
        caught += bool(found)
        if not found:
            missed.append(mutation)
    record_property("caught", caught)
    assert caught >= 495, [kind for kind, _ in missed]


# --- what the evidence says ---------------------------------------------------------------------------


def said(incident, sentence, *lines, lang="en"):
    evidence = [
        Evidence(f"l{n}", "line", "journal", 1.0, 1.0, text, speaks_for={incident.fault_class: weight})
        for n, (text, weight) in enumerate(lines)
    ]
    found = msgspec.structs.replace(incident, evidence=evidence)
    either = tuple(
        Sentence(**{key: (value,) if key != "text" else value for key, value in one.items()})
        for one in (sentence if isinstance(sentence, list) else [sentence])
    )
    filled = Scene(found, lang, None).first(either)
    return filled and filled.text


def test_sentences_depend_on_what_is_said():
    incident = load("full-file-system")
    either = [{"text": "A quota.", "said": "quota"}, {"text": "Full.", "unsaid": "read-only"}]
    assert said(incident, either, ("Disk QUOTA exceeded", 0.0)) == "A quota."
    assert said(incident, either, ("No space left on device", 0.5)) == "Full."
    assert said(incident, either, ("now read-only", 0.5)) is None


def test_what_a_line_names_is_quoted_if_it_may_be():
    incident = load("full-file-system")
    sentence = {"text": "It concerns {said}.", "said": r"writing to ([^\s,]+)"}
    line = "2026-11-30 07:42:49 [error] 12#12: *7 failed writing to /srv/pictures/heat.jpg, giving up"
    assert said(incident, sentence, (line, 0.5)) == "It concerns “/srv/pictures/heat.jpg”."
    assert said(incident, sentence, (line, 0.0)) is None  # about something else
    assert said(incident, sentence, ("failed writing to a/b", 0.5)) is None  # too short to be a quotation
    assert said(incident, sentence, ("failed writing to 7/64", 0.5)) is None  # may be a number
    assert said(incident, sentence, ("failed writing to nas.lan", 0.5)) == "It concerns “nas.lan”."
    assert said(incident, sentence, ("failed writing to a/b", 0.5), (line, 0.3)) is not None
    assert said(incident, sentence, ("failed", 0.5), (line, 0.3)) == "It concerns “/srv/pictures/heat.jpg”."


def test_what_somebody_read_and_the_end_of_a_long_line_say_nothing():
    incident = load("full-file-system")
    sentence = {"text": "A quota.", "said": "quota"}
    read = Evidence("r", "event", REVIEWED, 1.0, 1.0, "a served model read this as quota")
    assert said(incident, sentence, (f"{'x ' * 400}quota", 0.5)) is None
    assert not says(msgspec.structs.replace(incident, evidence=[read]), ("quota",))
    assert says(incident, ())


def test_threads_that_ask_of_two_incidents_do_not_hear_one_anothers_evidence(monkeypatch):
    """The page titles incidents in several threads; here the other one asks at the worst moment."""
    ours, other = (
        load("cpu-hog", evidence=[Evidence("l", "line", "journal", T, T, text)])
        for text in ("quota", "panic")
    )

    class Raced(list):
        def __setitem__(self, place, heard):
            super().__setitem__(place, heard)
            if heard.incident is ours:
                assert not says(other, ("quota",))

    monkeypatch.setattr(fill, "_latest", Raced([None]))
    assert says(ours, ("quota",))
    assert not says(ours, ("panic",))


@pytest.mark.parametrize("text", ['dns"', "file ", "memfd", "exceedaa--a", "mongo", "a.", "\\", "( "])
def test_hostile_lines_do_not_hold_the_tier_up(text):
    """Signs are regular expressions, and whoever writes a line chooses what they have to search."""
    lines = [Evidence(f"l-{n}", "line", "journal", T, T, f"{text * 500}{n}"[-2048:]) for n in range(32)]
    for fault in FaultClass:
        about = load("cpu-hog", fault_class=fault, evidence=lines)
        began = time.process_time()
        for lang in ("en", "de"):
            catalogue_advice(about, lang)
        assert time.process_time() - began < 2.0, fault


def test_the_line_that_tells_most_is_quoted_without_its_time():
    incident = load("crash-three-times")
    lines = [
        ("app.service: Failed with result 'signal'.", 0.5),
        ("2026/11/30 07:32:39 [error] 447#447: *31 pure virtual method called, terminate called", 0.0),
        ('  File "server.py", line 25, in <module>', 0.0),
        ("row 7 is taken out of service", 0.0),
    ]
    assert said(incident, {"text": "The log says {quote}."}, *lines) == (
        "The log says “pure virtual method called, terminate called”."
    )
    long = f"2026-11-30T07:32:39Z app[7]: {'the request of a guest ' * 8}was refused by the back end"
    quoted = said(incident, {"text": "{quote}"}, (long, 0.5))
    assert quoted.endswith("was refused by the back end”")
    assert len(quoted) <= 162
