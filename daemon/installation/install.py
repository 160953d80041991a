"""Installs, upgrades and uninstalls; what was written is kept in a receipt, and only that is taken away."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from daemon.errors import ConfigError, LockedError, MissingDependencyError
from daemon.installation import files, served
from daemon.installation.files import Placed
from daemon.installation.host import Host, digest, read
from daemon.locks import find_holder

# Below these the units see nothing (ProtectHome=, PrivateTmp=), or only their owner may look.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # compared, not written


def install(host: Host, program: Path, *, start: bool) -> None:
    """Put everything in place, and start it; raises ConfigError, MissingDependencyError, LockedError."""
    check_host(host)
    if not host.is_image:
        check_program(program)
    before = _receipt(host)
    kept = _write_all(host, [*files.files_of(program), *served.drop_in(host)], before)
    written = sorted(set(kept) | _write_config(host, kept, before))
    host.run("systemd-sysusers", str(_conf(host, "sysusers")))
    host.run("systemd-tmpfiles", "--create", str(_conf(host, "tmpfiles")))
    if _move_state(host):
        host.run("systemd-tmpfiles", "--create", str(_conf(host, "tmpfiles")))
    _own_config(host)
    host.link(files.COMMAND, program)
    _keep_receipt(host, {path: kept[path] for path in written}, program)
    host.run("journalctl", "--update-catalog")
    host.run("systemctl", "daemon-reload", here=False)
    host.run("systemctl", "enable", "--quiet", files.TARGET)
    if start:  # after an upgrade the stages run the old program until then
        host.run("systemctl", "restart" if before else "start", files.TARGET, here=False)


def uninstall(host: Host, *, purge: bool) -> None:
    """Stop everything and take away what `install` wrote; the state and its users stay unless purged."""
    check_host(host)
    before = _receipt(host)
    if before:
        wanted = [name for name in (files.TARGET, files.TIMER, files.SOCKET) if _unit(host, name)]
        host.run("systemctl", "stop", "hauswart-*", here=False, may_fail=True)
        host.run("systemctl", "disable", "--quiet", *wanted, may_fail=True)
    for name, known in before.items():
        path = Path(name)
        content = read(host.at(path))
        if content is not None and digest(content) != known:
            host.say(f"keep {host.at(path)}: it was edited")
        else:
            host.remove(path)
    if (link := host.at(files.COMMAND)).is_symlink() and str(link.readlink()) == _program(host):
        host.remove(files.COMMAND)
    host.remove(files.RECEIPT)
    if before:
        host.run("journalctl", "--update-catalog")
        host.run("systemctl", "daemon-reload", here=False)
        host.run("systemctl", "reset-failed", "hauswart*", here=False, may_fail=True)
    host.remove_tree(files.RUNTIME)
    if purge:
        _purge(host)


def check_host(host: Host) -> None:
    """Raises where nothing can be installed: no systemd, NixOS, not root."""
    if host.at(Path("etc/NIXOS")).exists():
        raise ConfigError("NixOS installs through its module", hint="services.hauswart.enable = true")
    if not host.is_image and not Path("/run/systemd/system").is_dir():
        raise MissingDependencyError(
            "this host does not run systemd", hint="`hauswart run` needs none; or --root for an image"
        )
    if not os.access(host.root, os.W_OK):
        raise ConfigError(f"{host.root} is not writable", hint="run as root")


def check_program(program: Path) -> None:
    """Raises ConfigError where the units' users could not run it."""
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{program} cannot be run", hint="name the program with --program")
    python = (
        Path(sys.prefix).resolve(),
        Path(sys.base_prefix).resolve(),
    )  # a venv's, and what it was made of
    for path in (program, program.resolve(), *python):
        hidden = next((one for one in HIDDEN if path.is_relative_to(one)), "")
        if hidden:
            raise ConfigError(
                f"{path} lies in {hidden}, where the units cannot see it",
                hint="python3 -m venv /opt/hauswart && /opt/hauswart/bin/pip install .",
            )
        for folder in path.parents:
            if not folder.stat().st_mode & 0o001:
                raise ConfigError(
                    f"{folder} is closed to other users, and {path} lies in it",
                    hint=f"chmod o+x {folder}, or install elsewhere",
                )


def find_program(given: Path | None) -> Path:
    """The absolute path of the program that the units run: given, or what runs now. Raises ConfigError."""
    if given is not None:
        return given.absolute()
    found = shutil.which(sys.argv[0])
    beside = Path(sys.executable).with_name("hauswart")  # where `python -m daemon` runs
    path = Path(found) if found and Path(found).suffix != ".py" else beside
    if not path.exists():
        raise ConfigError(f"there is no program {path}", hint="name it with --program")
    return path.absolute()


# --- one step each ------------------------------------------------------------------------------------------


def _write_all(host: Host, placed: list[Placed], before: dict[str, str]) -> dict[str, str]:
    """Write what differs; the digests of what is there then. A file that somebody edited is kept beside."""
    kept: dict[str, str] = {}
    for one in placed:
        name, content = str(one.path), read(host.at(one.path))
        if (
            content is not None
            and name in before
            and digest(content) not in {before[name], digest(one.content)}
        ):
            host.set_aside(one.path)
        host.write(one)
        kept[name] = digest(one.content)
    for name in before.keys() - kept.keys() - {str(files.CONFIG)}:
        host.remove(Path(name))  # a former version's
    return kept


def _write_config(host: Host, kept: dict[str, str], before: dict[str, str]) -> set[str]:
    """A default configuration where there is none; it is the operator's as soon as he edits it."""
    name, content = str(files.CONFIG), files.DEFAULT_CONFIG.encode()
    if read(host.at(files.CONFIG)) is None:
        host.write(Placed(files.CONFIG, content, 0o640))
    elif name not in before:
        return set()
    kept[name] = before.get(name) or digest(content)
    return {name}


def _own_config(host: Host) -> None:
    """The stages read the configuration, nobody else but root does."""
    path = host.at(files.CONFIG)
    group = _group_id(host)
    if host.dry or group is None or path.stat().st_gid == group or path.stat().st_mode & 0o004:
        return
    os.chown(path, 0, group)


def _group_id(host: Host) -> int | None:
    for line in (read(host.at(Path("etc/group"))) or b"").decode().splitlines():
        if line.startswith("hauswart:"):
            return int(line.split(":")[2])
    return None


def _move_state(host: Host) -> bool:
    """Give what `hauswart run` kept in one folder to the stages' own ones. Raises LockedError."""
    if find_holder(host.at(files.STATE / "lock")) is not None:
        raise LockedError("`hauswart run` uses the state", hint="end it, then install again")
    count = host.changed
    for name, folder in files.MOVED.items():
        host.move(files.STATE / name, files.STATE / folder)
    return host.changed > count


def _receipt(host: Host) -> dict[str, str]:
    return dict(_read_receipt(host).get("files", {}))


def _program(host: Host) -> str:
    return str(_read_receipt(host).get("program", ""))


def _read_receipt(host: Host) -> dict[str, dict[str, str]]:
    content = read(host.at(files.RECEIPT))
    try:
        found = json.loads(content) if content else {}
    except ValueError as error:
        raise ConfigError(
            f"{host.at(files.RECEIPT)} is damaged: {error}", hint="remove it and install again"
        ) from error
    return found if isinstance(found, dict) else {}


def _keep_receipt(host: Host, kept: dict[str, str], program: Path) -> None:
    content = {"version": version("hauswart"), "program": str(program), "files": kept}
    host.write(Placed(files.RECEIPT, json.dumps(content, indent=1).encode() + b"\n", 0o640))


def _conf(host: Host, kind: str) -> Path:
    return host.at(Path(f"etc/{kind}.d/hauswart.conf"))


def _unit(host: Host, name: str) -> bool:
    return host.at(Path("etc/systemd/system", name)).exists()


def _purge(host: Host) -> None:
    host.remove_tree(files.STATE)
    host.remove_tree(files.CONFIG.parent)
    for user in files.users():
        host.run("userdel", user, may_fail=True)
    host.run("groupdel", "hauswart", may_fail=True)
