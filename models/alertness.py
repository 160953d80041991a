"""How alert-worthy a line sounds, from its words and the catalogue alone: the low tier's baseline path.

Knows nothing about who wrote the line or how often; a score only ranks lines, it is no probability.
"""

from __future__ import annotations

import re
from functools import cache

from models.known import load, read
from models.taxonomy import FaultClass

_LETTERS = re.compile(r"[a-z]{3,24}")
# What syslog puts before the message: time, host, program. Bounded, so that the search is linear.
_HEADER = re.compile(r"^.{0,96}?\s[\w./()-]{1,48}(?:\[\d{1,10}\])?: ")

# Weight by stem: how strongly the word alone speaks for trouble. Judgement, in the order of syslog's levels.
_STEMS: dict[float, str] = {
    0.9: "panic emerg attack exploit malware trojan virus rootkit bruteforce intrusion ransom"
    " backdoor shellcode",
    0.75: "fatal crit corrupt segfault oops breakin spoof injection phish unauthori oom malicious privilege"
    " intruder worm threat overflow traversal",
    0.6: "alert abort killed crash dumped failure failed denied illegal violation hung deadlock lockup"
    " brute suspicious blacklist unreachable forbidden mismatch tamper",
    0.5: "error invalid reject refus unable cannot lost broken exceed unknown timeout expired disallow"
    " incorrect unexpected bad banned blocked dropped badlogin nonexist relay spam",
    0.35: "warn missing degraded retry stall slow unrecogni disconnect stopped exited wrong unsupported"
    " deprecat reset terminat kill delete removed disabled root sudo probe scan maximum attempts multiple",
}
# A line that says so itself is about something that went well.
_CALM = frozenset(
    (
        "success",
        "successful",
        "successfully",
        "succeeded",
        "started",
        "info",
        "debug",
        "accepted",
        "completed",
    )
)
CALM_FACTOR = 0.6

_SPEAKS: dict[FaultClass, str] = {
    FaultClass.SERVICE_CRASH: "crash abort segfault dumped killed exited terminat exception panic",
    FaultClass.SERVICE_HUNG: "timeout hung deadlock stall unresponsive",
    FaultClass.CONFIG_ERROR: "config syntax parse directive option misconfigur",
    FaultClass.DISK_FULL: "space quota enospc",
    FaultClass.DISK_FAILING: "sector disk smart badblock",
    FaultClass.FILESYSTEM_CORRUPT: "corrupt checksum fsck inode superblock journal",
    FaultClass.MEMORY_EXHAUSTION: "memory oom swap alloc",
    FaultClass.LINK_DOWN: "link carrier interface network",
    FaultClass.NAME_RESOLUTION: "resolv dns hostname",
    FaultClass.DEPENDENCY_FAILED: "refus unreachable upstream unavailable",
    FaultClass.PRIVILEGE_MISUSE: "denied unauthori forbidden permission",
    FaultClass.AUTH_BRUTEFORCE: "password login authenticat",
    FaultClass.CERTIFICATE_EXPIRED: "certificate expired tls ssl",
}


@cache
def _stems() -> tuple[re.Pattern[str], dict[str, float]]:
    weights = {stem: weight for weight, stems in _STEMS.items() for stem in stems.split()}
    longest_first = sorted(weights, key=len, reverse=True)
    return re.compile("|".join(longest_first)), weights


@cache
def _topics() -> tuple[tuple[FaultClass, tuple[str, ...]], ...]:
    return tuple((fault, tuple(stems.split())) for fault, stems in _SPEAKS.items())


def word_weight(text: str) -> float:
    """The words' combined weight in 0..1, lowered where a word of success stands beside them."""
    pattern, weights = _stems()
    words = set(_LETTERS.findall(text.lower()))
    matches = [match for word in words if (match := pattern.match(word))]
    rest = 1.0
    for weight in sorted(weights[match[0]] for match in matches):  # in one order, so that replays agree
        rest *= 1.0 - 0.8 * weight
    score = 1.0 - rest
    return score * CALM_FACTOR if not words.isdisjoint(_CALM) else score


def speaks_for(text: str) -> dict[FaultClass, float]:
    """Faint hints (0.2) by topic words, for a line that nothing else is known about; at most two."""
    words = set(_LETTERS.findall(text.lower()))
    found = [fault for fault, stems in _topics() if any(word.startswith(stems) for word in words)]
    return dict.fromkeys(found[:2], 0.2)


def line_score(text: str) -> float:
    """Rank of one line by alert-worthiness in 0..1: by the catalogue if it knows the line, and by words."""
    catalogue = load()
    score = word_weight(text)
    body = _HEADER.sub("", text, count=1)
    for message in catalogue.candidates(text):
        if read(message, body) is not None:
            floor = max(message.score, 0.55 if message.repeat in {"login", "pam"} else 0.0)
            score = 1.0 - (1.0 - 0.6 * score) * (1.0 - floor)
            break
    return min(1.0, score)
