"""What the low tier's model reads and says of one log line: `encode` makes its text, `decode` its verdict.

Training and serving share this code, so that a C format string of the kernel's sources and the line that it
prints become the same words. It knows nothing about the model, about templates or about who wrote the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from json import JSONDecoder
from math import exp, log
from typing import Any, NamedTuple

from models.masking import mask
from models.taxonomy import Category, Severity

FEATURES_VERSION = 1  # raise it when the same line gets another text: a model serves only the text it learnt

SEVERITY_CLASSES = ("err-or-worse", "warning", "notice-or-info", "debug")
CATEGORIES = tuple(Category)
HEADS = {"severity": len(SEVERITY_CLASSES), "alert": 1, "category": len(CATEGORIES)}

READ_CHARS = 1024  # of a line
JSON_CHARS = 16384  # a structured line is read whole, since what it says may stand at its end
JSON_PAIRS = 60
JSON_LEAVES = 192
# Of the encoded text. The network's 40 tokens end long before, the words that speak for an alert do not.
TEXT_CHARS = 1000
_SEVERITY_OF = (Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.INFO)
_LEAST = 1e-6  # probabilities below it are as good as none

# printf(3) and the kernel's core-api/printk-formats: what a conversion prints, as an example of it.
_FORMAT = re.compile(
    r"%[-+ #0']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|q|j|z|t|L)?(?P<kind>[dioux]|[Xcs](?![A-Z])"
    r"|p(?:I[46S]|i[46S]|M|m|U|d|D|e|[A-Za-z]?)[A-Za-z0-9]*)"
)
_PRINTS = {"pI": "10.0.0.1", "pi": "10.0.0.1", "pM": "00:00:00:00:00:00", "pm": "00:00:00:00:00:00"}
_NAMED = frozenset("dDsSBVO")  # symbols, file names, structures by name

# Network devices: %FACILITY-SEVERITY-MNEMONIC, the severity as in RFC 5424, table 2.
_FACILITY = re.compile(r"%([A-Z][A-Z0-9_]{1,15})-([0-7])-(\w{1,40})")
_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")

# What stands before a message in a log file: priority, time, host, program. All repeats are bounded.
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_DATE = (
    rf"(?:\d{{4}} )?[A-Z][a-z]{{2}} {{1,2}}\d{{1,2}}(?: \d{{4}})? {_CLOCK}(?: \d{{4}})?"
    rf"|\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}|\d\d[-/](?:\d\d|[A-Z][a-z]{{2}})[-/]\d{{4}}[ :]{_CLOCK}"
)
_STAMP = re.compile(
    rf"(?:<\d{{1,3}}>)?(?:1 )?\[?(?:[A-Z][a-z]{{2}},? )?(?:{_DATE})(?: [+-]\d{{4}})?\]?:?\s{{1,3}}"
)
_PID = r"(?:\([\w.-]{1,32}\))?\[\d{1,10}\]: "
_PROGRAM = re.compile(rf"(?:[\w.:-]{{1,64}} )?([A-Za-z][\w./-]{{0,47}})(?:{_PID}|: )")
_PROCESS = re.compile(rf"(?:[\w.:-]{{1,64}} ){{0,3}}([A-Za-z][\w./-]{{0,47}}){_PID}")
_UPTIME = re.compile(r"\[ {0,8}\d{1,10}\.\d{6}\] ")

# Keys of structured lines that say what happened; their pairs come first.
_TELLING = re.compile(
    r"act(?:ion|ivity)|alert|category|cause|command ?line|description|detail|error|event ?(?:name|type)|fail"
    r"|level|message|method ?name|msg|name|note|operation|outcome|reason|result|risk|rule|severity|signature"
    r"|state|status|technique|text|threat|title|type",
    re.IGNORECASE,
)

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_MARKS = re.compile(r"""[\\"`{}\[\]]+|(?<!\w)'|'(?!\w)""")
_RUN = re.compile(r"(<\w+>)(?:[\s,.:;/x*-]*\1)+")
_REPEAT = re.compile(r"([^\w\s])\1+")
_SPACE = re.compile(r"\s+")
_JSON = JSONDecoder()
_WORDY = re.compile(r"(?i)(?<![\w-])[a-z][a-z_. ]{2}|[a-z]{4}")
_NAME_DIGITS = re.compile(r"\d+")


class LineVerdict(NamedTuple):
    """What the model makes of a line; `alert` and the severity scores are probabilities."""

    category: Category
    severity: Severity
    alert: float
    severity_scores: tuple[float, ...]  # in the order of SEVERITY_CLASSES
    severity_class: str  # the decision after thresholds, not always the likeliest class


def encode(text: str, program: str = "") -> str:
    """The model's text of a line, or of a C format string: masked, in lower case, at most TEXT_CHARS long.

    A syslog header that `text` still carries is cut off and names the program, unless `program` is given.
    """
    found, body = split_header(text[:JSON_CHARS])
    body = (_pairs(body) if "{" in body[:64] else "") or body[:READ_CHARS]
    if "%" in body:
        body = _FORMAT.sub(_printed, _FACILITY.sub(_levelled, body))
    words = plain(body)
    name = _NAME_DIGITS.sub("0", plain(program or found))[:32]
    name = "" if name == "kernel" else name  # the kernel is who speaks when nobody is named
    return (f"{name} | {words}" if name else words)[:TEXT_CHARS]


def split_header(text: str) -> tuple[str, str]:
    """Program ("" if none is named) and message of a line that may begin with a syslog header."""
    stamp = _STAMP.match(text)
    rest = text[stamp.end() :] if stamp else text
    program = _PROGRAM.match(rest) if stamp else _PROCESS.match(rest)
    body = rest[program.end() :] if program else rest
    uptime = _UPTIME.match(body)
    return program[1].rpartition("/")[2] if program else "", body[uptime.end() :] if uptime else body


def plain(text: str) -> str:
    """Masked, in lower case, without quotes and brackets, words of CamelCase apart, equal values as one."""
    masked = mask(_CAMEL.sub(" ", _MARKS.sub(" ", text))).lower()
    return _SPACE.sub(" ", _REPEAT.sub(r"\1", _RUN.sub(r"\1", masked))).strip()


def _pairs(text: str) -> str:
    """Keys and values of the JSON object in a line, the telling ones first; "" if it holds none."""
    start = text.find("{")
    try:
        found, _ = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        return ""
    pairs = list(islice(_leaves(found, ""), JSON_LEAVES))
    pairs.sort(key=lambda pair: _TELLING.search(pair[0]) is None)
    said = "; ".join(f"{key} {value}" for key, value in pairs[:JSON_PAIRS])
    return f"{text[:start]} {said}"


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The texts and truths of a JSON value with their keys; numbers and random names say nothing."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, str(name)[:48])
    elif isinstance(value, list):
        for inner in value[:8]:
            yield from _leaves(inner, key)
    elif isinstance(value, bool) or (isinstance(value, str) and _WORDY.search(value[:64])):
        yield key, str(value)[:160]


def decode(scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]) -> LineVerdict:
    """The verdict from the probabilities of each head.

    `thresholds["severity.CLASS"]` is added to that class's log-probability before the likeliest is chosen
    (logit adjustment, Menon et al. 2021); a class without one is taken as it is.
    """
    severities = tuple(float(score) for score in scores["severity"])
    adjusted = [
        log(max(score, _LEAST)) + thresholds.get(f"severity.{name}", 0.0)
        for name, score in zip(SEVERITY_CLASSES, severities, strict=True)
    ]
    chosen = adjusted.index(max(adjusted))
    topics = scores["category"]
    topic = max(range(len(CATEGORIES)), key=lambda index: topics[index])
    return LineVerdict(
        category=CATEGORIES[topic],
        severity=_SEVERITY_OF[chosen],
        alert=sharpen(float(scores["alert"][0]), thresholds),
        severity_scores=severities,
        severity_class=SEVERITY_CLASSES[chosen],
    )


def sharpen(alert: float, thresholds: Mapping[str, float]) -> float:
    """The alert probability calibrated by Platt's two numbers, `alert.scale` and `alert.shift`."""
    bounded = min(max(alert, _LEAST), 1.0 - _LEAST)
    logit = log(bounded / (1.0 - bounded)) * thresholds.get("alert.scale", 1.0)
    power = -logit - thresholds.get("alert.shift", 0.0)
    return 1.0 / (1.0 + exp(min(max(power, -500.0), 500.0)))  # a bundle may calibrate absurdly


def _levelled(match: re.Match[str]) -> str:
    return f"{match[1]} {_LEVELS[int(match[2])]} {match[3]}"


def _printed(match: re.Match[str]) -> str:
    kind = match["kind"]
    if kind[0] == "p":
        return _PRINTS.get(kind[:2], "0" if kind == "pe" else "<str>" if kind[1:2] in _NAMED else "0x0a")
    if kind in "xX":
        before = match.string[max(0, match.start() - 2) : match.start()]
        return "0a" if before in {"0x", "0X"} else "0x0a"
    return "<str>" if kind in "scm" else "0"
