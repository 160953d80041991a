"""The operator's page over real HTTP: what it shows, who may answer, log text that never becomes markup."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from daemon import config as configuration
from daemon.errors import ConfigError
from daemon.messages import Advice, Culprit, KeepAdvice, KeepFeedback, KeepSilence, Line, Sample, Stamp
from daemon.settings import Web
from daemon.silences import quieting
from daemon.store.reader import StoreReader
from daemon.store.segments import SegmentWriter
from daemon.store.writer import StoreWriter
from daemon.web import data, lines, series
from daemon.web.guard import WRONG_AT_ONCE
from daemon.web.serve import bound, password_of
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.fixtures.live import append, live, logins
from tests.fixtures.pages import HOSTILE, NOW, Page, incident
from tests.fixtures.web import Browser, served
from tests.lab.runner import wait_until

PAGES = ("/", "/now", "/incidents", "/incidents/abc2345", "/metrics", "/templates", "/silences", "/models",
         "/feedback")  # fmt: skip

HANDED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
from daemon.__main__ import main
sys.argv = ["hauswart", "--config", sys.argv[2], "--state-dir", sys.argv[3], "web"]
sys.exit(main())
"""


def said(second, text, unit="web.service", priority=6):
    return Line(Stamp("b", second, NOW - 3000 + second), "journal", text, priority, unit)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A state directory with incidents, advice, feedback, silences and an hour of telemetry."""
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    (tmp_path / "hauswart.toml").touch()
    state = tmp_path / "state"
    state.mkdir()
    older = incident(
        "zzz2345", state="closed", severity=Severity.WARNING, opened_at=NOW - 9000, updated_at=NOW - 8900,
        closed_at=NOW - 8900, evidence_at=NOW - 9001,
    )  # fmt: skip
    with StoreWriter(state / "store.db") as writer:
        writer.save([incident(), older], [])
        for lang, text in (("en", "/srv is nearly full."), ("de", "/srv ist fast voll.")):
            writer.keep(KeepAdvice("abc2345", 1, [Advice(text, lang, "catalogue", "du -xh /srv")]))
        writer.keep(KeepFeedback("zzz2345", "good", "anna", NOW - 500, comment="indeed"))
        writer.keep(
            KeepSilence("5abc1e", "disk-full", "/tmp*", NOW - 100, None, "daily 02:00-04:00", "known", "anna")
        )
    writer = SegmentWriter(state / "telemetry", 14, 512)
    for second in range(0, 3000, 10):
        stamp = Stamp("b", float(second), NOW - 3000 + second)
        writer.write([Sample(stamp, "host", {"fs.used{/srv}": 0.5 + second / 6500, "cpu.busy": 0.1})], stamp)
    writer.close()
    return configuration.load(tmp_path / "hauswart.toml", state_dir=state)


@pytest.fixture
def browser(settings):
    with served(settings) as port:
        yield Browser(port)


def store(settings):
    return StoreReader(settings.store)


# --- what is shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("lang", ["en", "de"])
def test_page_is_whole_in_both_languages_and_small(browser, path, lang):
    browser.get(f"/language/{lang}")
    answer = browser.get(path)
    assert answer.status == 200, answer.text
    assert len(answer.text) < 200_000
    if path != "/now":
        assert f'<html lang="{lang}">' in answer.text
        assert answer.text.count("<h1") == 1
    assert "{{" not in answer.text


def test_first_page_says_what_is_wrong_and_links_to_it(browser):
    page = Page(browser.get("/").text)
    assert "1 open incident" in page.said
    assert "/srv is nearly full." in page.said
    assert "/incidents/abc2345" in [attrs.get("href") for _, attrs in page.tags]
    assert "The daemon is not running" in page.said


def test_incident_page_has_all_that_is_known(browser):
    page = Page(browser.get("/incidents/abc2345").text)
    for text in (
        "/srv is nearly full.",
        "du -xh /srv",
        "1 MB of 100 MB",
        "a backup ran",
        "opened as",
        "Earlier ones",
    ):
        assert text in page.said, text
    assert "polyline" in [tag for tag, _ in page.tags]
    assert "/incidents/zzz2345" in [attrs.get("href") for _, attrs in page.tags]


def test_beginning_of_an_id_leads_to_the_incident_and_an_unknown_one_is_a_404(browser):
    answer = browser.get("/incidents/abc")
    assert (answer.status, answer.getheader("location")) == (307, "/incidents/abc2345")
    assert browser.get("/incidents/nothere").status == 404
    assert browser.get("/incidents/..%2f..%2fetc").status == 404


def test_history_is_searched_by_word_class_severity_and_days(browser):
    def found(query):
        return set(re.findall(r'href="/incidents/(\w{7})"', browser.get(f"/incidents?{query}").text))

    assert found("days=30") == {"abc2345", "zzz2345"}
    assert found("severity=error") == {"abc2345"}
    assert found("class=link-down") == set()
    assert found("q=%2Fsrv&days=30") == {"abc2345", "zzz2345"}
    assert found("q=nonsense") == set()
    assert found("days=zero&class=%00&severity=x") == {"abc2345", "zzz2345"}


def test_course_of_a_metric_has_its_band_and_few_points(browser, settings):
    found = json.loads(browser.get("/series?name=fs.used%7B%2Fsrv%7D&span=1h").text)
    assert found["unit"] == "ratio"
    assert 100 < len(found["values"]) <= series.POINTS + 1
    assert found["values"] == sorted(found["values"])
    assert found["low"][0] is None
    assert found["low"][50] < found["high"][50]
    assert browser.get("/series?name=no.such").status == 503
    assert json.loads(browser.get("/series?name=cpu.busy&span=99y").text)["name"] == "cpu.busy"


def test_thinned_course_keeps_the_spike():
    values = [0.1] * 5000
    values[1234] = 0.9
    times = [NOW + n for n in range(5000)]
    low, high = series.band(times, values, 0.01)
    found = series.thinned(series.Course("cpu.busy", "ratio", times, values, low, high))
    assert len(found.values) <= series.POINTS
    assert max(found.values) == 0.9
    assert series.band([NOW], [1.0], 0.01) == ([None], [None])


def test_templates_that_are_new_rare_or_silent(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512)
    told = [said(second, f"tick {second} done") for second in range(0, 1000, 20)]
    told += [said(second, f"served request {second}") for second in range(0, 7200, 30)]
    told += [
        said(500, "certificate renewed for shop.example"),
        said(7000, "disk sdb has gone away", priority=2),
    ]
    for one in sorted(told, key=lambda one: one.at.mono):
        writer.write([one], one.at)
    writer.close()
    found = lines.overview(tmp_path, NOW - 3600, NOW + 4200)
    assert [str(one.template) for one in found.new] == ["disk sdb has gone away"]
    assert [str(one.template) for one in found.rare] == ["certificate renewed for shop.example"]
    assert [one.example for one in found.silent] == ["tick 0 done"]
    assert found.lines == len(told)


def test_of_too_many_lines_the_latest_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LINES_MAX", 200)
    writer = SegmentWriter(tmp_path, 14, 512)
    for second in range(0, 9000, 20):
        writer.write([said(second, f"served request {second}")], said(second, "").at)
    writer.write([said(9000, "disk sdb has gone away", priority=2)], said(9000, "").at)
    writer.close()
    found = lines.overview(tmp_path, NOW - 3600, NOW + 6010)
    assert found.lines == 200
    assert found.since == NOW - 3000 + 9000 - 199 * 20
    assert found.silent == []


def test_damaged_store_is_said_and_not_a_traceback(settings):
    settings.store.write_bytes(b"no store" * 5000)
    with served(settings) as port:
        answer = Browser(port).get("/")
    assert answer.status == 503
    assert "store" in answer.text
    assert "Traceback" not in answer.text


# --- answering -------------------------------------------------------------------------------------------


def test_verdict_is_kept_with_who_gave_it(browser, settings):
    answer = browser.post("/incidents/abc2345/verdict", {"verdict": "good"})
    assert (answer.status, answer.getheader("location")) == (303, "/incidents/abc2345?said=kept")
    with store(settings) as reader:
        assert [(one.verdict, one.user) for one in reader.feedback("abc2345")] == [("good", "web")]
    assert "Kept." in browser.get(answer.getheader("location")).text


def test_bad_verdict_makes_a_silence_that_the_page_removes(browser, settings):
    answer = browser.post("/incidents/abc2345/verdict", {"verdict": "bad"})
    assert answer.getheader("location").endswith("said=kept_silent")
    with store(settings) as reader:
        made = next(one for one in reader.silences() if one.incident_id == "abc2345")
    assert made.id in browser.get("/silences").text
    assert browser.post(f"/silences/{made.id}/remove").status == 303
    with store(settings) as reader:
        assert next(one for one in reader.silences() if one.id == made.id).cancelled


def test_improved_advice_keeps_both_texts_and_an_unchanged_one_nothing(browser, settings):
    browser.post(
        "/incidents/abc2345/verdict", {"verdict": "edit", "improved": "Empty /srv/tmp.\r\nThen wait."}
    )
    with store(settings) as reader:
        (kept,) = reader.feedback("abc2345")
    assert (kept.original, kept.improved) == ("/srv is nearly full.", "Empty /srv/tmp.\nThen wait.")
    answer = browser.post(
        "/incidents/abc2345/verdict", {"verdict": "edit", "improved": "/srv is nearly full."}
    )
    assert answer.getheader("location").endswith("said=unchanged")


def test_snooze_is_a_silence_with_an_end(browser, settings):
    browser.post("/incidents/abc2345/snooze", {"hours": "24"})
    with store(settings) as reader:
        made = next(one for one in reader.silences() if one.reason == "snoozed")
    assert made.end == pytest.approx(time.time() + 86400, abs=30)
    assert made.unit == "/srv"


def test_snooze_of_the_host_leaves_its_units_alone_and_outlasts_a_verdict(browser, settings):
    host = Culprit(SubjectKind.HOST, "", 1.0)
    slow = incident("hhh2345", fault_class=FaultClass.CPU_SATURATION, culprits=[host])
    with StoreWriter(settings.store) as writer:
        writer.save([slow], [])
    browser.post("/incidents/hhh2345/snooze", {"hours": "1"})
    for verdict in ("bad", "good"):
        browser.post("/incidents/hhh2345/verdict", {"verdict": verdict})
    with store(settings) as reader:
        made = [one for one in reader.silences() if one.incident_id == "hhh2345"]
    assert [one.reason for one in made if not one.cancelled] == ["snoozed"]
    assert len(made) == 2
    blamed = changed(slow, culprits=[Culprit(SubjectKind.UNIT, "other.service", 1.0)])
    assert quieting(made, blamed, time.time())  # the same one, of which more is known
    miner = changed(slow, id="mmm2345", culprits=[Culprit(SubjectKind.UNIT, "miner.service", 1.0)])
    assert [bool(quieting(made, one, time.time())) for one in (slow, miner)] == [True, False]


def test_models_page_has_cards_and_the_table_before_and_after(browser, tmp_path):
    page = Page(browser.get("/models").text)
    for text in ("Low tier", "Middle tier", "Top tier", "as shipped", "How it was made small", "as trained"):
        assert text in page.said, text
    assert data.shrinking(str(tmp_path)) == []
    (tmp_path / "manifest.json").write_text('{"metrics": {"shrinking": {"table": [{"detail": 1}]}}}')
    assert data.shrinking(str(tmp_path)) == []


def test_roll_back_that_cannot_be_is_said(browser):
    answer = browser.post("/models/low/rollback")
    assert answer.status == 409
    assert answer.text.strip()
    assert browser.post("/models/..%2fx/rollback").status == 404


# --- who may ---------------------------------------------------------------------------------------------


def untouched(settings):
    with store(settings) as reader:
        return not reader.feedback("abc2345") and not any(
            one.reason == "snoozed" for one in reader.silences()
        )


@pytest.mark.parametrize(
    "change",
    [
        {"token": "x" * 32},
        {"token": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)  # fmt: skip
def test_form_of_another_site_changes_nothing(browser, settings, change):
    for path in ("/incidents/abc2345/verdict", "/incidents/abc2345/snooze"):
        assert browser.post(path, {"verdict": "bad"}, **change).status == 403
    assert untouched(settings)


def test_nothing_is_changed_by_a_get(browser, settings):
    assert browser.get("/incidents/abc2345/verdict?verdict=bad").status == 405
    assert untouched(settings)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", "", "127.0.0.1.evil.example", "["])
def test_name_that_was_made_to_point_here_is_refused(browser, host):
    assert browser.get("/", Host=host).status == 421


def test_names_of_ones_own_are_allowed(settings):
    named = replace(settings, web=Web(hosts=["hw.lan"]))
    with served(named) as port:
        assert Browser(port).get("/", Host="hw.lan").status == 200
        assert Browser(port).get("/", Host=f"localhost:{port}").status == 200
        assert Browser(port).get("/", Host=f"[::1]:{port}").status == 200


def test_read_only_page_shows_no_form_and_takes_none(settings):
    with served(replace(settings, web=Web(read_only=True))) as port:
        browser = Browser(port)
        for path in PAGES:
            assert 'method="post"' not in browser.get(path).text
        for path in ("/incidents/abc2345/verdict", "/incidents/abc2345/snooze", "/silences/5abc1e/remove",
                     "/models/low/rollback"):  # fmt: skip
            assert browser.post(path, {"verdict": "bad"}).status == 403
    assert untouched(settings)


def test_proxy_names_the_user_and_only_operators_answer(settings):
    web = Web(auth="header", operators=["anna"])
    with served(replace(settings, web=web)) as port:
        assert Browser(port).get("/").status == 401
        assert Browser(port, **{"X-Remote-User": "bob"}).get("/").status == 200
        assert Browser(port, **{"X-Remote-User": "bob"}).post("/incidents/abc2345/verdict").status == 403
        anna = Browser(port, **{"X-Remote-User": "anna"})
        assert anna.post("/incidents/abc2345/verdict", {"verdict": "acknowledge"}).status == 303
    with store(settings) as reader:
        assert [one.user for one in reader.feedback("abc2345")] == ["anna"]


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_password_is_asked_for_everywhere_and_checked(settings):
    with served(replace(settings, web=Web(auth="password")), "correct horse") as port:
        for path in (*PAGES, "/static/page.js", "/style.css"):
            assert Browser(port).get(path).status == 401
        assert Browser(port, **basic("anna", "wrong")).get("/").status == 401
        assert Browser(port, Authorization="Basic %%%").get("/").status == 401
        assert Browser(port, **basic("anna", "correct horse")).get("/").status == 200


def test_guesser_has_to_wait_and_only_few_guesses_are_looked_at(settings):
    with served(replace(settings, web=Web(auth="password")), "correct horse") as port:
        started = time.monotonic()
        with ThreadPoolExecutor(WRONG_AT_ONCE) as pool:
            guesses = [
                pool.submit(Browser(port, **basic("eve", f"guess {n}")).get, "/")
                for n in range(WRONG_AT_ONCE)
            ]
            time.sleep(0.4)
            assert Browser(port, **basic("eve", "correct horse")).get("/").status == 429
            assert {one.result().status for one in guesses} == {401}
        assert time.monotonic() - started >= 1.0
        assert Browser(port, **basic("anna", "correct horse")).get("/").status == 200


def test_no_page_for_everybody_without_authentication(settings, tmp_path):
    with pytest.raises(ConfigError, match="not loopback"):
        bound(Web(listen="0.0.0.0:0"))
    with pytest.raises(ConfigError, match=r"No such file"):
        password_of(Web(auth="password", password_file=str(tmp_path / "none")))
    short = tmp_path / "short"
    short.write_text("abc\n")
    with pytest.raises(ConfigError, match="fewer than 8"):
        password_of(Web(auth="password", password_file=str(short)))
    listening, given = bound(Web(listen="0.0.0.0:0", auth="password"))
    assert not given
    listening.close()


def test_inherited_socket_on_a_public_address_is_refused_without_authentication(tmp_path):
    public = socket.create_server(("0.0.0.0", 0))
    config = tmp_path / "hauswart.toml"
    config.touch()
    done = subprocess.run(
        [sys.executable, "-c", HANDED, str(public.fileno()), str(config), str(tmp_path)],
        pass_fds=[public.fileno()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    public.close()
    assert done.returncode == ConfigError.exit_code
    assert "for everybody" in done.stderr


# --- hostile text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_log_text_never_becomes_markup_on_any_page(settings, text):
    hostile = incident(text=text)
    with StoreWriter(settings.store) as writer:
        writer.save([changed(hostile, revision=2)], [])
        writer.keep(KeepAdvice("abc2345", 2, [Advice(text, "en", "model", text)]))
        writer.keep(KeepFeedback("abc2345", "edited", text, NOW, improved=text, comment=text))
        writer.keep(KeepSilence("bad1", "", text, NOW, None, "", text, text))
    writer = SegmentWriter(settings.state / "telemetry", 14, 512)
    for second in range(3):
        line = said(2900 + second, text, unit=text)
        writer.write([line], line.at)
    writer.close()
    with served(settings) as port:
        browser = Browser(port)
        for path in (*PAGES, f"/incidents?q={text[:20].encode().hex()}", "/incidents/abc2345/report"):
            page = Page(browser.get(path).text)
            inline = [attrs for tag, attrs in page.tags if tag == "script" and "src" not in attrs]
            assert not inline, path
            assert not {"img", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}, path
            assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")], path
            links = [attrs.get("href", "") for tag, attrs in page.tags if tag == "a"]
            assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in links), path


def test_search_text_and_messages_are_not_echoed_as_markup(browser):
    answer = browser.get("/incidents?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&said=%3Cb%3E")
    assert "<script>alert" not in answer.text
    assert "<b>" not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/nothing", "/static/page.js"])
def test_every_answer_keeps_itself_to_itself(browser, path):
    answer = browser.get(path)
    policy = answer.getheader("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.getheader("x-frame-options") == "DENY"
    assert answer.getheader("x-content-type-options") == "nosniff"


def test_language_leads_back_to_a_path_of_its_own(browser):
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "/%0d%0aSet-Cookie:x=1"):
        location = browser.get(f"/language/de?back={back}").getheader("location")
        assert location == "/"
    assert browser.get("/language/de?back=/incidents").getheader("location") == "/incidents"


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fserve.py"])
def test_nothing_outside_of_static_is_served(browser, path):
    assert browser.get(path).status == 404


def test_large_form_is_refused(browser, settings):
    assert browser.post("/incidents/abc2345/verdict", {"comment": "x" * 100_000}).status == 413
    assert untouched(settings)


# --- as a process ----------------------------------------------------------------------------------------


def test_command_serves_until_it_is_stopped(settings, tmp_path):
    place = tmp_path / "web.sock"
    arguments = [
        sys.executable,
        "-m",
        "daemon",
        "--state-dir",
        settings.state_dir,
        "web",
        "--listen",
        f"unix:{place}",
    ]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        assert "open incident" in over_unix(place)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.wait()


def test_handed_over_socket_is_served_until_nobody_looks(settings, tmp_path):
    place = tmp_path / "web.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place))
    listening.listen()
    (tmp_path / "idle.toml").write_text("[web]\nidle_s = 5.0\n")
    given = [str(listening.fileno()), str(tmp_path / "idle.toml"), settings.state_dir]
    arguments = [sys.executable, "-c", HANDED, *given]
    process = subprocess.Popen(arguments, pass_fds=[listening.fileno()])
    assert "open incident" in over_unix(place)
    began = time.monotonic()
    assert process.wait(30) == 0
    assert time.monotonic() - began > 4.0
    again = subprocess.Popen(arguments, pass_fds=[listening.fileno()])  # as systemd does at the next request
    assert "open incident" in over_unix(place)
    again.terminate()
    again.wait(15)


def over_unix(place, path="/", seconds=15.0):
    """The text of a page over a unix socket, once somebody serves it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(seconds)
                link.connect(str(place))
                link.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                data = b""
                while chunk := link.recv(65536):
                    data += chunk
                return data.decode()
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.1)
    raise AssertionError(f"nobody serves {place}")


def test_style_and_scripts_load_nothing_from_elsewhere():
    for path in Path(series.__file__).parent.glob("static/*"):
        text = path.read_text()
        found = re.findall(r"""(?:src|href|url|import)\s*[=(:]?\s*["'(]?(https?:)?//[\w.]+""", text)
        assert not found, path


# --- under load ---------------------------------------------------------------------------------------------


def look_at(port, path, each_s, until):
    """One looker, who asks again and again; gives how long each answer took, None where there was none."""
    browser, took = Browser(port), []
    while (began := time.monotonic()) < until:
        try:
            took.append(time.monotonic() - began if browser.get(path).status == 200 else None)
        except OSError:
            took.append(None)
        time.sleep(max(0.0, each_s - (time.monotonic() - began)))
    return took


@pytest.mark.slow
def test_fifty_looks_a_second_are_answered_and_the_tiers_go_on(tmp_path):
    log = tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)]) as found:
        seen = configuration.load(tmp_path / "hauswart.toml", state_dir=found.state_dir)
        time.sleep(6.0)  # past the learning
        with served(seen) as port, ThreadPoolExecutor(50) as crowd:
            until = time.monotonic() + 8.0
            paths = ["/now"] * 40 + ["/", "/incidents"] * 5
            lookers = [crowd.submit(look_at, port, path, 1.0, until) for path in paths]
            time.sleep(3.0)
            append(log, logins("192.0.2.7"))
            began = time.monotonic()
            assert wait_until(lambda: found.found("auth-bruteforce", "192.0.2.7"), 10)
            delay_s = time.monotonic() - began
            took = [one for looker in lookers for one in looker.result()]
        lost = [flow.gap for stage in ("low", "middle") for edge in found.status(stage).flows.values()
                for flow in edge.values()]  # fmt: skip
    assert None not in took
    p95 = sorted(took)[int(0.95 * len(took))]
    print(f"{len(took)} looks: p95 {p95 * 1000:.0f} ms; an incident meanwhile after {delay_s:.1f} s")
    assert len(took) > 300
    assert p95 < 1.0
    assert delay_s < 5.0  # the budget's p95
    assert sum(lost) == 0
