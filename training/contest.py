"""A challenger against the champion: it may replace it only where it is worse at nothing.

Three sets speak: the golden one is frozen and ships (`training/golden`), the canary one is what this host
logged lately, and feedback is what its operator said. Knows nothing of training or of where bundles lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from models.lines import SEVERITY_CLASSES, LineVerdict, decode, encode

GOLDEN = Path(__file__).with_name("golden") / "low.tsv"
ALERT = 0.5
# More of a host's own lines called alert-worthy is noise at night, unless its operator asked for it.
CANARY_RISE = 0.002
_LEVELS = {name: number for number, name in enumerate(SEVERITY_CLASSES)}

Judge = Callable[[Sequence[str]], list[LineVerdict]]


class Golden(NamedTuple):
    """A frozen line and what is to be said of it."""

    text: str
    alert: bool
    severity: str


@dataclass(frozen=True)
class Contest:
    """What was compared, and the reasons against the challenger; none means it may serve."""

    figures: dict[str, dict[str, float]]
    reasons: list[str]
    changed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def won(self) -> bool:
        """Whether nothing got worse."""
        return not self.reasons


def read_golden(path: Path = GOLDEN) -> list[Golden]:
    """The golden lines; raises ConfigError for a damaged file."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split("\t")
        if len(parts) != 3 or parts[0] not in {"0", "1"} or parts[1] not in _LEVELS:
            raise ConfigError(f"{path}, line {number}: {line[:60]!r} is not alert, severity, text")
        found.append(Golden(parts[2], parts[0] == "1", parts[1]))
    return found


def judge_with(classifier: Any, thresholds: Mapping[str, float]) -> Judge:
    """The verdicts of a loaded model on encoded texts."""

    def judge(texts: Sequence[str]) -> list[LineVerdict]:
        return [decode(scores, thresholds) for scores in classifier.score(texts)]

    return judge


def compare(
    champion: Judge,
    challenger: Judge,
    *,
    golden: Sequence[Golden],
    canary: Sequence[str],
    feedback: Sequence[tuple[str, bool]],
) -> Contest:
    """Judge all three sets by both; `canary` are encoded texts, `feedback` such with the operator's word."""
    figures: dict[str, dict[str, float]] = {}
    reasons: list[str] = []
    texts = [encode(one.text) for one in golden]
    before, after = champion(texts), challenger(texts)
    for name, right in (("alert", _alert_right), ("severity", _severity_right)):
        old, new = (sum(map(right, golden, spoken)) / max(1, len(golden)) for spoken in (before, after))
        figures[f"golden {name}"] = {"n": len(golden), "champion": old, "challenger": new}
        if new < old:
            reasons.append(f"golden set, {name}: {new:.1%} right instead of {old:.1%}")
    if canary:
        before, after = champion(canary), challenger(canary)
        old, new = (sum(one.alert >= ALERT for one in spoken) / len(canary) for spoken in (before, after))
        figures["canary alerts"] = {"n": len(canary), "champion": old, "challenger": new}
        if new > old + CANARY_RISE:
            reasons.append(f"canary set: {new:.2%} of this host's kinds of lines alert instead of {old:.2%}")
    if feedback:
        asked = [text for text, _ in feedback]
        wanted = [alert for _, alert in feedback]
        old, new = (
            sum((one.alert >= ALERT) == right for one, right in zip(judge(asked), wanted, strict=True))
            / len(feedback)
            for judge in (champion, challenger)
        )
        figures["feedback"] = {"n": len(feedback), "champion": old, "challenger": new}
        if new < old:
            reasons.append(f"feedback: {new:.1%} as the operator said instead of {old:.1%}")
    shown = list(dict.fromkeys([*texts, *canary, *(text for text, _ in feedback)]))
    return Contest(figures, reasons, _changes(shown, champion(shown), challenger(shown)))


def _changes(
    texts: Sequence[str], before: Sequence[LineVerdict], after: Sequence[LineVerdict]
) -> list[dict[str, Any]]:
    """The texts whose verdict another operator would notice."""
    return [
        {
            "text": text,
            "alert": [round(old.alert, 3), round(new.alert, 3)],
            "severity": [old.severity.value, new.severity.value],
        }
        for text, old, new in zip(texts, before, after, strict=True)
        if (old.alert >= ALERT) != (new.alert >= ALERT) or old.severity != new.severity
    ]


def _alert_right(one: Golden, verdict: LineVerdict) -> bool:
    return (verdict.alert >= ALERT) == one.alert


def _severity_right(one: Golden, verdict: LineVerdict) -> bool:
    return verdict.severity_class == one.severity
