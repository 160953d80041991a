"""Rows that train the low tier's model: log lines with a severity, an alert mark or a category.

Reads the kernel's format strings, lines of SIEM rule tests, logcheck's rules, kernel reports, systemd's
catalogue and alert rules from a data folder. Each row's text is what `models.lines.encode` makes of it, so it
reads as the daemon reads. It knows nothing about models or training.
"""

from __future__ import annotations

import csv
import json
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from models.known import load
from models.lines import CATEGORIES, SEVERITY_CLASSES, encode
from models.taxonomy import Category, Severity
from training.sources.expansion import expand
from training.sources.grading import Grader

Row = dict[str, Any]

KERNEL = "logs/kernel/printk_templates.csv"
WAZUH = "logs/siem/wazuh_ossec_lines.csv"
FAIL2BAN = "logs/siem/fail2ban_lines.csv"
LOGCHECK = "logs/rules/logcheck_rules.csv"
SYZKALLER = "incidents/syzkaller_kernel_reports.jsonl"
CATALOGUE = "explain/systemd_catalog.jsonl"
ALERT_RULES = "explain/awesome_prometheus_alerts_rules.yml"
SPOKEN = Path(__file__).with_name("spoken.toml")
FILES = (KERNEL, WAZUH, FAIL2BAN, LOGCHECK, SYZKALLER, CATALOGUE, ALERT_RULES)

ALERT_LEVEL = 7  # of a wazuh rule: from here on the product's own scale says that somebody should look
SHARES = {"test": 0.12, "val": 0.08}
LARGEST = 0.02  # of a source's rows: a larger group trains, or one subsystem would be the whole test
STEPS = 20  # of a soft label: a grader is not more exact, and statistics stay short
WORDS_LOST = 0.2
WARNING = SEVERITY_CLASSES.index("warning")
_SIEM = frozenset({"wazuh", "fail2ban"})
GRAVE_SHARE = 0.03  # of the kernel's strings, from which the grader learns that errors are grave, notices not
TRUST = 0.25  # in a SIEM's own label; the rest is the grader's, or each service would be learnt by heart
GRAVE, QUIET = 0.6, 0.2  # scores of known messages: most of them end up in an incident, or none does
OWN = 3.0  # weight of what was written for this project: few lines, and each was thought about
WEAK = 0.3  # weight of a label that nobody gave to this very line

# Where the kernel's sources lie says what their messages are about; the longest prefix decides.
_AREAS: dict[Category, str] = {
    Category.NETWORK: "net drivers/net drivers/isdn drivers/atm drivers/nfc drivers/bluetooth"
    " drivers/infiniband drivers/ieee802154 drivers/caif",
    Category.STORAGE: "fs drivers/ata drivers/scsi drivers/md drivers/block drivers/nvme drivers/mmc"
    " drivers/mtd drivers/ufs drivers/target drivers/cdrom drivers/memstick drivers/nvdimm block"
    " drivers/message",
    Category.RESOURCE: "mm drivers/devfreq drivers/cpufreq drivers/cpuidle kernel/cgroup kernel/sched",
    Category.TIME: "kernel/time drivers/rtc drivers/clocksource drivers/ptp drivers/pps",
    Category.SECURITY: "security crypto certs kernel/audit drivers/crypto fs/verity fs/crypto",
    Category.KERNEL: "kernel arch lib init ipc virt tools samples io_uring drivers/base drivers/of",
    Category.HARDWARE: "drivers sound",
}
_AREA_OF = {prefix: category for category, prefixes in _AREAS.items() for prefix in prefixes.split()}

_DEVICES = ("usb 1-1", "pci 0000:00:1f.2", "sd 0:0:0:0", "platform soc", "i2c 1-0050", "spi 0.0", "ata1.00")
_NAMES = (
    "eth0",
    "sda",
    "wlan0",
    "mmc0",
    "clk",
    "irq",
    "probe",
    "main",
    "input",
    "core",
    "vdd",
    "init",
    "reset",
)
_SPEAKS = re.compile(r"(?<!%)%s")
_STAMPED = re.compile(r"^(?:<\d>)?\[ *\d+\.\d+\](?:\[[ \w]+\])? ?|^\[[^]]*\]\[[^]]*\] ")
_REPORTS = re.compile(r"^(?:BUG|WARNING|INFO|KASAN|UBSAN|Kernel panic|general protection|Oops|watchdog)\b")
_FIELD = re.compile(r"@[A-Z_]+@")
_RULE = re.compile(r"^ {14,18}(?:- )?(name|description|severity): *(.*)$")
_TEMPLATED = re.compile(r"\{\{[^}]*\}\}")


def rows(data: Path, seed: int = 0) -> Iterator[Row]:
    """All rows, each with the split of its group; texts that recur with the same labels come once."""
    sources = (kernel, wazuh, fail2ban, logcheck, spoken, known, reports, catalogue, alert_rules)
    found = [list(source(data, random.Random(f"{seed} {source.__name__}"))) for source in sources]  # noqa: S311
    splits = held_out(found[0], chain(*found[1:3]), seed)
    seen: set[tuple[Any, ...]] = set()
    kept: list[Row] = []
    for row in chain(*found):
        key = (row["text"], row.get("severity"), row.get("alert"), row["source"])
        if len(row["text"]) >= 3 and key not in seen:
            seen.add(key)
            kept.append({**row, "split": splits.get(row["group"], "train")})
    _grade(kept, random.Random(seed))  # noqa: S311
    yield from kept


def held_out(strings: Iterable[Row], events: Iterable[Row], seed: int) -> dict[str, str]:
    """The split of each of the kernel's subsystems and of each service in a SIEM's lines."""
    return {**_splits(strings, seed), **_splits(events, seed)}


def _grade(found: list[Row], chance: random.Random) -> None:
    """Give training rows a soft alert label by a grader that never saw a SIEM's line."""
    trained = [row for row in found if row["split"] == "train"]
    judged: list[tuple[str, float, float]] = []
    for row in trained:
        alert, severity = row.get("alert"), row.get("severity")
        if alert is not None and row["source"] not in _SIEM:
            judged.append((row["text"], alert, row.get("weight", 1.0)))
        elif row["source"] == "printk" and severity != WARNING and chance.random() < GRAVE_SHARE:
            judged.append((row["text"], float(severity == 0), WEAK))
    grader = Grader(*map(list, zip(*judged, strict=True)))
    graded = [row for row in trained if row["source"] in {"printk", "syzkaller", "systemd", *_SIEM}]
    for row, grade in zip(graded, grader.grade([row["text"] for row in graded]), strict=True):
        own = row.get("alert")
        mixed = grade if own is None else TRUST * own + (1.0 - TRUST) * grade
        row["alert"] = round(mixed * STEPS) / STEPS


def kernel(data: Path, chance: random.Random) -> Iterator[Row]:
    """Format strings of the kernel with the level that their authors chose."""
    for row in table(data / KERNEL):
        yield {
            "text": encode(_dressed(row["template"], row["file"], chance)),
            "group": row["subsystem"],
            "source": "printk",
            "severity": severity_of(int(row["severity"])),
            "category": CATEGORIES.index(_area(row["subsystem"])),
        }


def wazuh(data: Path, chance: random.Random) -> Iterator[Row]:
    """Lines of a SIEM's rule tests with the level of the rule that fires."""
    for row in table(data / WAZUH):
        level = int(row["level"])
        category = Category.SECURITY if level >= 5 else Category.BENIGN if level <= 2 else None
        labels = {
            "group": family(row["service"]),
            "source": "wazuh",
            "alert": float(level >= ALERT_LEVEL),
            "category": None if category is None else CATEGORIES.index(category),
        }
        yield from (labels | {"text": text} for text in _dressings(row["line"], chance))


def fail2ban(data: Path, chance: random.Random) -> Iterator[Row]:
    """Lines of fail2ban's filter tests, with look-alikes that must not fire."""
    for row in table(data / FAIL2BAN):
        fires = row["match"] == "True"
        labels = {
            "group": family(row["service"]),
            "source": "fail2ban",
            "alert": float(fires),
            "category": CATEGORIES.index(Category.SECURITY) if fires else None,
            "weight": WEAK,  # one refused login fires a filter, but is below a SIEM's level of alert
        }
        yield from (labels | {"text": text} for text in _dressings(row["line"], chance))


def logcheck(data: Path, chance: random.Random) -> Iterator[Row]:
    """Lines that logcheck's rules match: what a server says every day, and a few that it must not."""
    for row in table(data / LOGCHECK):
        routine = "ignore" in row["list"]
        if not routine and row["egrep"].endswith(": .*$"):
            continue  # "everything that sudo says" is a policy, no verdict on a line
        try:
            text = expand(row["egrep"], chance)
        except (ValueError, IndexError):
            continue
        yield {
            "text": chance.choice(_dressings(text, chance)),
            "group": f"logcheck {family(row['service'])}",
            "source": "logcheck",
            "alert": 0.0 if routine else 1.0,
            "category": CATEGORIES.index(Category.BENIGN if routine else Category.SECURITY),
            "weight": WEAK,
        }


def spoken(_data: Path, chance: random.Random) -> Iterator[Row]:
    """Lines of common services that were written and judged for this project (`spoken.toml`)."""
    judged = tomllib.loads(SPOKEN.read_text(encoding="utf-8"))
    for alert, lines in ((1.0, judged["alert"]), (0.0, judged["quiet"])):
        for line in lines:
            for text in _dressings(f"Jan 12 10:11:12 host {line}", chance):
                yield {"text": text, "group": "spoken", "source": "spoken", "alert": alert, "weight": OWN}


def known(_data: Path, chance: random.Random) -> Iterator[Row]:
    """Examples of the messages that the daemon's own catalogue knows, with what it says of them."""
    grades = {Severity.INFO: 2, Severity.WARNING: 1}
    for message in load().messages:
        grave = 1.0 if message.score >= GRAVE else 0.0 if message.score <= QUIET else None
        topic = None if message.category is Category.UNKNOWN else CATEGORIES.index(message.category)
        for text in _dressings(message.example, chance):
            yield {
                "text": text,
                "group": "known",
                "source": "known",
                "severity": grades.get(message.severity, 0),
                "alert": grave,
                "category": topic,
                "weight": OWN,
            }


def reports(data: Path, chance: random.Random) -> Iterator[Row]:
    """Kernel reports of a fuzzer: the line that names the bug is grave, the others say where it was."""
    for report in _objects(data / SYZKALLER):
        said = [_STAMPED.sub("", line).strip() for line in report["log"].splitlines()]
        said = [line for line in said if len(line) > 12]
        for line in chance.sample(said, min(4, len(said))):
            grave = _REPORTS.match(line) is not None
            yield {
                "text": encode(line),
                "group": "syzkaller",
                "source": "syzkaller",
                "severity": 0 if grave else None,
                "alert": 1.0 if grave else None,
                "category": CATEGORIES.index(Category.KERNEL),
                "weight": WEAK,
            }


def catalogue(data: Path, chance: random.Random) -> Iterator[Row]:
    """Subjects of systemd's message catalogue, English, without labels but their category."""
    for entry in _objects(data / CATALOGUE):
        if entry["lang"] == "en":
            subject = _FIELD.sub(lambda _: chance.choice(_NAMES), entry["subject"])
            yield {
                "text": encode(subject, chance.choice(("systemd", ""))),
                "group": "systemd",
                "source": "systemd",
                "category": CATEGORIES.index(Category.SERVICE),
                "weight": WEAK,
            }


def alert_rules(data: Path, chance: random.Random) -> Iterator[Row]:
    """Names and descriptions of alert rules with the severity that their authors chose."""
    grades = {"critical": 0, "warning": 1, "info": 2}
    for rule in _rules(data / ALERT_RULES):
        grade = grades.get(rule.get("severity", ""))
        text = _TEMPLATED.sub("0", chance.choice([rule["name"], rule.get("description", rule["name"])]))
        if grade is not None:
            yield {
                "text": encode(text),
                "group": "alert rules",
                "source": "alert rules",
                "severity": grade,
                "alert": {0: 1.0, 2: 0.0}.get(grade),
                "weight": WEAK,
            }


def severity_of(level: int) -> int:
    """Index into SEVERITY_CLASSES of a kernel level 0 (emergency) to 7 (debug)."""
    name = {3: "err-or-worse", 4: "warning", 7: "debug"}.get(max(level, 3), "notice-or-info")
    return SEVERITY_CLASSES.index(name)


def family(service: str) -> str:
    """The group of a service: look-alikes of one vendor must not stand on both sides of a split."""
    low = service.lower()
    if low.startswith(("sysmon", "win", "powershell", "msauth")):
        return "windows"
    if low.startswith(("aws", "amazon")):
        return "aws"
    if low.startswith(("sshd", "dropbear")):
        return "sshd"
    if low.startswith(("cisco", "pix")):
        return "cisco"
    return low.partition("-")[0].partition("_")[0]


def _dressed(template: str, file: str, chance: random.Random) -> str:
    """A template as it is, or as a device's message, or with names filled in: hosts log all three."""
    throw = chance.random()
    if throw < 0.7:
        return template
    if throw < 0.85:
        driver = Path(file).stem if chance.random() < 0.5 else chance.choice(_DEVICES)
        return f"{driver}: {template}"
    return _SPEAKS.sub(lambda _: chance.choice(_NAMES), template)


def _dressings(line: str, chance: random.Random) -> list[str]:
    """A line's text with its program, without (a new service has a new name), and with some words lost."""
    encoded = encode(line)
    head, bar, rest = encoded.partition(" | ")
    bare = rest if bar and len(head) <= 32 else encoded
    kept = [word for word in bare.split() if chance.random() > WORDS_LOST]
    return [encoded, bare, " ".join(kept)]


def _area(subsystem: str) -> Category:
    parts = subsystem.split("/")
    for length in range(len(parts), 0, -1):
        found = _AREA_OF.get("/".join(parts[:length]))
        if found is not None:
            return found
    return Category.KERNEL


def _splits(source: Iterable[Row], seed: int) -> dict[str, str]:
    """The split of each group: small groups in a random order fill test, then val; the rest trains."""
    sizes = Counter(row["group"] for row in source)
    total = sum(sizes.values())
    order = sorted(
        (group for group in sizes if sizes[group] <= LARGEST * total),
        key=lambda group: blake2b(f"{seed} {group}".encode(), digest_size=8).digest(),
    )
    splits: dict[str, str] = {}
    for split, share in SHARES.items():
        left = share * total
        while order and left > 0.0:
            group = order.pop()
            splits[group] = split
            left -= sizes[group]
    return splits


def table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    csv.field_size_limit(1 << 24)
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _rules(path: Path) -> Iterator[dict[str, str]]:
    """Name, description and severity of each alert rule; the file is regular enough to be read by line."""
    rule: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _RULE.match(line)
        if match is None:
            continue
        if match[1] == "name":
            if "severity" in rule:
                yield rule
            rule = {}
        rule[match[1]] = match[2].strip("\"' ")
    if "name" in rule and "severity" in rule:
        yield rule
