"""Full listen queues, against this kernel's sock_diag and against hostile messages."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors import listeners
from daemon.collectors.listeners import full_queues, parse
from daemon.collectors.netlink import request


@pytest.fixture
def crowded():
    """A server with room for one that accepts nobody, and three clients that want in."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        clients = [socket.socket() for _ in range(3)]
        for one in clients:
            one.settimeout(0)
            one.connect_ex(server.getsockname())
        yield server
        for one in clients:
            one.close()


def answer(waiting, most, group=7, state=10):
    fixed = bytes([socket.AF_INET, state]) + bytes(54) + struct.pack("=IIII", waiting, most, 0, 0)
    return request(20, 1, fixed + struct.pack("=HHQ", 12, 21, group))


def test_full_queue_is_seen_and_an_empty_one_is_not(crowded):
    with socket.create_server(("127.0.0.1", 0), backlog=5):
        found = listeners._ask(socket.AF_INET)
    if not found:
        pytest.skip("this kernel does not tell a socket's control group")
    assert [waiting for waiting, _ in found] == [2]


def test_unit_is_the_directory_whose_number_the_kernel_gave(tmp_path, monkeypatch):
    group = tmp_path / "fs/cgroup/system.slice/web.service"
    group.mkdir(parents=True)
    (tmp_path / "fs/cgroup/cgroup.controllers").touch()
    told = {socket.AF_INET: [(5, group.stat().st_ino), (9, 1)], socket.AF_INET6: [(4, group.stat().st_ino)]}
    monkeypatch.setattr(listeners, "_ask", told.get)
    assert full_queues(tmp_path) == {"backlog{web.service}": 9.0}


def test_only_a_queue_without_room_counts():
    assert list(parse(answer(8, 8))) == [(8, 7)]
    assert list(parse(answer(7, 8))) == []
    assert list(parse(answer(0, 0))) == []
    assert list(parse(answer(8, 8, state=1))) == []


@given(st.binary(max_size=300))
def test_any_answer_is_survived(data):
    list(parse(data))
    list(parse(answer(8, 8)[:-4] + data))
