"""What an installation consists of: which file goes where, from the package's `units/`.

Everything is known by its path below a root, so that an image is filled like the host itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import daemon

UNITS = Path(daemon.__file__).parent / "units"
PROGRAM = "@hauswart@"  # in the units, where the program's absolute path belongs
UNIT_SUFFIXES = {".service", ".socket", ".timer", ".target", ".slice"}
TARGET, TIMER, SOCKET = "hauswart.target", "hauswart-retrain.timer", "hauswart-web.socket"
CONFIG = Path("etc/hauswart/hauswart.toml")
RECEIPT = Path("var/lib/hauswart/installed.json")  # what was written, to take away that and nothing else
STATE, RUNTIME = Path("var/lib/hauswart"), Path("run/hauswart")
COMMAND = Path("usr/local/bin/hauswart")
_SHARE = Path("usr/local/share")
COMPLETIONS = {
    "bash": _SHARE / "bash-completion/completions/hauswart",
    "zsh": _SHARE / "zsh/site-functions/_hauswart",
    "fish": _SHARE / "fish/vendor_completions.d/hauswart.fish",
}
# Where a daemon of one user kept a stage's own files, and where its unit looks for them.
MOVED = {
    "store.db": "store",
    "store.db-wal": "store",
    "store.db-shm": "store",
    "store.db.sums": "store",
    "positions.json": "collector",
    "pseudonym.key": "collector",
    "low.state": "low",
}
DEFAULT_CONFIG = """\
# hauswart's configuration: every key has a default, `hauswart config show` prints what is in force.
# After a change: hauswart config check && systemctl reload hauswart.target
# After the first that names whom to notify, also: systemctl start hauswart.target
# After one of [web]: systemctl try-restart hauswart-web

# [notify]
# floor = "error"                        # info, warning, error or critical
# hook = ["/usr/local/bin/on-incident"]  # gets the incident as JSON on standard input
# Apprise URLs hold credentials: one a line in /etc/credstore/hauswart.targets (root's, mode 0600).

# [top.served]                           # a served model that explains incidents better
# url = "http://127.0.0.1:11434"         # Ollama, llama.cpp, ...; then run `hauswart host install` again
# model = "qwen2.5:7b-instruct"

# [web]
# auth = "password"                      # for `systemctl enable --now hauswart-web.socket`, on 127.0.0.1:8470

# [metrics]
# listen = "unix:/run/hauswart/metrics/metrics.sock"  # or 127.0.0.1:9111; Prometheus text
"""


@dataclass(frozen=True)
class Placed:
    """A file with its content and mode; `path` is below the root."""

    path: Path
    content: bytes
    mode: int = 0o644


def files_of(program: Path) -> list[Placed]:
    """The files of an installation that runs this program."""
    found = [_unit(path, program) for path in sorted(UNITS.iterdir()) if path.suffix in UNIT_SUFFIXES]
    for name, path in (("sysusers", "etc/sysusers.d"), ("tmpfiles", "etc/tmpfiles.d")):
        found.append(Placed(Path(path, "hauswart.conf"), (UNITS / f"hauswart.{name}").read_bytes()))
    catalogues = Path("usr/local/lib/systemd/catalog")
    found += [Placed(catalogues / path.name, path.read_bytes()) for path in sorted(UNITS.glob("*.catalog"))]
    return found + [Placed(path, completion(shell)) for shell, path in COMPLETIONS.items()]


def completion(shell: str) -> bytes:
    """What teaches a shell to complete the command."""
    from typer import completion as typers  # noqa: PLC0415  # with the command line only

    make = typers.get_completion_script  # type: ignore[attr-defined]  # it is imported there, not listed
    return f"{make(prog_name='hauswart', complete_var='_HAUSWART_COMPLETE', shell=shell)}\n".encode()


def users() -> list[str]:
    """The users that the units run as."""
    lines = (UNITS / "hauswart.sysusers").read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in lines if line.startswith("u ")]


def _unit(path: Path, program: Path) -> Placed:
    text = path.read_text(encoding="utf-8").replace(PROGRAM, _quoted(program))
    return Placed(Path("etc/systemd/system", path.name), text.encode())


def _quoted(program: Path) -> str:
    """A path as systemd.service(5) wants it in a command line."""
    text = str(program).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{text}"' if any(c.isspace() or c in "'\";" for c in text) else text
