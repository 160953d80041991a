"""What opens the top tier's unit for a served model and nothing else; none unless one is set."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path

from daemon.errors import ConfigError
from daemon.inquiries import CREDENTIAL
from daemon.installation.files import CONFIG, Placed
from daemon.installation.host import Host, read
from models.chat import is_loopback, parse

DROP_IN = Path("etc/systemd/system/hauswart-top.service.d/served.conf")
ANYWHERE = "any"


def drop_in(host: Host) -> list[Placed]:
    """The unit's drop-in for the address that the host's configuration names. Raises ConfigError."""
    url = _url(host)
    return [Placed(DROP_IN, contents(url).encode())] if url else []


def contents(url: str) -> str:
    """The drop-in's text."""
    reach = reachable(url)
    name = "# systemd knows addresses, no names: this one may be anywhere.\n" if reach == ANYWHERE else ""
    return (
        "# Written by `hauswart host install`, since [top.served] in the configuration names a server.\n"
        "[Service]\n"
        f"LoadCredential={CREDENTIAL}\n"
        "PrivateNetwork=no\n"
        "RestrictAddressFamilies=AF_INET AF_INET6\n"
        f"{name}IPAddressAllow={reach}\n"
    )


def reachable(url: str) -> str:
    """What IPAddressAllow= has to name: loopback, one address, or any for a name. Raises ConfigError."""
    address = parse(url)
    if is_loopback(address):
        return "localhost"
    try:
        return str(ipaddress.ip_address(address.hostname or ""))
    except ValueError:
        return ANYWHERE


def _url(host: Host) -> str:
    content = read(host.at(CONFIG))
    try:
        found = tomllib.loads((content or b"").decode())
    except ValueError as error:
        raise ConfigError(f"configuration {host.at(CONFIG)} is not TOML: {error}") from error
    table = found.get("top", {})
    url = table.get("served", {}).get("url", "") if isinstance(table, dict) else ""
    return url if isinstance(url, str) else ""
