"""The event path: links, veth pairs, devices, stages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.messages import Event, Stamp
from daemon.settings import Low
from daemon.tiers.events import NEGOTIATES_S, EventJudge
from models.taxonomy import FaultClass, Severity, SubjectKind


def stamp(t):
    return Stamp("b" * 32, t, 1e9 + t)


class Bench:
    """An event judge that is ticked once a second, as the low tier does."""

    def __init__(self):
        self.judge = EventJudge(Low())
        self.t = 1000.0
        self.found = []

    def event(self, kind, name, action, /, **attributes):
        event = Event(stamp(self.t), "test", kind, name, action, attributes)
        self.found += self.judge.judge(event, self.t)

    def wait(self, seconds):
        for _ in range(int(seconds)):
            self.t += 1.0
            self.found += self.judge.tick(self.t, stamp(self.t))

    def loud(self):
        return [f for f in self.found if f.score >= 0.5 and not f.ended]


@pytest.fixture
def bench():
    return Bench()


def test_cable_pulled_is_an_error_at_once_repeated_and_over_when_it_is_back(bench):
    bench.event("link", "eth0", "down", index="2", was="up")
    assert [(f.rule, f.severity) for f in bench.found] == [("link.down", Severity.ERROR)]
    finding = bench.found[0]
    assert finding.subjects[0].kind is SubjectKind.INTERFACE
    assert max(finding.hints, key=finding.hints.get) is FaultClass.LINK_DOWN
    bench.wait(65)
    assert len(bench.found) == 3
    bench.event("link", "eth0", "up", index="2", was="down")
    assert [f.ended for f in bench.found] == [False, False, False, True]
    bench.wait(60)
    assert len(bench.found) == 4


def test_interface_that_is_enabled_before_its_peer_has_lost_nothing(bench):
    bench.event("link", "veth0", "added", index="3", state="admin-down", kind="veth")
    bench.event("link", "veth0", "down", index="3", state="down", was="admin-down", kind="veth")
    bench.wait(30)
    assert bench.found == []
    bench.event("link", "veth0", "up", index="3", state="up", was="down", kind="veth")
    bench.event("link", "veth0", "admin-down", index="3", state="admin-down", was="up", kind="veth")
    bench.event("link", "veth0", "down", index="3", state="down", was="admin-down", kind="veth")
    bench.wait(30)
    assert "link.down" in [one.rule for one in bench.found]  # it had one, and now has none


@pytest.mark.parametrize("order", ["carrier first", "admin first"])
def test_both_ends_of_a_veth_pair_make_one_finding_led_by_the_end_that_lost_its_carrier(bench, order):
    events = [("vethb", "down", "8"), ("vetha", "admin-down", "7")]
    for name, action, index in events if order == "carrier first" else events[::-1]:
        bench.event("link", name, action, index=index, was="up", kind="veth")
        bench.t += 0.1
    bench.wait(5)
    (finding,) = [f for f in bench.found if not f.ended and f.rule == "link.down"]
    assert [s.name for s in finding.subjects] == ["vethb", "vetha"]
    assert finding.score >= 0.5
    assert finding.evidence[0].text == "vethb has lost its carrier; its peer vetha was taken down."
    assert bench.loud() == [finding]
    bench.event("link", "vetha", "up", index="7", was="admin-down", kind="veth")
    bench.event("link", "vethb", "up", index="8", was="down", kind="veth")
    assert [f.rule for f in bench.found if f.ended] == ["link.down"]
    bench.wait(40)
    assert bench.found[-1].ended


def test_two_ends_that_both_lose_their_carrier_blame_the_first(bench):
    bench.event("link", "v0", "down", index="4", kind="veth")
    bench.t += 0.2
    bench.event("link", "v1", "down", index="5", kind="veth")
    bench.wait(3)
    (finding,) = bench.loud()
    assert [s.name for s in finding.subjects] == ["v0", "v1"]


def test_veths_of_other_pairs_are_reported_apart(bench):
    bench.event("link", "v0", "down", index="4", kind="veth")
    bench.event("link", "w0", "down", index="9", kind="veth")
    bench.wait(3)
    assert sorted(f.subjects[0].name for f in bench.loud()) == ["v0", "w0"]


def test_container_that_stops_gives_nothing(bench):
    bench.event("link", "veth12ab", "down", index="9", was="up", kind="veth", master="3")
    bench.t += 0.05
    bench.event("link", "veth12ab", "removed", index="9", was="down", kind="veth")
    bench.event("link", "docker0", "down", index="3", was="up", kind="bridge")
    bench.wait(60)
    assert bench.loud() == []
    bench.event("link", "veth99", "added", index="11", kind="veth")
    bench.event("link", "veth99", "up", index="11", kind="veth")
    bench.wait(5)
    assert bench.loud() == []


def test_roaming_wireless_link_and_link_taken_down_by_hand_are_weaker_than_a_pulled_cable(bench):
    bench.event("link", "wlp2s0", "down", index="3")
    bench.wait(3)
    bench.event("link", "wlp2s0", "up", index="3")
    assert bench.found == []
    bench.event("link", "eth0", "admin-down", index="2")
    bench.wait(3)
    assert [(f.rule, f.severity) for f in bench.found] == [("link.admin-down", Severity.WARNING)]
    assert bench.found[0].score <= 0.5


def test_link_that_is_taken_up_again_has_time_to_agree_with_its_peer(bench):
    bench.event("link", "eth0", "up", index="2")
    for seconds in (3, 30):
        bench.event("link", "eth0", "admin-down", index="2", was="up")
        bench.event("link", "eth0", "down", index="2", was="admin-down")
        bench.wait(seconds)
        bench.event("link", "eth0", "up", index="2", was="down")
        assert ("link.down" in [one.rule for one in bench.found]) is (seconds > NEGOTIATES_S)


def test_flapping_link_is_one_condition_that_ends_when_it_holds_still(bench):
    for _ in range(4):
        bench.event("link", "eth1", "down", index="5")
        bench.t += 1
        bench.event("link", "eth1", "up", index="5")
        bench.t += 5
    bench.wait(20)
    flaps = [f for f in bench.found if f.rule == "link.flapping"]
    assert flaps
    assert flaps[0].evidence[0].values["failures_count"] == 4
    bench.wait(320)
    assert [f.ended for f in bench.found if f.rule == "link.flapping"].count(True) == 1


def test_bridge_that_follows_its_containers_does_not_flap(bench):
    for _ in range(8):
        for action in ("down", "up"):
            bench.event("link", "docker0", action, index="2", kind="bridge")
            bench.t += 1
    bench.wait(20)
    assert [f.rule for f in bench.found if f.rule == "link.flapping"] == []


def test_disk_in_use_that_vanishes_is_an_error_and_over_when_it_returns(bench):
    bench.event("device", "/dev/sdb", "remove", subsystem="block", mounts="/srv", bus="usb")
    (finding,) = bench.found
    assert (finding.rule, finding.severity) == ("device.removed", Severity.ERROR)
    assert finding.subjects[0].name == "sdb"
    assert max(finding.hints, key=finding.hints.get) is FaultClass.DEVICE_LOST
    bench.event("device", "/dev/sdb", "add", subsystem="block")
    assert bench.found[-1].ended


def test_disk_in_use_is_loud_and_what_nobody_uses_any_more_is_not(bench):
    """Unmounted and then taken out is how it is done."""
    bench.event("device", "nvme0n1", "remove", subsystem="block", in_use="mounted", mount="/srv")
    bench.event("device", "sda", "remove", subsystem="block")
    bench.event("device", "sdc", "remove", subsystem="block", bus="usb")
    bench.event("device", "sdc1", "remove", subsystem="block", devtype="partition")
    bench.event("device", "loop3", "remove", subsystem="block")
    bench.event("device", "1-2", "remove", subsystem="usb")
    bench.event("device", "nvme0", "remove", subsystem="nvme")
    bench.event("device", "2:0:0:0", "remove", subsystem="scsi", devtype="scsi_device")
    assert [f.subjects[0].name for f in bench.loud()] == ["nvme0n1"]


def test_crashed_and_silent_stages_are_findings_about_hauswart_itself(bench):
    bench.event("stage", "middle", "crashed", pid="42")
    bench.event("stage", "top", "silent")
    assert [(f.rule, f.subjects[0].kind, f.subjects[0].name) for f in bench.found] == [
        ("stage.crashed", SubjectKind.STAGE, "middle"),
        ("stage.silent", SubjectKind.STAGE, "top"),
    ]
    assert bench.found[0].hints == {FaultClass.SERVICE_CRASH: 0.9}
    assert bench.found[0].evidence[0].values == {"pid": 42}
    bench.event("stage", "middle", "start")
    assert bench.found[-1].ended


def test_reader_gap_is_information_and_sessions_and_contexts_are_no_faults(bench):
    bench.event("reader", "journal", "gap", reason="overrun", lost="12")
    assert [(f.rule, f.severity, f.score) for f in bench.found] == [("reader.gap", Severity.INFO, 0.1)]
    assert bench.found[0].evidence[0].values == {"lost_count": 12}
    bench.event("session", "alice", "start")
    bench.event("context", "backup", "start")
    bench.event("reader", "journal", "present")
    assert len(bench.found) == 1


def test_links_without_end_are_bounded_and_counted(bench):
    for n in range(3000):
        bench.event("link", f"v{n}", "added", index=str(n), kind="veth")
    assert bench.judge.counters["links_dropped"] > 0


words = st.sampled_from(["up", "down", "admin-down", "removed", "added", "remove", "crashed", "gap", "?"])
kinds = st.sampled_from(["link", "device", "stage", "reader", "session"])
attributes = st.dictionaries(
    st.sampled_from(["index", "kind", "was", "lost", "pid", "mounts", "subsystem"]),
    st.one_of(st.text(max_size=8), st.sampled_from(["veth", "1", "2", "²"])),
)


@given(st.lists(st.tuples(kinds, st.sampled_from("abc"), words, attributes, st.floats(0, 50)), max_size=30))
def test_any_order_of_events_is_survived_and_every_end_has_a_beginning(events):
    bench = Bench()
    for kind, name, action, given_attributes, wait_s in events:
        bench.t += wait_s
        bench.event(kind, name, action, **given_attributes)
        bench.wait(1)
    open_now = set()
    for finding in bench.found:
        key = (finding.rule, finding.subjects[0].name)
        if finding.ended:
            assert key in open_now or finding.rule.startswith("reader.")
            open_now.discard(key)
        else:
            open_now.add(key)


# --- what is plugged in -----------------------------------------------------------------------------------


def unplug(bench, name, interfaces=":ff0000:", **attributes):
    usb = {"subsystem": "usb", "bus": "usb"}
    bench.event("device", f"{name}:1.0", "remove", devtype="usb_interface", **usb)
    bench.event("device", name, "remove", devtype="usb_device", interfaces=interfaces, **usb, **attributes)


def test_peripheral_of_an_unattended_machine_that_stays_away_is_lost_until_it_is_back(bench):
    unplug(bench, "1-4", model="Zigbee_Stick")
    assert bench.loud() == []
    bench.wait(3)
    assert [(f.rule, f.severity, f.subjects[0].name) for f in bench.loud()] == [
        ("device.unplugged", Severity.WARNING, "1-4")
    ]
    bench.event("device", "1-4", "add", subsystem="usb", devtype="usb_device")
    assert bench.found[-1].ended


def test_peripheral_that_comes_back_at_once_was_only_switched(bench):
    unplug(bench, "1-4")
    bench.wait(1)
    bench.event("device", "1-4", "add", subsystem="usb", devtype="usb_device")
    bench.wait(10)
    assert bench.found == []


def test_who_sits_at_the_machine_unplugs_what_they_like(bench):
    bench.event("session", "2", "start", user="alice", seat="seat0")
    unplug(bench, "1-4")
    bench.wait(10)
    assert bench.found == []
    bench.event("session", "2", "end", user="alice", seat="seat0")
    unplug(bench, "1-5")
    bench.wait(10)
    assert len(bench.loud()) == 1


@pytest.mark.parametrize("interfaces", [":080650:", ":090000:", ""])
def test_stick_or_hub_or_what_nobody_knows_is_no_lost_peripheral(bench, interfaces):
    unplug(bench, "1-4", interfaces)
    bench.wait(10)
    assert bench.found == []


def test_driver_says_what_a_device_is_for_where_udev_does_not(bench):
    usb = {"subsystem": "usb", "bus": "usb"}
    bench.event("device", "1-4:1.0", "change", devtype="usb_interface", driver="ftdi_sio", **usb)
    unplug(bench, "1-4", "")
    bench.wait(3)
    assert len(bench.loud()) == 1


def test_hub_is_told_of_once_and_not_all_that_hung_on_it(bench):
    unplug(bench, "1-4.1")
    unplug(bench, "1-4.3.2")
    unplug(bench, "1-4.3", ":090000:")
    unplug(bench, "1-4", ":090000:")
    bench.wait(3)
    assert [f.subjects[0].name for f in bench.loud()] == ["1-4"]
