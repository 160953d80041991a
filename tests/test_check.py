"""The fact check: what evidence holds passes, all else is named, and no hostile name becomes a command."""

import shlex
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.advice.actions import allowed, render
from daemon.advice.check import LENGTH_MAX, check, check_action, check_advice
from daemon.advice.compose import catalogue_advice
from daemon.advice.formats import FORMATS, parse, write
from daemon.advice.subjects import argument
from daemon.messages import Advice, ContextNote, Culprit, Evidence, Incident
from models.taxonomy import FaultClass, SubjectKind

FIXTURES = Path(__file__).parent / "fixtures/advice"
T = 1_700_000_000.0


def incident(name="full-file-system", **changes):
    found = msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes(), type=Incident)
    return msgspec.structs.replace(found, **changes)


def blamed(kind, name):
    return incident(culprits=[Culprit(SubjectKind(kind), name, 0.9)], evidence=[], context=[])


def with_values(**values):
    return incident(evidence=[Evidence("e1", "metric", "fs.used{/mnt/small}", T, T, "", values)], context=[])


def wrong(text, lang="en", about=None):
    return [violation.part for violation in check(text, about or incident(), lang)]


# --- numbers and units --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("en", "It is 100 % full, 0 B of 8.4 MB are free."),
        ("en", "It is 100% full, 8.39 MB in all, that is 8 MiB or 8192 KiB or 8388608 bytes."),
        ("en", "It holds 8,388,608 bytes."),
        ("de", "Es ist zu 100 % voll, 0 B von 8,4 MB sind frei, genau 8.388.608 Bytes."),
        ("en", "It began 12 s after the backup “borg” started."),
        ("de", "Es begann 12 Sekunden nach dem Start der Sicherung „borg“."),
    ],
)
def test_numbers_of_the_evidence_pass_in_any_unit(lang, text):
    assert wrong(text, lang) == []


@pytest.mark.parametrize(
    ("lang", "text", "part"),
    [
        ("en", "It is 99 % full.", "99 %"),
        ("en", "0 B of 8.4 GB are free.", "8.4 GB"),
        ("en", "0 B of 8.5 MB are free.", "8.5 MB"),
        ("en", "0 B of 8.4 MiB are free.", "8.4 MiB"),
        ("en", "It took 8.4 s.", "8.4 s"),
        ("en", "There are 100 errors.", "100"),
        ("en", "It is 100 degrees hot.", "100 degrees"),
        ("en", "It will take 12 years.", "12 years"),
        ("en", "8,4 MB are free.", "8,4"),
        ("de", "8.4 MB sind frei.", "8.4"),
        ("de", "Es begann vor 13 Minuten.", "13 Minuten"),
        ("en", "Three programs fail.", "Three"),
        ("de", "Es geschah zweimal.", "zweimal"),
        ("en", "It moved at 12 MB/s.", "12 MB/s"),
        ("en", "Version 2.4.1 is broken.", "2.4.1"),
        ("en", "It began at 03:15.", "03:15"),
    ],
)
def test_numbers_without_evidence_are_named(lang, text, part):
    assert part in wrong(text, lang)


@pytest.mark.parametrize(
    ("value", "printed", "passes"),
    [
        (0.123, "12 %", True),
        (0.123, "12.3 %", True),
        (0.123, "12.4 %", False),
        (0.126, "12 %", False),
        (0.996, "100 %", True),  # a model may round; the catalogue prints 99.6 %
        (0.99, "100 %", False),
    ],
)
def test_rounding_is_as_coarse_as_the_printed_digits(value, printed, passes):
    assert (wrong(f"It is {printed} full.", about=with_values(used_ratio=value)) == []) is passes


def test_counts_are_exact():
    about = with_values(failures_count=24.0)
    assert wrong("It failed 24 times.", about=about) == []
    assert wrong("It failed 25 times.", about=about) == ["25"]
    assert wrong("It failed 24 s long.", about=about) == ["24 s"]


def test_spelled_number_passes_where_the_evidence_counts_it():
    assert wrong("It failed three times.", about=with_values(failures_count=3.0)) == []


def test_constants_count_only_for_their_class():
    about = incident("cpu-hog", fault_class=FaultClass.AUTH_BRUTEFORCE)
    assert wrong("SSH listens on port 22.", about=about) == []
    assert wrong("SSH listens on port 22.") == ["22"]


@example(711348747796800.0, "duration", "de")  # grouped by points, its days would read as an IPv4 address
@given(
    st.floats(0, 1e15),
    st.sampled_from([kind for kind in FORMATS if kind not in {"celsius", "signal"}]),
    st.sampled_from(["en", "de"]),
)
def test_what_is_written_is_read_back_within_its_own_rounding(value, kind, lang):
    keys = {
        "percent": "a_ratio",
        "bytes": "a_bytes",
        "memory": "a_bytes",
        "duration": "a_s",
        "rate": "a_per_s",
    }
    text = write(value, kind, lang)
    quantity = parse(text, 0, lang)
    assert quantity is not None
    assert quantity.end == len(text)
    assert wrong(f"So {text}.", lang, with_values(**{keys.get(kind, "a_count"): value})) == []


@given(st.floats(0.0, 1.0))
def test_percent_never_rounds_to_all_or_nothing(value):
    text = write(value, "percent", "en")
    if 1e-6 < value < 1 - 1e-6:
        assert text not in {"0 %", "100 %"}


# --- names and quotations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "/mnt/small is full.",
        "“borg” was running.",
    ],
)
def test_known_names_pass(text):
    assert wrong(text) == []


@pytest.mark.parametrize(
    "name",
    [
        "/mnt/large",
        "nginx.service",
        "sdb",
        "nvme0n1",
        "eth0",
        "192.0.2.7",
        "2001:db8::1",
        "python3",
        "worker[12]",
        "example.org",
        "alice@host",
        "some_name",
        "--force",
    ],
)
def test_unknown_names_are_named(name):
    assert name in wrong(f"It is {name} that did it.")


@pytest.mark.parametrize("quoted", ["alice", "5 errors in 3 s", "borg started", "or"])
def test_a_quotation_must_be_a_name_or_a_log_line(quoted):
    assert wrong(f"It was “{quoted}”.") == [quoted]


def test_log_lines_may_be_quoted_in_stretches_but_not_altered():
    about = incident("truncated-backing-file")
    assert wrong("It says “I/O error, dev loop3, sector 8192”.", about=about) == []
    assert wrong("It says “I/O error, dev loop3, sector 819”.", about=about) != []
    assert wrong("It says “I/O error, dev loop4, sector 8192”.", about=about) != []


def test_numbers_and_names_of_a_log_line_do_not_pass_outside_of_quotation_marks():
    about = incident("truncated-backing-file")
    assert wrong("It has flags 0x80700.", about=about) == ["0x80700"]
    assert wrong("There is 1 segment.", about=about) == ["1"]


@pytest.mark.parametrize("text", ["“borg", "borg”", "`df -h", "«borg»"])
def test_stray_quotation_marks_do_not_pass(text):
    assert wrong(text) != []


# --- commands -----------------------------------------------------------------------------------------


def test_only_commands_of_the_allow_list_pass_in_the_text():
    assert wrong("Look: `df -i /mnt/small`") == []
    assert wrong("Look: `df -i /mnt/large`") == ["df -i /mnt/large"]
    assert wrong("Look: `rm -rf /mnt/small`") == ["rm -rf /mnt/small"]


def test_action_must_be_allowed_and_read_only():
    about = incident("cpu-hog")
    assert check_action("", about) == []
    assert check_action(render("process", about), about) == []
    assert check_action("kill 812", about)[0].reason == "alters the host"
    assert check_action("reboot", about) != []
    assert check_action(render("process", about) + "; reboot", about) != []


HOSTILE = [
    "x; rm -rf /",
    "$(reboot)",
    "`reboot`",
    "--help",
    "-rf",
    "a\nb",
    "a\x1b[31mb",
    "a b",
    "a|b",
    "a&b",
    "a'b",
    'a"b',
    "../etc",
    "\u202egnp.exe",
    "",
    "a\x00b",
    "fe80::1%$(reboot)",
    "x.service; reboot",
    "[812]; reboot",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", list(SubjectKind))
def test_hostile_names_never_become_arguments(kind, name):
    assert argument(kind, name) is None
    commands = allowed(blamed(kind, name))
    assert commands.keys() == allowed(blamed("host", "")).keys()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("unit", "nginx.service", "nginx.service"),
        ("unit", r"dev-disk-by\x2duuid-1.device", r"'dev-disk-by\x2duuid-1.device'"),
        ("process", "worker[812]", "812"),
        ("process", "$(reboot)[812]", "812"),
        ("device", "nvme0n1p2", "nvme0n1p2"),
        ("mount", "/srv/my data", "'/srv/my data'"),
        ("mount", "/srv/$(reboot)", "'/srv/$(reboot)'"),
        ("mount", "/srv/a'b; rm -rf /", "'/srv/a'\"'\"'b; rm -rf /'"),
        ("interface", "eth0.10", "eth0.10"),
        ("address", "2001:db8::7", "2001:db8::7"),
        ("user", "alice", "alice"),
    ],
)
def test_good_names_become_one_shell_word(kind, name, value):
    assert argument(SubjectKind(kind), name)[1] == value


@given(st.sampled_from(list(SubjectKind)), st.text(max_size=60) | st.text("/a-.;$`'\" \n", max_size=20))
def test_every_argument_is_one_printable_shell_word_without_a_leading_dash(kind, name):
    found = argument(kind, name)
    if found is not None:
        words = shlex.split(found[1])
        assert len(words) == 1
        assert not words[0].startswith("-")
        assert found[1].isprintable()
        assert "`" not in found[1]


def test_arguments_never_come_from_log_text():
    line = Evidence("e1", "line", "cursor", T, T, "device sdz failed on /secret by mallory[77]")
    assert not any("sdz" in c or "/secret" in c or "77" in c for c in allowed(incident(evidence=[line])))


def test_no_other_programs_process_stands_in_for_one_without_a_pid():
    nameless = Culprit(SubjectKind.PROCESS, "bomb", 0.9)
    other = Culprit(SubjectKind.PROCESS, "burner[812]", 0.5)
    storm = incident("fork-storm", culprits=[nameless, other])
    assert not any("812" in command for command in allowed(storm))
    told = catalogue_advice(storm, "en")
    assert "812" not in told.text + told.action
    its_own = Culprit(SubjectKind.PROCESS, "bomb[77]", 0.6)
    known = incident("fork-storm", culprits=[nameless, other, its_own])
    assert "`kill -STOP 77`" in catalogue_advice(known, "en").text


def test_commands_follow_the_log_they_ask():
    about = incident("cpu-hog")
    assert render("log-recent", about).startswith("journalctl")
    kernel = Evidence("e1", "line", "kernel", T, T, "something")
    assert render("log-recent", incident(evidence=[kernel])).startswith("dmesg")
    file = Evidence("e1", "line", "file:/var/log/my log", T, T, "something")
    assert render("log-recent", incident(evidence=[file])) == "tail -n 100 '/var/log/my log'"


# --- the whole advice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lang", "text"),
    [("en", "It takes most of the processor time."), ("de", "Es nimmt den größten Teil der Rechenzeit.")],
)
def test_most_of_the_processor_is_more_than_half_of_all_cores(lang, text):
    [claim] = wrong(text, lang, with_values(cpu_cores=0.5, cores_count=2.0))
    assert "processor" in claim or "Rechenzeit" in claim
    assert wrong(text, lang, with_values()) == [claim]
    assert wrong(text, lang, with_values(cpu_cores=1.2, cores_count=2.0)) == []


def test_empty_and_endless_texts_are_refused():
    assert check_advice(Advice(" ", "en", "model"), incident()) != []
    assert check_advice(Advice("a " * LENGTH_MAX, "en", "model"), incident()) != []


def test_unfinished_context_gives_its_gap_and_a_finished_one_the_gap_to_its_end():
    over = ContextNote("backup", "borg", T - 60, T - 7, "noted", "")
    assert wrong("It began 7 s after it.", about=incident(context=[over])) == []
    assert wrong("It began 60 s after it.", about=incident(context=[over])) == ["60 s"]
