"""Real stage processes with fake collectors and tiers: SIGKILL, back-pressure, containment, signals."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.bus import FlowConsumer, FlowProducer, RecordsClient, Wire
from daemon.clock import now
from daemon.codec import observation_decoder, upward_decoder
from daemon.errors import HauswartError, SourceError
from daemon.messages import (
    Event,
    Evidence,
    Finding,
    KeepFeedback,
    KeepFinding,
    Line,
    Sample,
    Stamp,
    Subject,
    Tick,
)
from daemon.settings import Middle, Models, Settings, save_resolved
from daemon.stages import log
from daemon.stages.flows import work_through
from daemon.stages.health import find_crash
from daemon.stages.low import GOING_MAX, Going, LowStage
from daemon.stages.middle import MiddleStage
from daemon.stages.positions import Positions
from daemon.stages.readers import Readers
from daemon.status import LatencyWindow, Status, read_pids, read_status, running_stages, write_status
from daemon.tiers.middle import MiddleTier
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "fixtures/staged.py"


class Host:
    """Directories, and the stage processes that run on them."""

    def __init__(self, path):
        self.state, self.runtime = path / "s", path / "r"
        self.state.mkdir()
        self.runtime.mkdir()
        self.resolved = self.runtime / "settings.json"
        save_resolved(Settings(str(self.state), str(self.runtime)), self.resolved)
        self.stages = {}

    def start(self, *names, **environment):
        for name in names:
            self.stages[name] = subprocess.Popen(
                [sys.executable, str(SCRIPT), "stage", name, str(self.resolved)],
                env=os.environ | environment,
                stderr=subprocess.PIPE,
                text=True,
            )

    def kill(self, name):
        self.stages[name].kill()
        self.stages[name].wait()
        self.stages.pop(name).stderr.close()

    def stop(self, *names):
        """Stop in this order; what they logged."""
        logged = {}
        for name in names:
            self.stages[name].send_signal(signal.SIGTERM)
            logged[name] = self.stages.pop(name).communicate(timeout=15)[1]
        return logged

    def numbers(self):
        """The lines that are in the store as findings."""
        return {int(one) for one in self.column("id") if one.isdigit()}

    def rules(self):
        return set(self.column("rule"))

    def column(self, name):
        try:
            connection = sqlite3.connect(f"file:{self.state}/store.db?mode=ro", uri=True)
        except sqlite3.OperationalError:
            return []
        try:
            return [value for (value,) in connection.execute(f"SELECT {name} FROM findings")]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def wait(self, condition, within_s=15.0):
        end = time.monotonic() + within_s
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        assert condition()

    def running(self, name):
        status = read_status(self.runtime, name)
        return status is not None and status.state == "running" and status.pid == self.stages[name].pid


@pytest.fixture
def host(tmp_path):
    found = Host(tmp_path)
    yield found
    for name in list(found.stages):
        found.kill(name)


def balance(flows):
    """What offered exceeds delivered and gap by, for each source."""
    return {source: flow.offered - flow.delivered - flow.gap for source, flow in flows.items()}


def test_lines_reach_the_store_and_stop_leaves_nothing_on_the_way(host):
    host.start("collector", "top", "low", "middle", HAUSWART_TEST_LINES="500")  # any order of start
    host.wait(lambda: len(host.numbers()) == 500)
    logged = host.stop("collector", "low", "middle", "top")
    assert host.numbers() == set(range(500))
    for stage, edges in {"collector": ["low"], "low": ["low", "middle"], "middle": ["middle"]}.items():
        status = read_status(host.runtime, stage)
        assert status.state == "stopped"
        for edge in edges:
            assert set(balance(status.flows[edge]).values()) == {0}
    assert read_status(host.runtime, "collector").flows["low"]["file:/numbers"].delivered == 500
    assert json.loads((host.state / "positions.json").read_text()) == {"file:/numbers": "500"}
    assert "INFO low: judging" in logged["low"]
    assert running_stages(host.runtime) == []


def test_sigkill_of_any_stage_loses_nothing_and_is_reported(host):
    environment, total = {"HAUSWART_TEST_LINES": "4000"}, 4000
    host.start("middle", "low", "collector", **environment)
    host.wait(lambda: all(host.running(name) for name in ("middle", "low", "collector")))
    chosen = random.Random(7)
    for name in ["collector", "low", "middle", *chosen.choices(["collector", "low", "middle"], k=3)]:
        time.sleep(chosen.uniform(0.1, 0.4))
        host.kill(name)
        host.start(name, **environment)
        host.wait(lambda n=name: host.running(n))
    host.wait(lambda: len(host.numbers()) == total, 25.0)
    host.stop("collector", "low", "middle")
    assert json.loads((host.state / "positions.json").read_text()) == {"file:/numbers": "4000"}
    assert host.numbers() == set(range(total))
    assert "stage.crashed" in host.rules()
    for stage, edge in {"collector": "low", "low": "middle"}.items():
        flows = read_status(host.runtime, stage).flows[edge]
        assert set(balance(flows).values()) == {0}
        assert not any(flow.gap for flow in flows.values())


def test_positions_are_saved_only_for_lines_that_are_committed(host):
    host.start("low", "collector", HAUSWART_TEST_LINES="200")  # no middle tier: nothing can be committed
    host.wait(lambda: host.running("collector") and host.running("low"))
    host.wait((host.state / "positions.json").exists)
    time.sleep(1.5)
    host.kill("collector")
    host.kill("low")
    assert json.loads((host.state / "positions.json").read_text()) == {"file:/numbers": "0"}
    host.start("middle", "low", "collector", HAUSWART_TEST_LINES="200")
    host.wait(lambda: len(host.numbers()) == 200)


def test_failing_collector_is_named_and_the_others_go_on(host):
    host.start("middle", "low", "collector", HAUSWART_TEST_LINES="50", HAUSWART_TEST_BROKEN="1")
    host.wait(lambda: len(host.numbers()) == 50)
    logged = host.stop("collector")["collector"]
    assert "WARNING collector: broken: ZeroDivisionError: deliberate" in logged
    assert read_status(host.runtime, "collector").counters["failures/broken"] >= 1
    assert read_status(host.runtime, "collector").flows["low"]["broken"].offered >= 1  # the reader event


def test_second_stage_of_a_name_says_who_holds_it_and_exits_5(host):
    host.start("middle")
    host.wait(lambda: host.running("middle"))
    pid = host.stages["middle"].pid
    second = subprocess.run(
        [sys.executable, str(SCRIPT), "stage", "middle", str(host.resolved)],
        stderr=subprocess.PIPE,
        check=False,
    )
    assert second.returncode == 5
    assert f"process {pid}".encode() in second.stderr


def test_unknown_stage_is_a_usage_error(host):
    failed = subprocess.run([sys.executable, str(SCRIPT), "stage", "bottom", str(host.resolved)], check=False)
    assert failed.returncode == 2


def test_sighup_does_not_end_a_stage(host):
    host.start("top")
    host.wait(lambda: host.running("top"))
    host.stages["top"].send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert host.stages["top"].poll() is None


def test_service_manager_hears_ready_watchdog_and_stopping(host, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        host.start("top", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        heard = b""
        while b"READY=1" not in heard or b"WATCHDOG=1" not in heard:
            heard += manager.recv(4096) + b"\n"
        host.stages["top"].send_signal(signal.SIGTERM)
        while b"STOPPING=1" not in heard:
            heard += manager.recv(4096) + b"\n"
    assert host.stages["top"].wait(10) == 0


def test_record_is_kept_by_the_running_middle_tier_and_a_bad_one_refused(host):
    host.start("middle")
    client = RecordsClient(host.runtime)
    died = Status("notify", 4, "b", 1.0, 1.0, "running")
    client.keep(KeepFinding(find_crash("notify", died)), 10.0)
    with pytest.raises(HauswartError, match="there is no incident"):
        client.keep(KeepFeedback("nothing", "good", "me", 1.0), 10.0)
    client.close()
    host.stop("middle")
    assert "stage.crashed" in host.rules()


def test_low_tier_that_never_comes_is_found_silent(host):
    host.start("middle", HAUSWART_TEST_SILENT_S="1", HAUSWART_TEST_STARTS_S="2")
    host.wait(lambda: "stage.silent" in host.rules(), 10.0)
    assert "silent" in host.stop("middle")["middle"]


def test_stages_that_are_slow_to_start_are_not_silent_and_one_that_hangs_is(host):
    host.start("middle", HAUSWART_TEST_SILENT_S="1.5")
    time.sleep(4.0)
    host.start("low")
    time.sleep(4.0)
    host.start("collector", HAUSWART_TEST_LINES="30")
    host.wait(lambda: len(host.numbers()) == 30)
    assert "stage.silent" not in host.rules()
    host.stages["low"].send_signal(signal.SIGSTOP)
    host.wait(lambda: "stage.silent" in host.rules(), 10.0)
    host.stages["low"].send_signal(signal.SIGCONT)


def test_low_tier_that_lost_its_state_file_starts_afresh_and_keeps_what_it_learns(host):
    host.start("middle", "low", "collector", HAUSWART_TEST_LINES="30")
    host.wait(lambda: len(host.numbers()) == 30)
    host.stop("collector", "low")
    assert int((host.state / "low.state").read_bytes()) >= 30


# --- pieces ------------------------------------------------------------------------------------------------


class Scripted:
    """A collector whose reads follow a script: lists of observations, or errors."""

    interval_s, name = 1.0, "scripted"

    def __init__(self, *script, absent=False):
        self.script, self.absent, self.opened, self.closed = list(script), absent, 0, 0

    def open(self):
        self.opened += 1
        if self.absent:
            raise SourceError("not on this host")
        return []

    def fileno(self):
        return None

    def read(self, at):
        step = self.script.pop(0) if self.script else []
        if isinstance(step, Exception):
            raise step
        return step

    def pending(self):
        return False

    def position(self):
        return ""

    def close(self):
        self.closed += 1


def test_absent_collector_is_named_once_and_left_out(capsys):
    readers = Readers([Scripted(absent=True)], log.StageLog("test"))
    (event,) = readers.open()
    assert (event.kind, event.name, event.action) == ("reader", "scripted", "absent")
    assert readers.all == []
    assert "not on this host" in capsys.readouterr().err


def test_failed_collector_is_closed_and_opened_again_after_a_pause():
    collector = Scripted(ValueError("bad bytes"), [Sample(now(), "scripted", {})])
    readers = Readers([collector], log.StageLog("test"))
    readers.open()
    at = now()
    (event,) = readers.read(readers.all[0], at)
    assert (event.action, collector.closed, readers.failures["scripted"]) == ("error", 1, 1)
    assert "bad bytes" in event.attributes["reason"]
    assert readers.due({}, at, room=True) == []
    later = type(at)(at.boot, at.mono + 1.1, at.wall + 1.1)
    assert [reader.name for reader in readers.due({}, later, room=True)] == ["scripted"]
    readers.read(readers.all[0], later)
    assert collector.opened == 2
    assert len(readers.read(readers.all[0], later)) == 1


def test_line_reader_is_left_alone_without_room_and_samplers_are_not():
    lines, samples = Scripted([Line(now(), "journal", "x")]), Scripted()
    readers = Readers([lines, samples], log.StageLog("test"))
    readers.open()
    readers.read(readers.all[0], now())
    later = type(now())(now().boot, now().mono + 5, 0.0)
    assert [reader.collector for reader in readers.due({}, later, room=False)] == [samples]
    assert [reader.collector for reader in readers.due({}, later, room=True)] == [lines, samples]


def test_failed_line_reader_is_not_waited_for_without_room():
    lines = Scripted([Line(now(), "journal", "x")], OSError("gone"))
    readers = Readers([lines], log.StageLog("test"))
    readers.open()
    readers.read(readers.all[0], now())
    readers.read(readers.all[0], now())
    later = type(now())(now().boot, now().mono + 5, 0.0)
    assert readers.due({}, later, room=False) == []
    assert readers.next_due_s(later.mono, room=False) > later.mono  # or the loop would turn without a pause
    assert readers.next_due_s(later.mono, room=True) <= later.mono


def test_intervals_are_aligned_to_whole_multiples():
    readers = Readers([Scripted(), Scripted()], log.StageLog("test"))
    readers.all[1].collector.interval_s = 5.0
    readers.open()
    assert [reader.due_s % 1.0 for reader in readers.all] == [0.0, 0.0]
    assert readers.all[1].due_s % 5.0 == 0.0


def test_an_interval_that_a_read_changes_holds_for_the_next_one():
    class Trying(Scripted):
        interval_s = 30.0

        def read(self, at):
            self.interval_s = 1.0 if self.interval_s == 30.0 else 30.0
            return []

    readers = Readers([Trying()], log.StageLog("test"))
    readers.open()
    (reader,) = readers.all
    at = type(now())("b", reader.due_s, 0.0)
    readers.read(reader, at)
    assert reader.due_s - at.mono <= 1.0
    readers.read(reader, type(at)("b", reader.due_s, 0.0))
    assert reader.due_s - at.mono > 1.0


def test_message_that_breaks_the_work_does_not_hide_its_neighbours():
    errors = []
    result = work_through(lambda batch: [10 // n for n in batch], [5, 0, 2], errors.append)
    assert result == [2, 5]
    assert {type(error) for error in errors} == {ZeroDivisionError}


def test_positions_wait_for_their_acknowledgement(tmp_path):
    positions = Positions(tmp_path / "positions.json")
    positions.note(10, "journal", "c1")
    positions.note(20, "journal", "c2")
    positions.settle(15)
    positions.save()
    assert Positions(tmp_path / "positions.json").known == {"journal": "c1"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_damaged_positions_file_means_none(tmp_path, content):
    (tmp_path / "positions.json").write_bytes(content)
    assert Positions(tmp_path / "positions.json").known == {}


def test_log_escapes_what_could_forge_a_line(capsys):
    log.StageLog("low").warning("a\nERROR root: b\x1b[2J\u202e")
    assert capsys.readouterr().err == "WARNING low: a\\nERROR root: b\\x1b[2J\\u202e\n"


def test_log_carries_the_journals_priority(capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.StageLog("low").error("x")
    assert capsys.readouterr().err == "<3>low: x\n"


def test_log_below_the_level_is_not_written(capsys):
    log.StageLog("low", "warning").info("x")
    assert capsys.readouterr().err == ""


def test_latency_percentiles_are_right_within_a_bucket():
    window = LatencyWindow()
    for ms in range(1, 1001):
        window.add(ms / 1000)
    found = window.summary()
    assert found.count == 1000
    assert 0.5 <= found.p50_s <= 0.75
    assert 0.95 <= found.p95_s <= 1.43
    assert 1.0 <= found.max_s <= 1.5


def test_dead_stage_is_shown_as_dead_and_a_stopped_one_not_at_all(tmp_path):
    (tmp_path / "status").mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    write_status(tmp_path, Status("low", gone.pid, "b", 1.0, time.time(), "running"))
    write_status(tmp_path, Status("middle", os.getpid(), "b", 1.0, time.time(), "running", text="grouping"))
    write_status(tmp_path, Status("top", os.getpid(), "b", 1.0, time.time(), "stopped"))
    assert [(one.stage, one.alive) for one in running_stages(tmp_path)] == [("low", False), ("middle", True)]


def test_damaged_status_file_is_no_status(tmp_path):
    (tmp_path / "status").mkdir()
    (tmp_path / "status/low.json").write_bytes(b'{"stage": 3')
    assert read_status(tmp_path, "low") is None


def test_low_stage_acknowledges_only_what_the_middle_tier_acknowledged(host):
    wires = [Wire(host.runtime), Wire(host.runtime)]
    producer = FlowProducer(wires[0], "low")
    consumer = FlowConsumer(wires[1], "middle", upward_decoder())
    host.start("low")
    producer.offer([Line(now(), "journal", "7"), Sample(now(), "host", {})])
    arrivals, end = [], time.monotonic() + 10
    while not arrivals and time.monotonic() < end:
        producer.flush()
        arrivals = [one for one in consumer.receive() if any(isinstance(m, Finding) for m in one.messages)]
        consumer.answer()
        time.sleep(0.01)
    assert [type(message) for message in arrivals[0].messages] == [Finding, Tick]
    for _ in range(20):
        producer.ask()
        producer.pump()
        time.sleep(0.02)
    assert producer.acknowledged == 0
    consumer.acknowledge(arrivals[0])
    consumer.answer()
    end = time.monotonic() + 10
    while not producer.drained and time.monotonic() < end:
        producer.ask()
        producer.pump()
        time.sleep(0.02)
    assert producer.acknowledged == 2
    consumer.close()
    for wire in wires:
        wire.close()


def test_low_stage_says_what_goes_on_before_each_finding_once_that_is_acknowledged(host):
    wires = [Wire(host.runtime), Wire(host.runtime)]
    producer = FlowProducer(wires[0], "low")
    consumer = FlowConsumer(wires[1], "middle", upward_decoder())
    host.start("low")
    began = Event(now(), "context", "context", "backup", "start", {"unit": "borg.service"})
    for batch, expected in (
        ([Sample(now(), "host", {}), began], ["tick", "start"]),
        ([Line(now(), "journal", "7")], ["running", "finding"]),
        ([Line(now(), "journal", "8")], ["running", "finding"]),
        ([Event(now(), "context", "context", "backup", "end", {"unit": "borg.service"})], ["end"]),
        ([Line(now(), "journal", "9")], ["finding"]),
    ):
        producer.offer(batch)
        heard, end = [], time.monotonic() + 10
        while not (producer.drained and heard) and time.monotonic() < end:
            producer.flush()
            producer.ask()
            for arrival in consumer.receive():
                heard += [getattr(one, "action", type(one).__name__.lower()) for one in arrival.messages]
                consumer.acknowledge(arrival)
            consumer.answer()
            time.sleep(0.02)
        assert heard == expected
    consumer.close()
    for wire in wires:
        wire.close()


def at(second):
    return Stamp("b" * 32, 1000.0 + second, 1.7e9 + second)


def backup(second, action="start", unit="borg.service"):
    return Event(at(second), "context", "context", "backup", action, {"unit": unit, "pid": str(second)})


def load(second):
    """Borg reads and writes, as the low tier repeats it."""
    piece = Evidence(
        f"e{second}", "metric", "psi.io.some", at(second).wall, at(second).wall, "waits for disks"
    )
    who, hints = [Subject(SubjectKind.UNIT, "borg.service")], {FaultClass.IO_SATURATION: 0.8}
    return Finding(
        f"f{second}", at(second), "psi.io.level", Category.RESOURCE, Severity.ERROR, 0.8, who, hints, [piece]
    )


class Above:
    """One life of a middle stage behind a real edge."""

    def __init__(self, runtime):
        self.wire = Wire(runtime)
        self.consumer = FlowConsumer(self.wire, "middle", upward_decoder())
        self.tier, self.heard, self.incidents = MiddleTier(Middle()), [], []

    def hear(self, producer, second):
        """All up to the tick of this second, acknowledged."""
        producer.offer([Tick(at(second))])
        end = time.monotonic() + 5
        while not producer.drained and time.monotonic() < end:
            producer.flush()
            for arrival in self.consumer.receive():
                self.heard += arrival.messages
                self.incidents += self.tier.take(arrival.messages)
                self.consumer.acknowledge(arrival)
            self.consumer.answer()
        assert producer.drained

    def die(self):
        self.consumer.close()
        self.wire.close()


def test_a_middle_tier_started_anew_knows_of_the_backup_before_its_load(tmp_path):
    wire = Wire(tmp_path)
    low = SimpleNamespace(_producer=FlowProducer(wire, "middle"), _going=Going(), _reminded=0)
    above = Above(tmp_path)
    LowStage._offer(low, [Tick(at(0)), backup(1), Tick(at(1))])
    for second in (30, 60):
        LowStage._offer(low, [load(second)])
        above.hear(low._producer, second + 5)
    assert len(above.tier._contexts.windows) == 1
    above.die()
    above = Above(tmp_path)
    LowStage._offer(low, [load(7200), Tick(at(7201))])
    LowStage._offer(low, [load(7202)])
    above.hear(low._producer, 7230)
    assert above.incidents == []
    assert [one.action for one in above.heard if isinstance(one, Event)] == [
        "running"
    ]  # not acknowledged yet
    assert above.tier._contexts.windows[0].began == at(1).wall
    LowStage._offer(low, [backup(7300, "end")])
    LowStage._offer(low, [load(7400), Tick(at(7401))])
    above.hear(low._producer, 7430)
    assert len({one.id for one in above.incidents}) == 1  # nothing excuses it any more
    assert [one.action for one in above.heard if isinstance(one, Event)] == ["running", "end"]
    above.die()
    wire.close()


def test_what_goes_on_is_bounded_and_of_this_boot():
    going = Going()
    going.note([backup(0)])
    assert going.told(at(5)) == []  # no tick has said yet which boot runs
    going.note([Tick(at(1)), *(backup(2, unit=f"job{n}.service") for n in range(1000))])
    told = going.told(at(12))
    assert [one.attributes["unit"] for one in told] == [
        f"job{n}.service" for n in range(1000 - GOING_MAX, 1000)
    ]
    assert {(one.action, one.attributes["running_s"]) for one in told} == {("running", "10")}
    assert going.told(Stamp("a" * 32, 9e9, 1.0))[0].at == at(1)  # a line of an earlier boot
    going.note([backup(3, unit="job999.service"), backup(20, "end", unit="job998.service"), Tick(at(20.5))])
    told = {one.attributes["unit"]: one.attributes["running_s"] for one in going.told(at(4))}
    assert told["job999.service"] == "18"  # it began anew
    assert "job998.service" not in told
    going.note([Tick(Stamp("c" * 32, 1.0, 2e9))])
    assert going.told(Stamp("c" * 32, 2.0, 2e9)) == []


def test_finding_that_is_still_weighed_is_acknowledged_once_settled_even_without_ticks(host):
    host.start("middle", HAUSWART_TEST_SETTLE_S="1")
    host.wait(lambda: host.running("middle"))
    wire = Wire(host.runtime)
    producer = FlowProducer(wire, "middle")
    producer.offer([find_crash("low", Status("low", 4, "b", 1.0, 1.0, "running"))])
    began = time.monotonic()
    while not producer.drained and time.monotonic() < began + 10:
        producer.flush()
        time.sleep(0.02)
    assert 0.9 < time.monotonic() - began < 8.0
    wire.close()


def test_collector_holds_lines_back_while_nobody_takes_them(host):
    host.start("collector", HAUSWART_TEST_LINES="1000000", HAUSWART_TEST_PER_READ="500")
    wire = Wire(host.runtime)
    consumer = FlowConsumer(wire, "low", observation_decoder())
    end = time.monotonic() + 2.5
    while time.monotonic() < end:  # takes frames in, acknowledges none
        consumer.receive()
        time.sleep(0.05)
    host.stages["collector"].send_signal(signal.SIGTERM)
    host.stages["collector"].wait(15)
    flows = read_status(host.runtime, "collector").flows["low"]
    assert flows["file:/numbers"].gap == 0
    assert 2048 <= flows["file:/numbers"].offered < 40000  # at 50,000 a second without back-pressure
    assert flows["host"].offered >= 15  # samples went on at 10 Hz
    consumer.close()
    wire.close()


def test_crash_of_the_collector_becomes_an_event(host):
    host.start("collector", "low")
    host.wait(lambda: host.running("collector"))
    host.kill("collector")
    host.kill("low")
    wire = Wire(host.runtime)
    consumer = FlowConsumer(wire, "low", observation_decoder())
    host.start("collector")
    events, end = [], time.monotonic() + 10
    while not events and time.monotonic() < end:
        for arrival in consumer.receive():
            events += [one for one in arrival.messages if isinstance(one, Event)]
        consumer.answer()
        time.sleep(0.02)
    assert [(one.kind, one.name, one.action) for one in events] == [("stage", "collector", "crashed")]
    consumer.close()
    wire.close()


def served(host, **options):
    """Give the host's low tier something that looks like a bundle."""
    bundle = host.state / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    models = Models(low=str(bundle), middle="off", top="off", **options)
    save_resolved(Settings(str(host.state), str(host.runtime), models=models), host.resolved)


def answered(host):
    return {one for one in host.column("id") if one.startswith("model/")}


def test_low_stage_asks_its_model_and_passes_on_what_that_raises(host):
    served(host)
    host.start("collector", "low", "middle", HAUSWART_TEST_LINES="100", HAUSWART_TEST_ASK="1")
    host.wait(lambda: len(answered(host)) == 100)
    host.wait(lambda: read_status(host.runtime, "low").model.state == "ready")
    model = read_status(host.runtime, "low").model
    assert model.pid in read_pids(host.runtime)
    host.stop("collector", "low", "middle")
    assert gone(model.pid)
    stopped = read_status(host.runtime, "low")
    assert (stopped.model.counters["answered"], stopped.model.counters["failed"]) == (100, 0)
    assert set(balance(stopped.flows["middle"]).values()) == {0}


def test_killed_model_costs_no_line_and_the_stage_says_so(host):
    served(host)
    environment = {"HAUSWART_TEST_LINES": "3000", "HAUSWART_TEST_PER_READ": "5", "HAUSWART_TEST_ASK": "1"}
    host.start("collector", "low", "middle", **environment)
    host.wait(lambda: len(answered(host)) > 20)
    seen = []  # the pid of one look: a later one may find 0, which would name this process group
    host.wait(lambda: (pid := read_status(host.runtime, "low").model.pid) > 1 and not seen.append(pid))
    os.kill(seen[0], signal.SIGKILL)
    host.wait(lambda: len(host.numbers()) == 3000, within_s=30.0)
    logged = host.stop("collector", "low", "middle")
    assert host.numbers() == set(range(3000))
    assert "the model of the low tier: ended unexpectedly" in logged["low"]
    assert read_status(host.runtime, "low").model.counters["started"] == 1


def test_stage_without_a_bundle_judges_alone_and_says_so_once(host):
    models = Models(low=str(host.state / "nowhere"))
    save_resolved(Settings(str(host.state), str(host.runtime), models=models), host.resolved)
    host.start("collector", "low", "middle", HAUSWART_TEST_LINES="200", HAUSWART_TEST_ASK="1")
    host.wait(lambda: len(host.numbers()) == 200)
    logged = host.stop("collector", "low", "middle")
    assert logged["low"].count("there is no bundle") == 1
    model = read_status(host.runtime, "low").model
    assert (model.state, model.counters["started"]) == ("absent", 0)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_the_store_cannot_keep_is_said_once_a_minute():
    said = []
    stage = SimpleNamespace(
        _store=SimpleNamespace(notes=["finding f1 was not kept: NaN", "finding f2 was not kept: NaN"]),
        _refused_s=0.0,
        _life=SimpleNamespace(tell=SimpleNamespace(warning=said.append)),
    )
    MiddleStage._tell_refused(stage)
    assert said == ["finding f2 was not kept: NaN; 1 more before it"]
    stage._store.notes.append("finding f3 was not kept: NaN")
    MiddleStage._tell_refused(stage)
    assert len(said) == 1  # not yet
    stage._refused_s = 0.0
    MiddleStage._tell_refused(stage)
    assert said[1:] == ["finding f3 was not kept: NaN"]
    assert stage._store.notes == []


def test_a_silence_that_lasts_is_told_anew_and_its_end_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("daemon.stages.middle.time", SimpleNamespace(monotonic=lambda: clock[0]))
    stage, told = MiddleStage.__new__(MiddleStage), []
    stage._silent, stage._lamented_s, stage._retry_s = False, 0.0, 0.0
    stage._life = SimpleNamespace(tell=SimpleNamespace(warning=lambda *_said: None))
    stage._silent_s = lambda: clock[0] if clock[0] < 80.0 else 0.0
    stage._take = told.extend
    for second in range(120):
        clock[0] = float(second)
        stage._watch_silence()
    assert [one.ended for one in told] == [False, False, False, True]
    assert len({one.evidence[0].id for one in told}) == len(told)
    stage._silent, stage._retry_s = (
        True,
        1.0,
    )  # nothing is taken in while the store is full, so nothing is heard
    stage._silent_s = lambda: clock[0]
    clock[0] = 1000.0
    stage._watch_silence()
    assert len(told) == 4
