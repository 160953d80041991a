"""Reads the rules that Prometheus is compared with; they are the user's, the project has none of its own.

Two formats: Prometheus' own rules file, and the data file of a collection of rules that groups them by
service and exporter; of that the node-exporter's are taken, whatever they say, with `for` and severity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from daemon.errors import ConfigError

EXPORTER = "node-exporter"
_REMEDY = "give a rules file of Prometheus, or one with groups, services, exporters and rules"


def read_rules(path: Path) -> str:
    """The text of a rules file as Prometheus reads it; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as rules: {error}", hint=_REMEDY) from error
    groups = found.get("groups") if isinstance(found, dict) else None
    if not isinstance(groups, list) or not all(isinstance(one, dict) for one in groups):
        raise ConfigError(f"{path}: has no list of groups", hint=_REMEDY)
    if any("services" in one for one in groups):
        return _of_collection(path, groups)
    if not any("alert" in rule for one in groups for rule in one.get("rules", [])):
        raise ConfigError(f"{path}: none of its rules is an alert", hint=_REMEDY)
    return text


def _of_collection(path: Path, groups: list[dict[str, Any]]) -> str:
    exporters = [
        exporter
        for group in groups
        for service in group.get("services", [])
        for exporter in service.get("exporters", [])
    ]
    rules = [_rule(path, rule) for one in exporters if one.get("slug") == EXPORTER for rule in one["rules"]]
    if not rules:
        raise ConfigError(f"{path}: has no rules for {EXPORTER}", hint=_REMEDY)
    return yaml.safe_dump({"groups": [{"name": EXPORTER, "rules": rules}]}, sort_keys=False)


def _rule(path: Path, rule: dict[str, Any]) -> dict[str, Any]:
    if "name" not in rule or "query" not in rule:
        raise ConfigError(f"{path}: a rule without name or query: {rule}", hint=_REMEDY)
    kept = {"for": rule["for"]} if "for" in rule else {}
    labels = {"severity": rule.get("severity", "warning")}
    return {"alert": rule["name"], "expr": rule["query"], **kept, "labels": labels}
