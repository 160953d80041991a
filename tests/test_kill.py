"""SIGKILL of any process of the real daemon at any moment: nothing acknowledged is lost, and it is said."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from daemon.errors import HauswartError
from daemon.store.reader import StoreReader
from tests.fixtures.live import STAGES, alive, append, fill, launch, live, logins, small_disk
from tests.lab.runner import wait_until

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("HAUSWART_TEST_SEED", str(time.time_ns() % 1_000_000)))
PROGRAMS = ("alpha", "bravo", "delta")


class Watcher(threading.Thread):
    """Reads the store all the time, as any reader may, and notes what contradicts what it saw before."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.seen, self.wrong = path, {}, []
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.05):
            self.look()

    def look(self):
        try:
            with StoreReader(self.path) as reader:
                found = {one.id: one.revision for one in reader.incidents(limit=1000)}
        except HauswartError as error:
            self.wrong.append(f"unreadable: {error}")
            return
        for number, revision in self.seen.items():
            if found.get(number, -1) < revision:
                self.wrong.append(f"{number} was at {revision} and is at {found.get(number)}")
        self.seen |= found

    def end(self):
        self._over.set()
        self.join()
        self.look()


class Operator(threading.Thread):
    """Gives feedback through the command line all the time; remembers what it was told is kept."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self._daemon, self._over = daemon, threading.Event()
        self.kept, self.failed = [], []

    def run(self):
        number = 0
        while not self._over.wait(0.1):
            known = self._daemon.incidents()
            if known:
                comment = f"comment {(number := number + 1)}"
                done = self._daemon.command("feedback", known[-1].id, "good", "--comment", comment)
                (self.kept if done.returncode == 0 else self.failed).append((known[-1].id, comment))

    def end(self):
        self._over.set()
        self.join(30)


def feedback(state, incident_id):
    with StoreReader(state / "store.db") as reader:
        return [one.comment for one in reader.feedback(incident_id)]


def chatter(path, over):
    """Lines without meaning, a thousand a second."""
    while not over.wait(0.05):
        append(path, "".join(f"Nov 22 03:30:01 host app[{n}]: request {n} served\n" for n in range(50)))


def crashes_of(found, stage):
    """The incidents that say a stage died."""
    return [
        one
        for one in found.incidents()
        if any(who.kind == "stage" and who.name == stage for who in one.culprits)
    ]


def kill(found, stage):
    """End a stage at once, and wait for its successor."""
    pid = found.pids()[stage]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: found.pids()[stage] != pid and found.all_up(), 10), found.log.read_text()


def crash_thrice(scratch, name):
    """By a Python interpreter of that name, so that the kernel's messages name it."""
    program = scratch / name
    if not program.exists():
        program.symlink_to(os.path.realpath(sys.executable))
    for _ in range(3):
        crash = [program, "-I", "-c", "import ctypes; ctypes.string_at(0)"]
        subprocess.run(crash, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.2)


def in_turn(scratch, log, disks, programs=PROGRAMS):
    """Some of each kind of trouble, some seconds apart."""
    for number, name in enumerate(programs):
        append(log, logins(f"198.51.100.{10 + number}"))
        if os.geteuid() == 0:
            crash_thrice(scratch, name)
            fill(disks[number])
        time.sleep(1.0)


@pytest.fixture
def disks(tmp_path):
    if os.geteuid() != 0:
        yield []
        return
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(small_disk(tmp_path / f"d{number}", 4)) for number in range(3)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """One daemon for the tests that leave it running."""
    scratch = tmp_path_factory.mktemp("k")
    (scratch / "first.log").touch()
    with live(scratch, follow=[str(scratch / "first.log")]) as found:
        found.log_path = scratch / "first.log"
        yield found


def test_second_daemon_names_the_first_which_goes_on_undisturbed(calm, tmp_path):
    before = calm.pids()
    second = launch(tmp_path, calm.state_dir, follow=[str(tmp_path / "second.log")])
    assert second.process.wait(20) == 5
    assert f"in use by process {calm.process.pid}" in second.log.read_text()
    assert calm.pids() == before
    assert calm.all_up()
    kill(calm, "collector")  # its successor must not read what the second daemon was told to read
    append(calm.log_path, logins("198.51.100.20"))
    assert wait_until(lambda: calm.found("auth-bruteforce", "198.51.100.20"), 15)


@pytest.mark.parametrize("stage", ["low", "middle", "top"])
def test_killed_stage_is_said_once_and_the_others_go_on(calm, stage):
    before = calm.pids()
    kill(calm, stage)
    assert wait_until(lambda: crashes_of(calm, stage), 15), describe(calm)
    time.sleep(1)
    (one,) = crashes_of(calm, stage)
    with StoreReader(calm.state_dir / "store.db") as reader:
        assert [finding.rule for finding in reader.findings(one.id)] == ["stage.crashed"]
    after = calm.pids()
    assert {name for name in before if before[name] != after[name]} == {stage}


def test_killed_daemon_leaves_no_orphan_and_the_next_says_it(tmp_path):
    log = tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)]) as first:
        append(log, logins("198.51.100.30"))
        assert wait_until(lambda: first.found("auth-bruteforce", "198.51.100.30"), 15)
        before = {one.id: one.revision for one in first.incidents()}
        pids = first.pids()
        first.process.kill()
        first.process.wait()
        append(log, logins("198.51.100.31"))  # while nobody watches
        with live(tmp_path, follow=[str(log)]) as second:
            died = f"the last daemon (process {first.process.pid}) died without stopping"
            assert wait_until(lambda: second.says(died), 10)
            assert wait_until(lambda: crashes_of(second, "supervisor"), 15), describe(second)
            assert wait_until(lambda: not any(map(alive, pids.values())), 12)
            after = {one.id: one.revision for one in second.incidents()}
            assert all(after.get(number, -1) >= revision for number, revision in before.items())
            assert wait_until(lambda: second.found("auth-bruteforce", "198.51.100.31"), 15), describe(second)


@pytest.mark.lab
@pytest.mark.slow
def test_stages_killed_at_random_moments_lose_nothing_acknowledged(tmp_path, disks):
    chosen, log, over = random.Random(SEED), tmp_path / "auth.log", threading.Event()
    log.touch()
    kernel = "on" if os.geteuid() == 0 else "off"
    with live(tmp_path, follow=[str(log)], kernel_log=kernel) as found:
        watcher, operator = Watcher(found.state_dir / "store.db"), Operator(found)
        talk = threading.Thread(target=chatter, args=(log, over), daemon=True)
        trouble = threading.Thread(target=in_turn, args=(tmp_path, log, disks), daemon=True)
        for thread in (watcher, operator, talk, trouble):
            thread.start()
        kills = [*STAGES, *STAGES, *chosen.choices(STAGES[:3], k=2)]
        chosen.shuffle(kills)
        for stage in kills:
            time.sleep(chosen.uniform(0.0, 0.8))
            kill(found, stage)
        trouble.join()
        over.set()
        talk.join()
        operator.end()
        complete = wait_until(lambda: not expected_missing(found, disks), 30)
        assert complete, (expected_missing(found, disks), describe(found))
        time.sleep(2)
        watcher.end()
        assert not expected_missing(found, disks), describe(found)
        ours = [one for one in found.incidents() if str(tmp_path) in str(one.culprits)]
        assert wait_until(lambda: json.loads(positions(found))[str(log)][1] == log.stat().st_size, 10)
    print("seed", SEED, kills, len(watcher.seen), "incidents", len(operator.kept), "kept", operator.failed)
    assert watcher.wrong == []
    assert operator.kept
    for incident_id, comment in operator.kept:
        assert comment in feedback(found.state_dir, incident_id)
    assert len({one.culprits[0].name for one in ours}) == len(ours) == len(disks)
    for stage, edge in (("collector", "low"), ("low", "middle")):
        assert found.status(stage).state == "stopped"
        flows = found.status(stage).flows[edge]
        assert all(flow.offered == flow.delivered and flow.gap == 0 for flow in flows.values()), flows


def describe(found):
    """What is known, for a failing test."""
    incidents = [
        f"{one.id} {one.state} r{one.revision} {one.fault_class} {[who.name for who in one.culprits]}"
        for one in found.incidents()
    ]
    text = "\n".join([f"seed {SEED}", *incidents, found.log.read_text()])
    print(text)
    return text


def expected_missing(found, disks):
    """What should have an incident of its own and has not."""
    wanted = [("disk-full", str(disk)) for disk in disks]
    wanted += [("crash", name) for name in PROGRAMS] if disks else []
    wanted.append(("auth-bruteforce", "198.51.100.12"))
    unsaid = [("crash", stage) for stage in STAGES if len(crashes_of(found, stage)) != 1]
    return [one for one in wanted if len(found.found(*one)) != 1] + unsaid


def positions(found):
    saved = json.loads((found.state_dir / "positions.json").read_text())
    return next(value for name, value in saved.items() if name.startswith("file:"))


# --- replay -------------------------------------------------------------------------------------------


@pytest.mark.lab
def test_replay_of_a_live_recording_finds_the_same_incidents_every_time(tmp_path, disks):
    if not disks:
        pytest.skip("needs root to fill a file system and read the kernel log")
    log = tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)], kernel_log="on") as found:
        time.sleep(1)
        in_turn(tmp_path, log, disks[:1], PROGRAMS[:1])
        assert wait_until(lambda: len(found.incidents()) >= 3, 15), describe(found)
        time.sleep(1.5)
    config = ["--config", str(tmp_path / "hauswart.toml")]
    runs = [found.command(*config, "replay", "telemetry", "--findings") for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout
    assert runs[0].stdout == runs[1].stdout
    replayed = found.command(*config, "replay", "telemetry", "--json").stdout.splitlines()

    def told(document):
        first = document["culprits"][0]
        return document["fault_class"], first["kind"], first["name"]

    lived = found.command("incidents", "--json").stdout.splitlines()
    assert sorted(told(json.loads(one)) for one in replayed) == sorted(told(json.loads(one)) for one in lived)
