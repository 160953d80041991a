"""Users and addresses as keyed, stable stand-ins, so that stored text names nobody; works on cleaned text.

An IPv4 address becomes one of 240.0.0.0/4 (reserved, RFC 1112), an IPv6 address one of 100::/64
(discard-only, RFC 6666), a MAC a locally administered one: masks and detectors still see an address.
Accounts of the system (uid below 1000) and loopback name no person and stay. The key never leaves its file.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from daemon.errors import ConfigError, IntegrityError
from daemon.ingest import clean
from daemon.messages import MAX_TEXT
from models.digest import blake2b

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32

_FIRST_PERSON_UID = 1000  # login.defs(5) UID_MIN, systemd's and NixOS' first regular user
_NOBODY_UID = 65534
_MAX_NAMES = 1000

_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)", re.ASCII)
_COLONS = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)", re.ASCII)
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_NAME = r"[A-Za-z_][\w.@+-]{0,63}\$?"
_USERS = (
    re.compile(rf"(\b(?:for|of|from|invalid|illegal) user )({_NAME})", re.IGNORECASE | re.ASCII),
    re.compile(rf"(\bfor )({_NAME})(?= from )", re.ASCII),
    re.compile(rf"(\b(?:r?user|acct|logname|login|account|username)=\"?)({_NAME})", re.IGNORECASE | re.ASCII),
    re.compile(rf"(^|\bby )({_NAME})(?= : (?:TTY=|user NOT |PWD=)|\(uid=\d)", re.ASCII),
    re.compile(rf"(/home/)({_NAME})", re.ASCII),
    re.compile(r"((?<![\w.+-]))([\w.+-]{1,64})(?=@[\w-]{1,63}\.)", re.ASCII),
)


def open_pseudonyms(state_dir: Path, passwd: Path = Path("/etc/passwd")) -> Pseudonyms:
    """The stand-ins of this host, with its key made on first use; raises ConfigError or IntegrityError."""
    return Pseudonyms(_read_key(state_dir / KEY_FILE), *_read_accounts(passwd))


class Pseudonyms:
    """Replaces users and addresses; the same key gives the same stand-in for ever."""

    def __init__(self, key: bytes, people: Iterable[str] = (), system: Iterable[str] = ("root",)) -> None:
        self._key = key
        self._system = frozenset(system)
        names = sorted(set(people), key=len, reverse=True)[:_MAX_NAMES]
        self._people = (
            re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w-])") if names else None
        )
        self.user = lru_cache(4096)(self._user)
        self.address = lru_cache(4096)(self._address)

    def clean(self, raw: bytes | str) -> tuple[str, bool]:
        """Like `ingest.clean`, and without users and addresses."""
        text, cut = clean(raw)
        for pattern in _USERS:
            text = pattern.sub(self._replace_user, text)
        if self._people:
            text = self._people.sub(lambda match: self.user(match[0]), text)
        text = _IPV4.sub(lambda match: self.address(match[0]), text)
        if ":" in text:
            text = _COLONS.sub(lambda match: self.address(match[0]), text)
        return text[:MAX_TEXT], cut or len(text) > MAX_TEXT

    def _replace_user(self, match: re.Match[str]) -> str:
        return match[1] + self.user(match[2])

    def _user(self, name: str) -> str:
        """The stand-in `user-xxxxxxxx` of an account; accounts of the system keep their name."""
        if not name or name in self._system or name.startswith("user-"):
            return name
        return f"user-{self._digest(name, 4).hex()}"

    def _address(self, text: str) -> str:
        """The stand-in of an IPv4, IPv6 or MAC address; anything else, and loopback, stays."""
        if _MAC.fullmatch(text):
            return text if text.startswith("02:00:") else "02:00:" + self._digest(text.lower(), 4).hex(":")
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if address.is_loopback or address.is_unspecified:
            return text
        return self._stand_in(address)

    def _stand_in(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        digest = self._digest(str(address), 8)
        if address.version == 4:
            kept = address.packed[0] >= 240  # a stand-in already, or the broadcast address
            return str(address) if kept else f"{240 | digest[0] & 15}.{digest[1]}.{digest[2]}.{digest[3]}"
        if address.packed.startswith(b"\x01\x00" + bytes(6)):
            return str(address)
        return str(ipaddress.IPv6Address(b"\x01\x00" + bytes(6) + digest))

    def _digest(self, text: str, size: int) -> bytes:
        return blake2b(text.encode("utf-8", "backslashreplace"), key=self._key, digest_size=size).digest()


def _read_key(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"key for pseudonyms {path}: {error.strerror}", hint="make it writable once"
        ) from error
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    return _check_key(path)


def _check_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"key for pseudonyms {path}: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise IntegrityError(
            f"{path} holds {len(key)} bytes, not {KEY_BYTES}", hint="restore or remove the file"
        )
    return key


def _read_accounts(passwd: Path) -> tuple[list[str], list[str]]:
    """Names of people and of the system's accounts, from passwd(5); unknown people are found by context."""
    people: list[str] = []
    system = ["root"]
    try:
        lines = passwd.read_text(errors="backslashreplace").splitlines()
    except OSError:
        return people, system
    for line in lines:
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():
            person = _FIRST_PERSON_UID <= int(fields[2]) != _NOBODY_UID
            (people if person and len(fields[0]) > 1 else system).append(fields[0])
    return people, system
