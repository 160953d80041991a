"""The units under a real systemd, installed by `hauswart host install`: who runs as what, and what survives.

Everything happens in a container (`tests.lab.container`). The interpreter and the code are mounted below
`/opt`, since the units see neither `/home` nor the host's `/tmp`.
"""

import json
import re
import time

import pytest

from daemon.message_ids import MessageId
from tests.lab.container import ContainerError, container, missing
from tests.lab.systems import BINDS, PROGRAM, WRAPPER

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=f"no container with systemd: {missing()}"),
]

STAGES = ("collector", "low", "middle", "top", "notify")
TIERS = ("low", "middle", "top")
USERS = {stage: f"hauswart-{stage}" for stage in STAGES} | {"collector": "hauswart-collect"}
CONFIG = """
[collect]
snapshot_interval_s = 2.0
[low]
learn_s = 5.0
[models]
idle_s = 5.0
[metrics]
listen = "unix:/run/hauswart/metrics/metrics.sock"
[web]
idle_s = 6.0
"""
# So that a hung stage is noticed within the patience of a test.
HASTE = "[Service]\nWatchdogSec=4s\n"
ON_ITS_WAY = 3  # messages of a source that a status file may show as not yet acknowledged, at 1 Hz
# An idle unit is starved where anything else runs.
AWAKE = "[Service]\nCPUSchedulingPolicy=other\nNice=0\n"
LOOP = "[Service]\nRestart=always\nRestartSec=0.3\nExecStart=/bin/sh -c 'echo no luck; exit 1'\n"
# A chat-completions server whose model writes what it was told.
MODEL = """
import http.server, json
class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = json.loads(body["messages"][1]["content"].split("<incident>")[1].split("</incident>")[0])
        said = {"action": ""}
        for lang, start in (("en", "The service that failed is"), ("de", "Der Dienst, der versagt hat, ist")):
            said[lang] = {"text": f"{start} {told['cause'][lang]}.", "evidence": ["E1"]}
        answer = json.dumps({"choices": [{"message": {"content": json.dumps(said)}}], "model": "echo"})
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())
http.server.HTTPServer(("127.0.0.1", 9998), Model).serve_forever()
"""
SERVED = '\n[top.served]\nurl = "http://127.0.0.1:9998"\n'
# What the kernel says of a confined process, proc_pid_status(5).
CONFINED = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}


class Host:
    """The container with the installed daemon in it."""

    def __init__(self, box):
        self.box = box

    def run(self, command, **options):
        return self.box.run(command, **options)

    def show(self, unit, name):
        return self.run(f"systemctl show --value -p {name} {unit}").strip()

    def pid(self, stage):
        return int(self.show(f"hauswart-{stage}", "MainPID"))

    def kill(self, stage, name="KILL"):
        """Send a signal to the stage once it runs; to which process."""
        assert self.wait(lambda: self.serves(stage)), self.log()
        pid = self.pid(stage)
        assert pid, self.log()  # `kill 0` would be meant for the shell itself
        self.run(f"kill -{name} {pid}")
        return pid

    def status(self, stage):
        return json.loads(self.run(f"cat /run/hauswart/status/{stage}.json"))

    def proc(self, stage):
        """The fields of the main process's /proc/PID/status."""
        text = self.run(f"cat /proc/{self.pid(stage)}/status")
        return {
            name: " ".join(value.split())
            for name, _, value in (line.partition(":") for line in text.splitlines())
        }

    def incidents(self):
        lines = self.run(f"{PROGRAM} incidents --json").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def about(self, name):
        return [one for one in self.incidents() if any(name in who["name"] for who in one["culprits"])]

    def serves(self, stage):
        """Whether the stage runs and has said so in its status file, as this very process."""
        if self.show(f"hauswart-{stage}", "SubState") != "running":
            return False
        try:
            found = self.status(stage)
        except (ContainerError, ValueError):
            return False
        return found["state"] == "running" and found["pid"] == self.pid(stage)

    def wait(self, condition, seconds=30.0):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.3)
        return False

    def wait_up(self, seconds=40.0):
        for stage in STAGES:
            assert self.wait(lambda stage=stage: self.serves(stage), seconds), self.log()

    def settled(self):
        """Every number that was offered is delivered, or counted as lost; the newest may be on their way."""
        flows = [
            flow["offered"] - flow["delivered"] - flow["gap"]
            for stage in ("collector", "low", "middle")
            for edge in self.status(stage).get("flows", {}).values()
            for flow in edge.values()
        ]
        return min(flows) == 0 and max(flows) <= ON_ITS_WAY

    def lost(self):
        """What was given up on an edge, by source."""
        return {
            (stage, source): flow["gap"]
            for stage in ("collector", "low", "middle")
            for edge in self.status(stage).get("flows", {}).values()
            for source, flow in edge.items()
            if flow["gap"]
        }

    def log(self):
        return self.run("journalctl -b -o short-monotonic -u 'hauswart*' -n 80 --no-pager", check=False)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("container")
    binary = scratch / "shared/bin/hauswart"
    binary.parent.mkdir(parents=True)
    binary.write_text(WRAPPER)
    binary.chmod(0o755)
    with container(scratch, {"loop.service": LOOP}, BINDS) as box:
        found = Host(box)
        for unit, text in {**dict.fromkeys(STAGES, HASTE), "retrain": AWAKE}.items():
            folder = f"/etc/systemd/system/hauswart-{unit}.service.d"
            found.run(f"mkdir -p {folder} && printf '{text}' >{folder}/haste.conf")
        found.run(f"mkdir -p /etc/hauswart && cat >/etc/hauswart/hauswart.toml <<'X'\n{CONFIG}X\n")
        targets = "/etc/credstore/hauswart.targets"
        found.run(f"install -d -m 700 /etc/credstore && umask 077 && echo json://127.0.0.1:9/ >{targets}")
        found.installed = found.run(f"{PROGRAM} host install --program {PROGRAM}", timeout_s=120.0)
        found.wait_up()
        yield found


def test_target_starts_every_stage_and_each_says_what_it_does(host):
    assert "write /etc/systemd/system/hauswart-low.service" in host.installed
    assert host.show("hauswart.target", "ActiveState") == "active"
    assert host.run("systemctl is-enabled hauswart.target").strip() == "enabled"
    for stage in STAGES:
        assert host.show(f"hauswart-{stage}", "ActiveState") == "active"
        assert host.show(f"hauswart-{stage}", "NRestarts") == "0"
        assert host.show(f"hauswart-{stage}", "Slice") == "hauswart.slice"
    assert "readers" in host.show("hauswart-collector", "StatusText")
    assert host.show("hauswart-low", "StatusText").startswith("judging")
    assert "open incident" in host.show("hauswart-middle", "StatusText")
    assert "waiting for incidents" in host.show("hauswart-top", "StatusText")


def test_installing_again_changes_nothing_and_leaves_the_stages_running(host):
    said = host.run(f"{PROGRAM} host install --no-start --program {PROGRAM}")
    assert "everything was in place" in said
    assert "restart" not in said


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_its_own_user_without_any_capability(host, stage):
    found = host.proc(stage)
    uid = host.run(f"id -u {USERS[stage]}").strip()
    assert set(found["Uid"].split()) == {uid}
    assert host.run(f"getent group {found['Gid'].split()[0]}").startswith("hauswart:")
    assert CONFINED.items() <= found.items()


@pytest.mark.parametrize("stage", STAGES)
def test_only_collector_and_notify_are_in_the_hosts_network(host, stage):
    own, hosts = (host.run(f"readlink /proc/{pid}/ns/net").strip() for pid in (host.pid(stage), 1))
    assert (own == hosts) == (stage in {"collector", "notify"})
    if own != hosts:
        links = host.run(f"nsenter -t {host.pid(stage)} -n ip -o link").strip()
        assert re.fullmatch(r"1: lo: .*", links)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_writes_its_own_folders_and_nothing_else(host, stage):
    """Tried as the stage's user in the stage's own mounts."""
    folders = "/run/hauswart/* /var/lib/hauswart/* /etc /usr /var/log /opt/hauswart /home /root"
    script = f"for one in {folders}; do touch $one/.try 2>/dev/null && rm $one/.try && echo $one; done; true"
    user = host.run(f"id -u {USERS[stage]}; id -g {USERS[stage]}").split()
    inside = f"setpriv --reuid={user[0]} --regid={user[1]} --clear-groups --inh-caps=-all sh -c '{script}'"
    found = set(host.run(f"nsenter -t {host.pid(stage)} -m {inside}").split())
    own = {
        "collector": {"/var/lib/hauswart/collector"},
        "low": {"/run/hauswart/low", "/var/lib/hauswart/low", "/var/lib/hauswart/telemetry"},
        "middle": {f"/run/hauswart/{edge}" for edge in ("middle", "records", "wake")}
        | {"/var/lib/hauswart/store"},
        "top": set(),
        "notify": {"/run/hauswart/metrics"},
    }
    assert found == own[stage] | {"/run/hauswart/status"}


def test_modes_keep_others_out(host):
    modes = dict(
        reversed(line.split())
        for line in host.run(
            "stat -c '%a:%U:%G %n' /run/hauswart /run/hauswart/status /run/hauswart/low/socket"
            " /var/lib/hauswart /var/lib/hauswart/store/store.db /var/lib/hauswart/collector"
            " /etc/hauswart/hauswart.toml /run/hauswart/status/settings-notify.json"
        ).splitlines()
    )
    assert modes["/run/hauswart"] == "750:root:hauswart"
    assert modes["/run/hauswart/status"] == "1770:root:hauswart"
    assert modes["/run/hauswart/low/socket"] == "660:hauswart-low:hauswart"
    assert modes["/var/lib/hauswart"] == "750:root:hauswart"
    assert modes["/var/lib/hauswart/store/store.db"] == "640:hauswart-middle:hauswart"
    assert modes["/var/lib/hauswart/collector"] == "700:hauswart-collect:hauswart"
    assert modes["/run/hauswart/status/settings-notify.json"] == "600:hauswart-notify:hauswart"
    denied = host.run("setpriv --reuid=65534 --regid=65534 --clear-groups ls /run/hauswart", check=False)
    assert "Permission denied" in denied


@pytest.mark.parametrize(
    ("unit", "most"), [("collector", 1.5), ("notify", 1.5), *((tier, 0.5) for tier in TIERS)]
)
def test_exposure_of_the_running_unit_is_as_promised(host, unit, most):
    said = host.run(f"systemd-analyze security --no-pager hauswart-{unit}.service", check=False)
    exposure = float(re.search(r"exposure level .*?: ([0-9.]+)", said).group(1))
    assert 0.0 < exposure <= most


def test_notify_gets_its_targets_as_a_credential_and_serves_metrics(host):
    assert host.show("hauswart-notify", "StatusText").startswith("waiting for incidents")
    host.run("grep -q . /run/credentials/hauswart-notify.service/hauswart.targets")
    said = host.run(
        "curl -s --unix-socket /run/hauswart/metrics/metrics.sock http://localhost/metrics", check=False
    )
    if "not found" not in said:
        assert "hauswart_" in said


def test_stages_agree_on_the_boot_they_live_in(host):
    """Not with the container's own, which is only mounted over the host's."""
    [boot] = {host.status(stage)["boot"] for stage in STAGES}
    assert set(boot) != {"0"}


def test_models_answer_inside_the_sandbox(host):
    parts = iter(
        [
            "pump",
            "valve",
            "rotor",
            "gasket",
            "boiler",
            "flange",
            "turbine",
            "coolant",
            "bearing",
            "nozzle",
            "piston",
        ]
    )

    def answered():
        """Whether the low tier's model was asked about a new kind of line, once the tier has learned."""
        word = next(parts, "last")
        host.run(f"logger -p daemon.err -t plant-{word} 'the {word} of the {word}house failed its check'")
        time.sleep(2.0)
        return host.status("low")["model"]["counters"]["answered"] > 0

    assert host.wait(answered, 40.0), (host.status("low"), host.log())
    assert host.status("low")["model"]["counters"]["failed"] == 0
    noise = "cpuinfo|Traceback|Permission denied|Operation not permitted"
    assert host.run(f"journalctl -b -u 'hauswart-*' -o cat -g '{noise}'", check=False).strip() in {
        "",
        "-- No entries --",
    }


def test_fault_becomes_an_incident_that_the_journal_finds_by_its_id(host):
    host.run("systemctl start --no-block loop")
    # The first crash opens it as what it is by then; the later ones make it a loop.
    assert host.wait(lambda: [one["fault_class"] for one in host.about("loop.service")] == ["crash-loop"]), (
        host.about("loop.service"),
        host.log(),
    )
    [incident] = host.about("loop.service")
    assert "no luck" in {piece["text"] for piece in incident["evidence"]}

    def entries():
        lines = host.run(f"journalctl -o json HAUSWART_INCIDENT={incident['id']}").splitlines()
        return [json.loads(line) for line in lines]

    assert host.wait(lambda: {MessageId.ADVICE_GIVEN} <= {one.get("MESSAGE_ID") for one in entries()})
    found = entries()
    opened = next(one for one in found if one["MESSAGE_ID"] == MessageId.INCIDENT_OPENED)
    assert opened["HAUSWART_CULPRIT"] == "loop.service"
    assert opened["_SYSTEMD_UNIT"] == "hauswart-middle.service"
    assert opened["SYSLOG_IDENTIFIER"] == "hauswart-middle"
    assert {one["HAUSWART_STAGE"] for one in found} == {"middle", "top"}
    assert all(one["HAUSWART_INCIDENT"] == incident["id"] for one in found)
    explained = host.run(f"journalctl -x HAUSWART_INCIDENT={incident['id']}")
    assert f"hauswart show {incident['id']}" in explained


def test_full_file_system_is_seen_through_the_sandbox(host):
    """The collector's own mounts are all read-only, the host's are not."""
    host.run("mkdir -p /srv/small && mount -t tmpfs -o size=2m small /srv/small")
    time.sleep(6.0)  # so that it is known before it fills
    host.run("dd if=/dev/zero of=/srv/small/x bs=64k 2>/dev/null; true")
    assert host.wait(lambda: host.about("/srv/small")), host.log()
    assert [one["fault_class"] for one in host.about("/srv/small")] == ["disk-full"]
    host.run("umount /srv/small")


def test_operator_in_the_group_reads_and_answers_and_others_do_not(host):
    host.run("useradd --no-create-home --groups hauswart carla && useradd --no-create-home mallory")
    incident = host.about("loop.service")[0]["id"]
    host.run(f"cd / && runuser -u carla -- {PROGRAM} feedback {incident} good")
    assert "loop.service" in host.run(f"cd / && runuser -u carla -- {PROGRAM} show {incident}")
    assert host.wait(lambda: host.status("middle")["counters"].get("records_kept", 0) > 0)
    for command in ("incidents", f"feedback {incident} bad"):
        with pytest.raises(ContainerError):
            host.run(f"cd / && runuser -u mallory -- {PROGRAM} {command}")


def test_page_is_started_by_a_look_answers_confined_and_ends_when_nobody_looks(host):
    ask = "curl -s -m 20 -c /tmp/jar -b /tmp/jar http://127.0.0.1:8470"
    assert host.show("hauswart-web.socket", "ActiveState") == "inactive"  # it is for the operator to enable
    host.run("systemctl start hauswart-web.socket")
    assert host.show("hauswart-web", "ActiveState") == "inactive"
    assert "<html lang" in host.run(f"{ask}/")
    proc = host.proc("web")
    assert CONFINED.items() <= proc.items()
    assert proc["Uid"].split()[0] == host.run("id -u hauswart-web").strip()
    links = host.run(f"nsenter -t {host.pid('web')} -n ip -o link")
    assert re.findall(r"^\d+: (\S+?)[:@]", links, re.MULTILINE) == ["lo"]
    one = host.about("loop.service")[0]["id"]
    assert "loop.service" in host.run(f"{ask}/incidents/{one}")
    token = host.run("grep -o 'hauswart_token.*' /tmp/jar").split()[1]
    form = f"-H 'Origin: http://127.0.0.1:8470' -d token={token} -d verdict=acknowledge"
    assert "said=kept" in host.run(f"{ask}/incidents/{one}/verdict -D - {form}")
    assert '"values":[' in host.run(f"{ask}/series?name=cpu.busy").replace(" ", "")
    assert host.wait(lambda: host.show("hauswart-web", "ActiveState") == "inactive", 30)
    assert "<html lang" in host.run(f"{ask}/")
    host.run("systemctl stop hauswart-web.socket hauswart-web.service")


def test_hung_stage_is_killed_by_its_watchdog_and_comes_back(host):
    before = host.kill("low", "STOP")
    assert host.wait(lambda: host.show("hauswart-low", "NRestarts") != "0", 40.0), host.log()
    host.wait_up()
    assert host.pid("low") != before
    assert "watchdog" in host.run("journalctl -b -u hauswart-low.service -o cat").lower()


@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_comes_back_and_says_so(host, stage):
    before = host.kill(stage)
    assert host.wait(lambda: host.pid(stage) not in {0, before} and host.serves(stage)), host.log()
    died = f"journalctl -b -o cat MESSAGE_ID={MessageId.STAGE_DIED} HAUSWART_STAGE={stage}"
    assert host.wait(lambda: "died without stopping" in host.run(died, check=False)), host.log()


def test_nothing_is_lost_across_kills_and_a_new_journald_under_load(host):
    lines = "for n in $(seq 3000); do echo line $n; [ $((n % 50)) = 0 ] && sleep 0.1; done; true"
    host.run(f"systemd-run -q --unit=load sh -c '{lines}'")
    for stage in ("low", "middle", "collector"):
        host.kill(stage)
        time.sleep(1.5)
    host.run("journalctl -q --rotate && systemctl restart systemd-journald")
    assert host.wait(lambda: host.show("load", "ActiveState") in {"inactive", "failed"}, 40.0)
    host.run("logger -t marker the-last-line; journalctl -q --sync")
    host.wait_up()
    cursor = json.loads(host.run("journalctl -t marker -n 1 -o json"))["__CURSOR"]
    mark = int(re.search(r";m=([0-9a-f]+)", cursor).group(1), 16)

    def reached():
        text = host.run("cat /var/lib/hauswart/collector/positions.json")
        found = re.search(r";m=([0-9a-f]+)", json.loads(text).get("journal", ""))
        return found is not None and int(found.group(1), 16) >= mark

    assert host.wait(reached, 40.0), host.log()
    assert host.wait(host.settled, 20.0)
    assert host.lost() == {}


def test_reload_takes_up_the_configuration_without_a_new_process(host):
    before = {stage: host.pid(stage) for stage in STAGES}
    host.run("sed -i 's/learn_s = 5.0/learn_s = 6.0/' /etc/hauswart/hauswart.toml")
    host.run("systemctl reload hauswart-low hauswart-top", timeout_s=60.0)
    host.wait_up()
    assert {stage: host.pid(stage) for stage in STAGES} == before
    said = f"journalctl -b -o cat MESSAGE_ID={MessageId.STAGE_RELOADING}"
    assert host.run(said).count("reading the configuration again") == 2
    host.run("echo 'nonsense = 1' >>/etc/hauswart/hauswart.toml")
    refused = host.run("systemctl reload hauswart-top", check=False, timeout_s=60.0)
    assert "failed" in refused.lower()
    assert host.pid("top") == before["top"]
    host.run("sed -i '/nonsense/d' /etc/hauswart/hauswart.toml")


def test_switch_runs_confined_and_finds_nothing_to_switch(host):
    host.run("systemctl start hauswart-switch", timeout_s=60.0)
    assert host.show("hauswart-switch", "Result") == "success"
    assert "no new candidate" in host.run("journalctl -b -u hauswart-switch -o cat")


@pytest.mark.timeout(500)
def test_retraining_runs_confined_and_its_candidate_is_judged_again(host):
    """Real training, offline; the switch follows by itself and says which of the two serves."""
    host.run("systemctl start hauswart-retrain", timeout_s=400.0)
    said = host.run("journalctl -b -o cat -u hauswart-retrain")
    assert host.show("hauswart-retrain", "Result") == "success", said
    assert "rows to learn" in said, said
    [candidate] = host.run("cd /var/lib/hauswart/candidates/low && ls -d [0-9]*T*[0-9]").split()
    owner = host.run(f"stat -c %U:%G /var/lib/hauswart/candidates/low/{candidate}/model.onnx").strip()
    assert owner == "hauswart-retrain:hauswart"
    assert set(host.run(f"ls /var/lib/hauswart/candidates/low/{candidate}").split()) >= {
        "manifest.json",
        "model.onnx",
        "tokenizer.json",
    }
    verdict = rf"low-{candidate}-\w+ (serves now|stays a candidate)"

    def switch_log():
        return host.run("journalctl -b -o cat -u hauswart-switch")

    assert host.wait(lambda: re.search(verdict, switch_log()), 60.0), switch_log()


def test_deaths_of_stages_are_incidents_of_stages_and_of_nothing_else(host):
    culprits = [one["culprits"][0] for one in host.incidents()]
    assert {who["name"] for who in culprits if who["kind"] == "stage"} >= {"low", "middle", "top"}
    assert [who for who in culprits if who["kind"] == "unit" and "hauswart" in who["name"]] == []


def test_stop_is_orderly_and_start_goes_on_where_it_stopped(host):
    incidents = len(host.incidents())
    began = time.monotonic()
    host.run("systemctl stop hauswart.target", timeout_s=60.0)
    assert host.wait(lambda: all(host.show(f"hauswart-{stage}", "MainPID") == "0" for stage in STAGES), 30.0)
    assert time.monotonic() - began < 25.0
    assert {host.show(f"hauswart-{stage}", "Result") for stage in STAGES} == {"success"}
    assert "Traceback" not in host.run("journalctl -b -u 'hauswart-*' -o cat")
    refused = host.run(f"{PROGRAM} run --for 1", check=False)
    assert "systemctl start hauswart.target" in refused
    host.run("systemctl start hauswart.target", timeout_s=120.0)
    host.wait_up()
    assert len(host.incidents()) >= incidents
    assert host.about("loop.service")


def test_served_model_is_reached_through_a_drop_in_that_opens_nothing_else(host):
    python = min(BINDS["/opt/hauswart/python"].glob("bin/python3.*[0-9]")).name
    host.run(f"cat >/root/model.py <<'X'\n{MODEL}X\n")
    library = "--setenv=LD_LIBRARY_PATH=/opt/hauswart/python/lib"
    host.run(f"systemd-run --unit=echo-model {library} /opt/hauswart/python/bin/{python} /root/model.py")
    host.run(f"cat >>/etc/hauswart/hauswart.toml <<'X'\n{SERVED}X\n")
    said = host.run(f"{PROGRAM} host install --program {PROGRAM}", timeout_s=120.0)
    assert "write /etc/systemd/system/hauswart-top.service.d/served.conf" in said
    host.wait_up()
    said = host.run("systemd-analyze security --no-pager hauswart-top.service", check=False)
    assert float(re.search(r"exposure level .*?: ([0-9.]+)", said).group(1)) <= 1.0
    assert host.show("hauswart-top", "IPAddressAllow") in {"127.0.0.0/8 ::1/128", "::1/128 127.0.0.0/8"}
    assert CONFINED.items() <= host.proc("top").items()
    host.run("cp /etc/systemd/system/loop.service /etc/systemd/system/twin.service")
    host.run("systemctl daemon-reload && systemctl start --no-block twin")

    def author():
        found = host.about("twin.service")
        return found[0]["advice"].get("author", "") if found and found[0]["advice"] else ""

    assert host.wait(author, 60.0), host.log()
    host.run("systemctl stop twin")
    assert author() == "echo at 127.0.0.1:9998"
    query = f"journalctl -b -o json -u hauswart-top MESSAGE_ID={MessageId.SERVED_ASKED.value}"
    audited = json.loads(host.run(query).splitlines()[0])
    assert (audited["HAUSWART_HOST"], audited["HAUSWART_OUTCOME"]) == ("127.0.0.1:9998", "200")
    assert int(audited["HAUSWART_BYTES"]) > 1000
    assert "twin.service" not in audited["MESSAGE"]


def test_uninstall_leaves_the_state_and_nothing_else(host):
    host.run(f"{PROGRAM} host uninstall", timeout_s=90.0)
    assert host.run("systemctl list-units --all --no-legend 'hauswart-*'").strip() == ""
    assert "hauswart-low.service" not in host.run("ls /etc/systemd/system").split()
    assert "store.db" in host.run("ls /var/lib/hauswart/store")
    assert host.run("test -e /run/hauswart || echo gone").strip() == "gone"
    host.run(f"{PROGRAM} host uninstall --purge", timeout_s=90.0)
    places = "/etc/systemd/system /etc/sysusers.d /etc/tmpfiles.d /usr/local /var/lib /run"
    left = host.run(f"find {places} -name '*hauswart*' -not -path '*.d/haste.conf'", check=False).split()
    assert [path for path in left if not path.endswith(".service.d") and "credentials" not in path] == []
    assert "hauswart" not in host.run("getent passwd; getent group")
