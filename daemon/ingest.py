"""The one gate for foreign text: cuts, redacts, escapes; knows nothing about where a text came from.

Every text that a collector puts into a message passes `clean` (or `Pseudonyms.clean`, which also hides users
and addresses). Its work per text is bounded by MAX_TEXT, not by the length of what arrives, and every pattern
is linear: either it consumes what it looked at, or what it looks at has a small upper bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from daemon.messages import MAX_TEXT

Clean = Callable[[bytes | str], tuple[str, bool]]

REDACTED = "[redacted]"

_WINDOW = MAX_TEXT + 512  # a secret that straddles the cut is still recognised
_WINDOW_BYTES = 4 * _WINDOW  # UTF-8 has at most four bytes a character

# Printable for Python, invisible on a screen: combining joiner, Hangul, Khmer and Mongolian fillers, empty
# Braille pattern; variation selectors are a range.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u2800")
_FOREIGN = re.compile(r"[^\x20-\x7e]+")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": " "}  # a tab parts words, as many loggers have it after a level


def clean(raw: bytes | str) -> tuple[str, bool]:
    """The text fit for a Line, at most MAX_TEXT characters, and whether some of it was cut off."""
    text, cut = _decode(raw)
    low = text.lower()
    if _suspicious(low):
        text = _redact(text, low)
    if not (text.isascii() and text.isprintable()):
        text = _FOREIGN.sub(_escape_run, text)
    if len(text) > MAX_TEXT:
        return text[:MAX_TEXT], True
    return text, cut


def redact(text: str) -> str:
    """The text without passwords, tokens and keys, uncut: for what goes to a served model."""
    low = text.lower()
    return _redact(text, low) if _suspicious(low) else text


def _decode(raw: bytes | str) -> tuple[str, bool]:
    cut = False
    if isinstance(raw, bytes):
        cut = len(raw) > _WINDOW_BYTES
        raw = (raw[:_WINDOW_BYTES] if cut else raw).decode("utf-8", "backslashreplace")
    if len(raw) > _WINDOW:
        return raw[:_WINDOW], True
    return raw, cut


def _escape_run(match: re.Match[str]) -> str:
    return "".join(map(_escape, match[0]))


def _escape(char: str) -> str:
    if char.isprintable() and char not in _INVISIBLE and not _is_selector(char):
        return char
    return _NAMED.get(char) or char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


# --- secrets ------------------------------------------------------------------------------------------


def _suspicious(low: str) -> bool:
    """Whether one of the words occurs that every pattern below needs; `in` is the fastest search there is."""
    return (  # about 50 ns a word; one regular expression over the same words takes twice as long
        "pass" in low
        or "pwd" in low
        or "secret" in low
        or "token" in low
        or ("key" in low and _names_key(low))
        or "authoriz" in low
        or "credential" in low
        or "cookie" in low
        or "bearer" in low
        or "identified" in low
        or "//" in low
        or "eyj" in low
        or "akia" in low
        or "asia" in low
        or "aiza" in low
        or "hvs." in low
        or "sig" in low
        or ("-" in low and _after_dash(low))
        or ("_" in low and _vendor_prefix(low))
    )


def _after_dash(low: str) -> bool:
    return "-u" in low or "sk-" in low or "glpat-" in low or "pypi-" in low or "xox" in low


def _vendor_prefix(low: str) -> bool:
    return (
        "sk_" in low
        or "npm_" in low
        or "ghp_" in low
        or "gho_" in low
        or "ghs_" in low
        or "ghu_" in low
        or "ghr_" in low
        or "github_pat" in low
    )


_KEYWORD = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|(?<!load)(?<!import)credentials?"
    r"|token(?![\"']?\s{0,3}[=:]\s{0,3}[0-9]{1,9}(?:[\s,;.)\]}]|$))"  # a count of tokens is no secret
    r"|(?:api|access|private|secret|encryption|signing|auth|shared|master|account|storage)[_\- .]?key"
    r"|(?:client|app|shared)[_-]?secret)"
    r"(?:[_-]?(?:access[_-]?key|key|hash|digest|value|text|data|string|[0-9]{1,2}))?"
)
# What follows `password:` in prose, or says only that there is one (`using password: YES`).
_PROSE = (
    r"(?!(?:yes|no|none|null|nil|true|false|empty|ok|authentication|changed|expired|invalid|incorrect|wrong"
    r"|required|failed|failure|check|mismatch|not|is|for|must|too|has|was|the|all|user|unknown|missing"
    r"|unexpected|error|cannot|can|could|no|an?|permission\sdenied|you\s(?:may|must|can|are|have)|\*+|token)(?:[\s,;.:)\]}'\"]|$)|[{(<]|0x)"
)
_PATHS = r"(?!/(?:etc|run|var|home|root|usr|nix|srv|opt|tmp|mnt|dev|proc|sys)/)"
_QUOTED = r"\"[^\"]*(?:\"|$)|'[^']*(?:'|$)"
_PAM = r"(?!:(?:auth|setcred|account|session|chauthtok)\))"  # pam_syslog(3): `pam_unix(passwd:chauthtok)`
_ASSIGNED = re.compile(
    rf"({_KEYWORD}){_PAM}(\\?[\"']?\s{{0,3}}(?:=>|:=|[=:])\s{{0,3}})"
    rf"(?:{_QUOTED}|{_PROSE}{_PATHS}(?:\[redacted\]|[^\s,;&\"')}}\]]+))",
    re.IGNORECASE,
)
_SHORT_NAMES = re.compile(
    r"(?<!\w)(pass|sig|signature|authtoken)=(?!\[redacted\]|(?:0x[0-9a-f]{1,16}|-?[0-9]{1,9})\b)[^\s,;&\"')]+",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"(?<![\w-])(--(?:[a-z]{{1,16}}-){{0,2}}{_KEYWORD}|--pass)\s{{1,3}}(?![-\[])(?:{_QUOTED}|\S+)",
    re.IGNORECASE,
)
_USER_OPTION = re.compile(r"(?<!\S)(-u|--user)\s{1,3}([^\s:\[]{1,64}):(?!\d+(?:\s|$))\S+")
_SQL = re.compile(r"\b(password|by)(\s{1,3})(?:'[^']*(?:'|$)|\"[^\"]*(?:\"|$))", re.IGNORECASE)
_HEADER = re.compile(
    r"(authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?!\[redacted\])"
    r"(?:digest\s[^\r\n]+|(?:(?:basic|bearer|negotiate|ntlm|token|apikey)\s{1,3})?[^\s\"',;]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer\s{1,3})(?=[^\s\d]{0,64}\d)[\w.~+/=-]{8,}", re.IGNORECASE | re.ASCII)
_COOKIE = re.compile(r"\b((?:set-)?cookie2?[\"']?\s?:\s?[\"']?)(?=[\w.-]{1,64}=)[^\"'\r\n]+", re.IGNORECASE)
_URL = re.compile(r"(//[^\s/?#:@\"'<>]{0,128}:)(?!\[redacted\])[^\s/?#\"'<>]{1,256}@")
_URL_TOKEN = re.compile(r"(//)(?=[^\s/@\d]{0,64}\d)[^\s/?#:@\"'<>\[]{20,256}@")
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----).*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|$)",
    re.DOTALL,
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]*(?:\.[\w-]*)*", re.ASCII)
_AWS = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])")
_VENDOR = re.compile(
    r"(?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|sk-[\w-]{20,}|sk_(?:live|test)_\w{16,}|hvs\.[\w-]{20,}|npm_\w{30,}|pypi-[\w-]{30,}|AIza[\w-]{30,}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,})",
    re.ASCII,
)

_VENDOR_WORDS = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat", "glpat", "xox", "sk-", "sk_live", "sk_test"),
    *("hvs.", "npm_", "pypi-", "aiza", "age-secret"),
)

_ASSIGNED_WORDS = ("passw", "passp", "passc", "pwd", "secret", "token", "credential")
_ASSIGNED_KEY = re.compile(r"key[\w\-\\\"']{0,20}\s{0,3}[=:]")

# words of which one must occur (lower case), the pattern, what it becomes
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("private key",), _PRIVATE_KEY, rf"\1 {REDACTED}"),
    (("authorization",), _HEADER, rf"\1{REDACTED}"),
    (("bearer",), _BEARER, rf"\1{REDACTED}"),
    (("cookie",), _COOKIE, rf"\1{REDACTED}"),
    (("//",), _URL, rf"\1{REDACTED}@"),
    (("//",), _URL_TOKEN, rf"\1{REDACTED}@"),
    (("eyj",), _JWT, REDACTED),
    (("akia", "asia"), _AWS, REDACTED),
    (_VENDOR_WORDS, _VENDOR, REDACTED),
    (("--",), _OPTION, rf"\1 {REDACTED}"),
    (("-u",), _USER_OPTION, rf"\1 \2:{REDACTED}"),
    (("'", '"'), _SQL, rf"\1\2{REDACTED}"),
    (("pass=", "sig=", "signature=", "authtoken="), _SHORT_NAMES, rf"\1={REDACTED}"),
)


def _redact(text: str, low: str) -> str:
    for words, pattern, replacement in _RULES:
        for word in words:
            if word in low:
                text = pattern.sub(replacement, text)
                break
    if ("=" in low or ":" in low) and _names_secret(low):
        return _ASSIGNED.sub(rf"\1\2{REDACTED}", text)  # the dearest pattern (20 us), hence the extra check
    return text


def _names_key(low: str) -> bool:
    """Whether it is a key's value that is told; `publickey for` stands in every second line of sshd."""
    return "--" in low or "private key" in low or bool(_ASSIGNED_KEY.search(low))


def _names_secret(low: str) -> bool:
    return any(word in low for word in _ASSIGNED_WORDS) or ("key" in low and bool(_ASSIGNED_KEY.search(low)))
