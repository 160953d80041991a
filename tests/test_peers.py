"""Other watchers beside hauswart: what they answer, who is left out, and the one table over the same runs."""

import hashlib
import json
import os
import re
import time
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from daemon.errors import ConfigError
from tests.fixtures import lab_runs
from tests.fixtures.lab_runs import WALL, said, verdict
from tests.lab import answers, commands, container, report, tables
from tests.lab.answers import Alert
from tests.lab.comparison import ERRORS_ONLY, HAUSWART, compare, names_culprit, raised
from tests.lab.peers import INTERVAL_S, NAMES, beside, chosen, netdata_settings
from tests.lab.rules import read_rules
from tests.lab.said import heard_since
from tests.lab.scenario import find, runs
from tests.lab.verdict import Peer, judge

ANSWERS = Path(__file__).parent / "fixtures" / "lab-peers"


def answer(name):
    return (ANSWERS / name).read_text()


# --- what they answer: recorded from the real programs ------------------------------------------------------


def test_netdata_raises_at_warning_or_critical_and_clears_at_neither():
    clock, load, space = answers.netdata(answer("netdata-alarm-log.json"))
    assert (clock.name, clock.at, clock.cleared_at) == ("system_clock_sync_state", 1795796262.0, None)
    assert (load.name, load.severity, load.cleared_at) == ("load_average_5", "warning", 1795796482.0)
    assert (space.at, space.severity, space.cleared_at) == (1795796487.0, "critical", 1795796547.0)
    assert "/mnt/scratch" in space.text
    assert "&#x2F;" not in space.text


def test_netdata_alarm_that_gets_worse_is_one_alert_of_the_worst_severity():
    found = [one for one in json.loads(answer("netdata-alarm-log.json")) if one["alarm_id"] == 1795796339]
    mild = next(one for one in found if one["status"] == "CRITICAL") | {"status": "WARNING"}
    worse = mild | {
        "unique_id": 1795796322,
        "old_status": "WARNING",
        "status": "CRITICAL",
        "when": 1795796500,
    }
    [alert] = answers.netdata(json.dumps([worse, mild]))
    assert (alert.at, alert.severity, alert.cleared_at) == (1795796487.0, "critical", None)


def test_prometheus_row_of_evaluations_is_one_alert_and_a_gap_ends_it():
    there, first, second = answers.prometheus(answer("prometheus-alerts.txt"), INTERVAL_S)
    assert (there.name, there.severity, there.cleared_at) == ("ExporterIsThere", "info", None)
    assert (first.at, first.cleared_at) == (1795796873.914, 1795796888.914)
    assert (second.at, second.cleared_at, second.severity) == (1795796948.914, None, "critical")
    assert second.text == "UnitFailed report.service failed oneshot"


def test_prometheus_that_refuses_the_question_is_an_error():
    with pytest.raises(ValueError, match="no such thing"):
        answers.prometheus('1.0\n{"status": "error", "error": "no such thing"}', INTERVAL_S)


def test_monit_line_of_level_error_is_an_alert_once_until_it_succeeds():
    found = {one.name: one for one in answers.monit(answer("monit.log"))}
    assert set(found) == {"mem usage", "cpu usage", "space usage"}  # the load stood at warnings only
    space = found["space usage"]
    assert space.cleared_at - space.at == 8.0
    assert "'rootfs' space usage 90.0%" in space.text
    assert found["mem usage"].cleared_at is None
    assert found["cpu usage"].at - found["mem usage"].at == 4.0  # its second cycle, not its first


def test_every_entry_of_the_journal_is_an_alert_but_for_hauswarts_own():
    failed, bad, again = answers.journal(answer("journal.jsonl"))
    assert failed.severity == "error"
    assert "report.service" in failed.text
    assert bad.text.startswith("tool: bad \ufffd byte")
    assert again.at - failed.at == pytest.approx(90.16, abs=0.01)


def entries(*seconds, message="cannot write", unit="web.service"):
    return "\n".join(
        json.dumps(
            {"MESSAGE": message, "PRIORITY": "3", "SYSLOG_IDENTIFIER": "web", "_SYSTEMD_UNIT": unit}
            | {"__REALTIME_TIMESTAMP": str(int((WALL + second) * 1e6))}
        )
        for second in seconds
    )


def test_the_same_entry_of_a_unit_is_one_alert_until_it_pauses():
    found = answers.journal(entries(0, 50, 100, 161, 200))
    assert [one.at - WALL for one in found] == [0.0, 161.0]
    others = [entries(0, 1), entries(0.5, unit="db.service"), entries(2, message="cannot read")]
    assert len(answers.journal("\n".join(others))) == 3
    assert answers.without_repeats(found) == found  # what is kept already stays


def test_a_long_message_does_not_hide_whose_it_is():
    [alert] = answers.journal(entries(0, message="x" * 5000))
    assert alert.text.endswith("x web.service")
    assert len(alert.text) < 350


# --- who is asked -------------------------------------------------------------------------------------------


def test_unknown_peer_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'nagios'") as refused:
        chosen("monit,nagios", None)
    assert "netdata" in refused.value.hint


def test_prometheus_without_rules_is_left_out_and_named():
    peers = {one.name: one for one in chosen("all", None)}
    assert set(peers) == set(NAMES)
    assert peers["prometheus"].lacks == "needs --prometheus-rules FILE"


def test_peer_whose_program_is_missing_is_left_out_and_named(monkeypatch, tmp_path):
    system = Shell(tmp_path / "bin")
    with beside(system, str(tmp_path), chosen("netdata,monit", None), warm_s=0) as company:
        company.start()
        told = company.ask()
    assert told == {
        "netdata": {"left_out": "needs netdata, curl, setsid, ps, pkill"},
        "monit": {"left_out": "needs monit, setsid, ps, pkill"},
    }


class Shell:
    """This machine with nothing on it but what a shell has by itself."""

    def __init__(self, path):
        self.path = path

    def run(self, command, *, check=True, timeout_s=60.0):
        hidden = command.replace(":/usr/local/sbin:/usr/sbin:/sbin", "")
        return os.popen(f"PATH={self.path}; {hidden}").read()


def test_runs_beside_others_or_longer_lie_in_folders_of_their_own(tmp_path):
    [scenario] = find(["disk-full/log-grows"])
    [run] = runs(scenario, seed=1, repeat=1)

    def folder(noise=(), peers=None, linger=0.0):
        options = Namespace(runs=tmp_path, noise=list(noise), peers=peers, linger=linger)
        return str(commands._folder(run, options).relative_to(tmp_path))

    assert folder() == run.id
    assert folder(peers="all") == f"{run.id}+peers"
    assert folder(peers="netdata,monit") == f"{run.id}+peers-monit-netdata"
    assert folder(["build"], "all", 120.0) == f"{run.id}+build+peers+linger-120"


def test_no_peer_listens_or_asks_outside():
    for peer in chosen("all", None):
        addresses = re.findall(r"\d+\.\d+\.\d+\.\d+", " ".join([peer.start, *peer.files.values()]))
        assert set(addresses) <= {"127.0.0.1"}
    assert "[cloud]\nenabled = no\n[registry]\nenabled = no" in netdata_settings("/x", 1, learning=False)


# --- the rules ----------------------------------------------------------------------------------------------

COLLECTION = """
groups:
  - name: Basics
    services:
      - name: Other
        exporters: [{slug: other, rules: [{name: Not this, query: "1", severity: critical}]}]
      - name: Hosts
        exporters:
          - slug: node-exporter
            rules:
              - {name: Unit failed, query: 'x{state="failed"} == 1', severity: warning, for: 2m}
              - {name: Gone, query: up == 0, severity: critical}
"""


def test_node_exporters_group_of_a_collection_becomes_rules(tmp_path):
    (tmp_path / "rules.yml").write_text(COLLECTION)
    [group] = yaml.safe_load(read_rules(tmp_path / "rules.yml"))["groups"]
    assert group["rules"] == [
        {
            "alert": "Unit failed",
            "expr": 'x{state="failed"} == 1',
            "for": "2m",
            "labels": {"severity": "warning"},
        },
        {"alert": "Gone", "expr": "up == 0", "labels": {"severity": "critical"}},
    ]


def test_rules_file_of_prometheus_is_taken_as_it_is_and_told_by_its_digest(tmp_path):
    text = "groups:\n  - name: own\n    rules:\n      - alert: Up\n        expr: up == 1\n"
    (tmp_path / "rules.yml").write_text(text)
    assert read_rules(tmp_path / "rules.yml") == text
    [prometheus] = chosen("prometheus", tmp_path / "rules.yml")
    assert prometheus.files["rules.yml"] == text
    assert f"rules sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}" in prometheus.version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("groups: [", "cannot be read"),
        ("rules: []", "has no list of groups"),
        ("groups: [{name: a, rules: [{record: b, expr: c}]}]", "none of its rules is an alert"),
        ("groups: [{name: a, services: []}]", "no rules for node-exporter"),
        (COLLECTION.replace("query: up == 0", "q: 1"), "without name or query"),
    ],
)
def test_wrong_rules_are_refused_with_file_and_remedy(tmp_path, text, reason):
    (tmp_path / "rules.yml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as refused:
        read_rules(tmp_path / "rules.yml")
    assert "rules.yml" in str(refused.value)
    assert refused.value.hint


# --- the table ----------------------------------------------------------------------------------------------


def alert(at, name="disk_space_usage", text="disk /srv space", severity="warning", grain_s=0.0):
    return Alert(at, name, severity, text, grain_s=grain_s)


def accompanied(*incidents, netdata=(), monit=None, scenario="disk-full/log-grows", **other):
    peers = {"netdata": Peer("v1", list(netdata), 2.0, 5e7)}
    peers |= {} if monit is None else {"monit": Peer("5", list(monit))}
    return verdict(*incidents, scenario=scenario, peers=peers, **other)


def window(verdicts, who, name="own"):
    return compare(verdicts)["watchers"][who]["windows"][name]


def test_alert_counts_from_the_injection_to_the_windows_end_and_not_if_it_stood_before():
    for at, counts in ((-0.6, 0), (-0.4, 1), (29.0, 1), (30.1, 0)):
        assert len(raised(accompanied(netdata=[alert(at)]), "netdata", 30.0)) == counts, at


def test_alert_told_in_whole_seconds_counts_if_it_can_have_come_after_the_injection():
    assert len(raised(accompanied(netdata=[alert(-1.4, grain_s=1.0)]), "netdata", 30.0)) == 1
    assert raised(accompanied(netdata=[alert(-1.6, grain_s=1.0)]), "netdata", 30.0) == []


def test_what_stood_on_a_host_to_which_nothing_had_been_done_is_told_apart():
    def stood(one):
        return {who: each["stood_before"]["value"] for who, each in compare([one])["watchers"].items()}

    def peers(*alerts):
        return stood(accompanied(netdata=alerts))["netdata"]

    assert peers(alert(-5.0)) == 1.0
    assert peers(alert(1.0)) == peers(alert(-5.0, severity="info")) == 0.0
    cleared = [replace(alert(-5.0), cleared_at=at) for at in (-2.0, 3.0)]
    assert [peers(one) for one in cleared] == [0.0, 1.0]
    ours = stood(accompanied(before=[said(severity="warning", opened_s=-5.0)]))
    assert (ours[HAUSWART], ours["hauswart, errors only"]) == (1.0, 0.0)
    assert stood(accompanied(replace(said(), before_s=-20.0)))[HAUSWART] == 1.0
    assert stood(accompanied(said()))[HAUSWART] == 0.0


def test_what_is_of_severity_info_is_nobodys_alert():
    info = replace(said(severity="info"), told_after_s=None)
    one = accompanied(info, netdata=[alert(1.0, severity="info")])
    assert raised(one, "netdata", 30.0) == raised(one, HAUSWART, 30.0) == []


def test_hauswarts_alert_is_when_it_notifies_and_counts_whatever_it_is_called_since():
    waited = replace(said(opened_s=1.0), told_after_s=3.0)
    assert [one.at_s for one in raised(accompanied(waited), HAUSWART, 30.0)] == [4.0]
    assert raised(accompanied(waited), HAUSWART, 3.9) == []
    calmed = replace(said(severity="info"), loudest="error")
    assert len(raised(accompanied(calmed), HAUSWART, 30.0)) == 1


def test_who_wants_errors_only_hears_of_them_when_they_are_that():
    grew = replace(said(opened_s=1.0), loud_s=6.0)
    mild = replace(said(opened_s=2.0, severity="warning"), merged=True)
    late = replace(said(opened_s=1.0, severity="warning"), told_after_s=0.0)
    long = accompanied(late, later=[replace(late, severity="error", loud_s=60.0)], lingered_s=120.0)
    for who, at_s in ((HAUSWART, 1.0), (ERRORS_ONLY, 60.0)):
        assert [each.at_s for each in raised(long, who, 120.0)] == [at_s]
        assert len(raised(long, who, 30.0)) == (who == HAUSWART)
    one = accompanied(grew, absorbed=[mild])
    assert [each.at_s for each in raised(one, ERRORS_ONLY, 30.0)] == [6.0]
    assert raised(one, ERRORS_ONLY, 5.9) == []
    for severity, told in (("warning", (1, 0)), ("error", (1, 1))):
        loud = accompanied(said(severity=severity), scenario="benign/loud")
        found = {who: each["false_alarms"]["alerts"] for who, each in compare([loud])["watchers"].items()}
        assert (found[HAUSWART], found[ERRORS_ONLY]) == told


def test_what_stood_before_and_got_worse_is_nobodys_alert():
    worse = heard_since(-0.5, replace(said(opened_s=-20.0), worse_s=(3.0,)))
    one = accompanied(worse, netdata=[alert(-20.0, severity="critical")])
    assert worse.opened_s == 3.0
    assert raised(one, "netdata", 30.0) == raised(one, HAUSWART, 30.0) == []
    assert [each.at_s for each in raised(accompanied(worse, said()), HAUSWART, 30.0)] == [1.0]


def test_a_merged_incident_is_one_more_alert_and_no_merit():
    part = replace(said(opened_s=1.0), merged=True)
    runs = [
        accompanied(said(opened_s=5.0), absorbed=[part]),
        accompanied(absorbed=[part], scenario="disk-full/other"),
    ]
    found = window(runs, HAUSWART)
    assert (found["alerts"]["value"], found["recall"]["value"]) == (1.5, 0.5)
    assert (found["right_class"]["value"], found["culprit"]["value"]) == (0.5, 0.5)
    assert found["delay_s"]["p50"] == 5.0
    late = accompanied(scenario="benign/quiet", later=[replace(part, opened_s=90.0)], lingered_s=120.0)
    alarms = compare([late])["watchers"][HAUSWART]["false_alarms"]
    assert (alarms["alerts"], alarms["quiet_runs"]) == (1, 0)


def test_recall_delay_and_alerts_are_counted_alike():
    runs = [
        accompanied(said(opened_s=2.0), netdata=[alert(8.0), alert(9.0)]),
        accompanied(said("unknown", ["host:"]), scenario="disk-full/other"),
    ]
    ours, theirs = window(runs, HAUSWART), window(runs, "netdata")
    assert (ours["recall"]["value"], theirs["recall"]["value"]) == (1.0, 0.5)
    assert (ours["right_class"]["value"], theirs["right_class"]["value"]) == (0.5, 0.0)
    assert (ours["culprit"]["value"], theirs["culprit"]["value"]) == (0.5, 0.5)
    assert (ours["alerts"]["value"], theirs["alerts"]["value"]) == (1.0, 1.0)
    assert [ours["delay_s"][name] for name in ("p50", "p95", "n")] == [1.0, 2.0, 2]
    assert [theirs["delay_s"][name] for name in ("p50", "p95", "n")] == [8.0, 8.0, 1]
    assert ours["right_delay_s"]["p50"] == 2.0
    assert theirs["recall"]["low"] == 0.0


def test_longer_windows_are_given_where_the_run_lingered_and_for_hauswart_too():
    long = {"lingered_s": 120.02, "later": [said(opened_s=100.0)]}
    runs = [accompanied(netdata=[alert(60.0)], **long), accompanied(scenario="disk-full/other")]
    assert window(runs, "netdata")["recall"]["value"] == 0.0
    for who in ("netdata", HAUSWART):
        found = window(runs, who, "120 s")
        assert (found["recall"]["value"], found["recall"]["runs"]) == (1.0, 1)
    assert "300 s" not in compare(runs)["watchers"]["netdata"]["windows"]


def test_name_of_a_culprit_counts_as_a_whole_word_or_path():
    one = accompanied(right_culprits=["mount:/srv", "unit:web.service", "host:"])
    for text in ("disk /srv is full", "disk_space: /srv", "Failed to start web.service.", "'web.service'"):
        assert names_culprit(one, text), text
    for text in ("disk /srv/www is full", "/mnt/srv", "old-web.service", "web.service.d", "host", ""):
        assert not names_culprit(one, text), text


def test_a_device_is_named_with_or_without_its_folder():
    one = accompanied(right_culprits=["device:loop483", "unit:srv"])
    for text in ("disk loop483 is slow", "/dev/loop483: read error", "on '/dev/loop483'."):
        assert names_culprit(one, text), text
    for text in ("/dev/loop4831", "/mnt/dev/loop483", "/dev/loop483/x", "/sys/loop483", "/dev/srv"):
        assert not names_culprit(one, text), text


def test_the_host_is_no_culprit_that_anybody_could_win_by():
    host = said("disk-full", ["host:"])
    runs = [
        accompanied(host, right_culprits=["host:"]),
        accompanied(host, scenario="disk-full/other", right_culprits=["host:", "mount:/srv"]),
        accompanied(said(), scenario="disk-full/third", netdata=[alert(1.0)]),
    ]
    for who in (HAUSWART, "netdata"):
        found = window(runs, who)["culprit"]
        assert (found["value"], found["runs"]) == (0.5, 2), who
    assert window(runs, HAUSWART)["recall"]["runs"] == 3
    assert window(runs[:1], HAUSWART)["culprit"]["value"] is None


def test_load_of_others_is_left_out_for_peers_as_for_hauswart():
    load = alert(1.0, name="10min_cpu_usage")
    busy = accompanied(netdata=[load, alert(2.0)], ambient_cores=1.5)
    assert [one.at_s for one in raised(busy, "netdata", 30.0)] == [2.0]
    assert len(raised(accompanied(netdata=[load]), "netdata", 30.0)) == 1
    about_load = accompanied(netdata=[load], ambient_cores=1.5, scenario="cpu-saturation/busy-loops")
    assert len(raised(about_load, "netdata", 30.0)) == 1


def test_alerts_of_benign_runs_are_false_and_counted_to_the_end_of_the_watching():
    quiet = accompanied(netdata=[alert(60.0)], scenario="benign/quiet", lingered_s=120.0)
    loud = accompanied(said(severity="warning"), scenario="benign/loud", lingered_s=119.0)
    found = {who: one["false_alarms"] for who, one in compare([quiet, loud])["watchers"].items()}
    assert (found["netdata"]["alerts"], found[HAUSWART]["alerts"]) == (1, 1)
    assert found["netdata"]["host_hours"] == pytest.approx(240 / 3600, abs=1e-3)
    assert found["netdata"]["an_hour"] == pytest.approx(15.0)
    assert found["netdata"]["upper_an_hour"] == pytest.approx(5.572 * 15, rel=1e-3)
    assert found["netdata"]["quiet_runs"] == 1


def test_peer_that_ran_only_sometimes_is_compared_with_hauswart_there():
    runs = [
        accompanied(said(), monit=[]),
        accompanied(scenario="disk-full/other", left_out={"monit": "needs monit"}),
    ]
    found = compare(runs)
    assert found["watchers"]["monit"]["hauswart_on_same_runs"]["windows"]["own"]["recall"]["value"] == 1.0
    assert "hauswart_on_same_runs" not in found["watchers"]["netdata"]
    assert found["left_out"] == {"monit": {"needs monit": 1}}


def test_runs_with_peers_do_not_mix_with_those_without():
    alone, beside_others = verdict(said()), accompanied(scenario="disk-full/other")
    assert tables.apart([alone, beside_others]) == ([alone], [beside_others])
    assert tables.apart([beside_others]) == ([beside_others], [beside_others])


def test_text_page_and_json_hold_the_one_table_and_who_was_left_out():
    runs = [
        accompanied(said(), netdata=[alert(3.0, text="<b>/srv</b>")], left_out={"monit": "needs monit"}),
        verdict(said()),
    ]
    text = tables.text(runs)
    assert re.search(r"^hauswart +own +1 +1\.00 ", text, re.MULTILINE)
    assert re.search(r"^hauswart, errors only +own +1 +1\.00 ", text, re.MULTILINE)
    assert re.search(r"^netdata +own +1 +1\.00 +3\.0 s .* no +1\.00 ", text, re.MULTILINE)
    assert "monit left out of 1 runs: needs monit" in text
    assert "netdata: v1; median of a run, warm-up included: 2.0 s of processor, 48 MiB" in text
    page = report.page(runs)
    assert "<td>netdata</td>" in page
    assert "monit left out of 1 runs" in page
    assert "<b>/srv" not in page
    assert page.count("<title>+3.0 s warning &lt;b&gt;/srv&lt;/b&gt;</title>") == 1  # a tick in its timeline
    assert json.loads(json.dumps(compare(runs), allow_nan=False))
    assert json.loads(json.dumps([one.document() for one in runs], allow_nan=False))


def test_runs_in_which_a_peer_s_alerts_were_not_all_kept_are_named():
    runs = [verdict(said(), peers={"journal": Peer("v1", [alert(3.0)], dropped=12)})]
    assert compare(runs)["dropped"] == {"journal": {"disk-full/log-grows/1-0": 12}}
    for told in (tables.text(runs), report.page(runs)):
        assert "journal: 12 alerts were not kept in disk-full/log-grows/1-0" in told
    assert "not kept" not in tables.text([accompanied(said())])


def test_without_runs_beside_others_there_is_no_such_table():
    assert "beside others" not in tables.text([verdict(said())])
    assert "Beside others" not in report.page([verdict(said())])


def judged(folder, ended_s, **other):
    folder = lab_runs.recording(folder, ended_s)
    run = json.loads((folder / "run.json").read_text()) | other
    run["times"]["lingered"] = {"wall": WALL + 60, "mono": 60}
    (folder / "run.json").write_text(json.dumps(run))
    [scenario] = find(["service-crash/segmentation-fault"])
    return judge(folder, scenario, {})


def test_recorded_peers_are_read_on_the_clock_of_the_effect(tmp_path):
    kept = {"version": "v1", "alerts": [asdict(alert(WALL + 40))], "cpu_s": 1.5, "pss_bytes": 10}
    entries = [asdict(alert(WALL + second, name="web", text="web: no")) for second in (40, 41)]
    peers = {"netdata": kept, "monit": {"left_out": "needs monit"}}
    peers["journal"] = {"version": "v2", "alerts": entries, "alerts_dropped": 3}
    found = judged(tmp_path, ended_s=45.0, peers=peers)
    assert found.peers["netdata"].alerts[0].at == pytest.approx(10.5)
    assert [one.at for one in found.peers["journal"].alerts] == [pytest.approx(10.5)]
    assert (found.peers["journal"].dropped, found.peers["netdata"].dropped) == (3, 0)
    assert found.left_out == {"monit": "needs monit"}
    assert (found.lingered_s, found.later) == (30.5, [])
    assert found.right is not None


def test_incident_after_the_window_of_a_run_that_lingered_is_kept_apart(tmp_path):
    found = judged(tmp_path, ended_s=29.0)
    assert found.during == []
    assert [one.fault_class for one in found.later] == ["service-crash"]


# --- for real -----------------------------------------------------------------------------------------------

RULES = "groups: [{name: own, rules: [{alert: Up, expr: up == 1}]}]"
BAD_UNIT = """printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' >/run/systemd/system/report.service
systemctl daemon-reload; systemctl start report"""


@pytest.mark.lab
@pytest.mark.slow
def test_peers_start_answer_and_end_in_a_container(tmp_path):
    if reason := container.missing():
        pytest.skip(reason)
    (tmp_path / "rules.yml").write_text(RULES)
    peers = chosen("all", tmp_path / "rules.yml")
    with container.container(tmp_path / "box") as box:
        with beside(box, "/lab", peers, warm_s=3.0) as company:
            company.start()
            began = time.time()
            box.run(BAD_UNIT, check=False)
            told = company.ask()
        left = box.run("ps -eo args | grep -E '[n]etdata|[p]rometheus|[m]onit'", check=False)
    assert left == ""
    # What the container says while it starts (it empties /tmp, where others may write) is nobody's test.
    alerts = [one for one in told["journal"]["alerts"] if one["at"] >= began]
    assert [one["name"] for one in alerts] == ["systemd"], alerts
    absent = [f"{name} {one['left_out']}" for name, one in told.items() if "left_out" in one]
    for name in {"netdata", "prometheus", "monit"} & {name for name, one in told.items() if "alerts" in one}:
        assert re.search(r"\d", told[name]["version"])
        assert told[name]["pss_bytes"] > 1e6
    if absent:
        pytest.skip("; ".join(absent))
