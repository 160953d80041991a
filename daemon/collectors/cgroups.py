"""Where control groups are mounted (v2, v1 or both), which group stands for which unit, and which exist.

Accounting is in `units`.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from daemon.collectors.kernel_files import printable, read_bytes

# unit types that hold processes, and slices, which hold other units (systemd.unit(5))
_UNIT = (".service", ".scope", ".socket", ".mount", ".swap")
_QUIET = (".mount", ".swap", ".socket", ".automount", ".device")
_CONTROLLERS_V1 = ("cpuacct", "cpu,cpuacct", "memory", "cpu", "pids", "blkio")
# in order of preference: the hierarchies in which a process's place tells its unit
_PLACES = ("name=systemd", "", "memory", "pids", "cpu,cpuacct", "cpuacct", "cpu")
_MAX_DIRECTORIES = 4096  # looked into
_MAX_MET = 16384  # named by them: a supervisor may make hundreds of thousands beside each other
_MAX_DEPTH = 8


def unit_of_path(path: str) -> str:
    """The systemd unit that a control group path belongs to, else the path itself; "" for the root.

    As systemd does it (cg_path_get_unit): the first component after the slices. What a unit delegates further
    down, a container's own init system say, belongs to that unit.
    """
    last_slice = ""
    for part in path.split("/"):
        name = part.removeprefix("_")  # systemd escapes names that would clash with the kernel's
        if name in ("", ".."):
            continue
        if name.endswith(".slice"):
            last_slice = name
        elif name.endswith(_UNIT):
            return printable(name)
        else:
            return printable(path)
    return printable(last_slice)


def parse_places(data: bytes) -> str:
    """The control group path of a process from its `cgroup` file (cgroups(7)), "/" if it is in none."""
    places: dict[str, str] = {}
    for line in data.decode("utf-8", "backslashreplace").split("\n")[:64]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path:
            places[controllers] = path
    for controllers in _PLACES:
        path = places.get(controllers, "/")
        if path.strip("/"):
            return path
    return "/"


def unit_of(proc: Path, pid: int) -> str:
    """The unit, or the control group path, of a process; "" if it has none or is gone."""
    data = read_bytes(f"{proc}/{pid}/cgroup")
    return unit_of_path(parse_places(data)) if data else ""


class Layout:
    """The control group hierarchies of this host, each the root of one tree of directories."""

    def __init__(self, sys: Path) -> None:
        root = sys / "fs/cgroup"
        self.unified: Path | None = None
        self.v1: dict[str, Path] = {}
        if (root / "cgroup.controllers").exists():
            self.unified = root
            return
        if (root / "unified/cgroup.controllers").exists():
            self.unified = root / "unified"
        for name in _CONTROLLERS_V1:
            for controller in name.split(","):
                if (root / name / "cgroup.procs").exists():
                    self.v1.setdefault(controller, root / name)

    @property
    def trees(self) -> list[Path]:
        """The hierarchies to search for groups, each once."""
        trees = [*self.v1.values()] + ([self.unified] if self.unified else [])
        return list({os.path.realpath(tree): tree for tree in trees}.values())


class Groups:
    """The groups worth accounting: units, and leaves that no unit covers; searched again when they change."""

    def __init__(self, layout: Layout) -> None:
        self._trees = [str(tree) for tree in layout.trees]
        self._links: dict[str, int] = {}
        self._met: set[str] = set()
        self.met: set[str] = set()  # all that the search before the last one came by, counted or not
        self.unreadable = ""
        self.cut = False

    def changed(self) -> bool:
        """Whether a group appeared or went away in a directory that holds others.

        A kernfs directory's link count is two plus its subdirectories, so one stat each tells.
        """
        for path, links in self._links.items():
            try:
                if os.stat(path).st_nlink != links:  # noqa: PTH116 - a Path costs more than the call
                    return True
            except OSError:
                return True
        return False

    def find(self) -> dict[str, str]:
        """Label by relative path of every group worth accounting, bounded."""
        self._links = {}
        self.met, self._met = self._met, set()
        self.unreadable, self.cut = "", False
        found: dict[str, str] = {}
        for tree in self._trees:
            self._search(tree, found)
        return found

    def _search(self, tree: str, found: dict[str, str]) -> None:
        waiting = [("", 0)]
        visited = 0
        while waiting:
            relative, depth = waiting.pop()
            visited += 1
            if visited > _MAX_DIRECTORIES:
                self.cut = True
                return
            children = self._children(tree + relative)
            inner = bool(children) or relative == "" or relative.endswith(".slice")
            if not inner:
                found.setdefault(relative, unit_of_path(relative))
            for name in children:
                if len(self._met) >= _MAX_MET:
                    self.cut = True
                    return
                path = f"{relative}/{name}"
                self._met.add(path)
                unit = name.removeprefix("_")
                if unit.endswith(_UNIT):
                    if not unit.endswith(_QUIET):
                        found.setdefault(path, unit_of_path(path))
                elif depth < _MAX_DEPTH:
                    waiting.append((path, depth + 1))

    def _children(self, path: str) -> list[str]:
        try:
            with os.scandir(path) as entries:
                names = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
                children = list(islice(names, _MAX_MET + 1))
            self._links[path] = Path(path).stat().st_nlink
        except OSError as error:
            self.unreadable = f"{path}: {error.strerror}"
            return []
        return children
