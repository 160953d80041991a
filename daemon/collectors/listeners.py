"""Who does not accept in time: listening TCP sockets whose queue is full, by unit (sock_diag(7)).

The kernel tells the control group of each socket since 5.9; so it needs no /proc/PID/fd, no privilege.
One message in a few answers; only worth asking while connections are turned away.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from daemon.collectors.cgroups import Layout, unit_of_path
from daemon.collectors.netlink import DONE, ERROR, attributes, messages, request

# include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h, include/net/tcp_states.h
_SOCK_DIAG = 4
_BY_FAMILY = 20
_LISTEN = 10
_CGROUP_ID = 21
_REQUEST = struct.Struct("=BBBBI48x")
_QUEUES = struct.Struct("=II")  # how many wait, how many may
_QUEUES_AT, _FIXED_BYTES = 56, 72  # idiag_rqueue; all of inet_diag_msg
_RECEIVE_BYTES = 65536
_TIMEOUT_S = 0.2
_MAX_ANSWERS = 64
_MAX_DIRECTORIES = 4096


def parse(data: bytes) -> Iterator[tuple[int, int]]:
    """How many connections wait in each full queue, and the number of the control group that listens."""
    for kind, _, payload in messages(data):
        if kind != _BY_FAMILY or len(payload) < _FIXED_BYTES or payload[1] != _LISTEN:
            continue
        waiting, most = _QUEUES.unpack_from(payload, _QUEUES_AT)
        if not 0 < most <= waiting:
            continue
        for attribute, value in attributes(payload[_FIXED_BYTES:]):
            if attribute == _CGROUP_ID and len(value) == 8:
                yield waiting, struct.unpack("=Q", value)[0]


def full_queues(sys: Path) -> dict[str, float]:
    """`backlog{UNIT}`: connections that wait where no more may; nothing where the kernel does not tell."""
    waiting: Counter[int] = Counter()
    for family in (socket.AF_INET, socket.AF_INET6):
        for count, group in _ask(family):
            waiting[group] += count
    named = _named(sys, set(waiting)) if waiting else {}
    found: Counter[str] = Counter()
    for group, count in waiting.items():
        if unit := named.get(group, ""):
            found[f"backlog{{{unit}}}"] += count
    return {name: float(count) for name, count in found.items()}


def _ask(family: int) -> list[tuple[int, int]]:
    """All of one family; nothing where sock_diag is not to be had."""
    found: list[tuple[int, int]] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as sock:
            sock.settimeout(_TIMEOUT_S)
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN)
            sock.send(request(_BY_FAMILY, 1, body))
            for _ in range(_MAX_ANSWERS):
                data, (sender, _) = sock.recvfrom(_RECEIVE_BYTES)
                if sender != 0:
                    continue  # only the kernel speaks of sockets
                found += parse(data)
                if any(kind in {DONE, ERROR} for kind, *_ in messages(data)):
                    break
    except OSError:
        return found
    return found


def _named(sys: Path, groups: set[int]) -> dict[int, str]:
    """The units of control groups; a group's number is the inode of its directory."""
    tree = Layout(sys).unified
    waiting, visited = [str(tree)] if tree else [], 0
    named: dict[int, str] = {}
    while waiting and groups - named.keys() and visited < _MAX_DIRECTORIES:
        path = waiting.pop()
        visited += 1
        try:
            with os.scandir(path) as entries:
                children = [one for one in entries if one.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for child in children:
            if child.inode() in groups:
                named[child.inode()] = unit_of_path(child.path.removeprefix(str(tree)))
            waiting.append(child.path)
    return named
