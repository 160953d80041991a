"""`hauswart workshop evaluate`: ask a served model test cases and report on its answers.

Cases are asked at temperature 0, each once. The report is a table, JSON, and a page; with the report of an
earlier run it says what changed, case by case.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ChatError, ConfigError, HauswartError
from models.chat import DEFAULT_URL, TIMEOUT_S
from training import endpoint, page
from training.answers import CHECKS, Case, judge, read_cases
from training.endpoint import Endpoint, Patient, Tell
from training.workshop import folders

BUILT_IN = "test_cases.jsonl"
MAX_TOKENS = 384
REPORT, PAGE = "report.json", "report.html"
_FAILURES = 3  # in a row, from the first on: then nothing is there to be evaluated


def run(
    patient: Patient, cases: Sequence[Case], *, max_tokens: int = MAX_TOKENS, tell: Tell = lambda _said: None
) -> list[dict[str, Any]]:
    """Each case's answer with its scores. Raises ChatError where the first ones go unanswered."""
    found: list[dict[str, Any]] = []
    for number, case in enumerate(cases, 1):
        known = {"task": case.task, "lang": case.lang, "asked": case.messages[-1]["content"]}
        text, seconds, tokens, problem = "", 0.0, 0, ""
        try:
            answer = patient.ask(case.messages, temperature=0, max_tokens=max_tokens)
            text, seconds, tokens = answer.text.strip(), answer.seconds, answer.answer_tokens
        except ChatError as error:
            if error.kind in {"key", "unreachable", "refused"} or (
                error.kind != "empty" and number == _FAILURES and not any(one["answer"] for one in found)
            ):
                raise
            problem = str(error)
            tell(f"case {number}: {error}")
        judged = judge(case, text)
        faults = [problem, *judged.faults] if problem else judged.faults
        found.append(
            known
            | {
                "answer": text,
                "scores": judged.scores,
                "faults": faults,
                "seconds": seconds,
                "tokens": tokens,
            }
        )
        said = "; ".join(faults) or "as asked"
        tell(f"case {number} of {len(cases)} ({case.task} {case.lang}): {said[:160]}")
    return found


def summarise(model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of each check with their numbers of cases and 95 % intervals, and the speed."""
    checks = {}
    for name in CHECKS:
        values = [row["scores"][name] for row in rows if name in row["scores"]]
        if values:
            checks[name] = {"n": len(values), "mean": statistics.fmean(values)} | _bounds(values)
    spent = sum(row["seconds"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    lengths = [len(row["answer"]) for row in rows]
    return {
        "model": model,
        "cases": len(rows),
        "checks": checks,
        "whole": sum(not row["faults"] for row in rows),
        "seconds": round(spent, 1),
        "tokens_per_second": round(tokens / spent, 1) if spent else 0.0,
        "characters": {"median": statistics.median(lengths), "longest": max(lengths)},
        "rows": list(rows),
    }


def _bounds(values: Sequence[float]) -> dict[str, float]:
    """The 95 % interval of a mean over the cases, by resampling."""
    import numpy as np  # noqa: PLC0415  # with scipy's like, only where figures are made

    from training.intervals import intervals, number  # noqa: PLC0415

    array = np.asarray(values)
    bounds = intervals(
        {"mean": lambda weights: float(np.average(array, weights=weights))}, number(range(len(values)))
    )
    return {"low": bounds["mean"].low, "high": bounds["mean"].high}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What changed on the cases that both runs have: means, the paired interval, how many got better."""
    earlier = {row["asked"]: row["scores"] for row in before["rows"]}
    both = [(earlier[row["asked"]], row["scores"]) for row in after["rows"] if row["asked"] in earlier]
    changes = {}
    for name in CHECKS:
        pairs = [(old[name], new[name]) for old, new in both if name in old and name in new]
        if pairs:
            gains = [new - old for old, new in pairs]
            changes[name] = {
                "n": len(pairs),
                "before": statistics.fmean(old for old, _ in pairs),
                "after": statistics.fmean(new for _, new in pairs),
                "better": sum(gain > 1e-9 for gain in gains),
                "worse": sum(gain < -1e-9 for gain in gains),
                **{f"gain_{end}": value for end, value in _bounds(gains).items()},
            }
    return {"before": before["model"], "after": after["model"], "changes": changes}


def write_report(folder: Path, summary: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> None:
    """report.json and report.html. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**summary, **({"comparison": comparison} if comparison else {})}
    for name, text in (
        (REPORT, json.dumps(whole, indent=1, ensure_ascii=False) + "\n"),
        (PAGE, _page(summary, comparison)),
    ):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def _page(summary: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> str:
    sections = [("Checks", page.table(("check", "cases", "mean", "95 % interval"), check_rows(summary)))]
    if comparison:
        columns = ("check", "cases", "before", "after", "better", "worse", "gain, 95 %")
        title = f"Before ({comparison['before']}) and after ({comparison['after']})"
        sections.append((title, page.table(columns, change_rows(comparison))))
    rows = [
        (row["task"], row["lang"], row["asked"][-200:], row["answer"][:400], "; ".join(row["faults"]))
        for row in summary["rows"]
    ]
    sections.append(("Answers", page.table(("task", "language", "asked", "answered", "wrong"), rows)))
    return page.whole(f"Answers of {summary['model']}", sections)


def check_rows(summary: Mapping[str, Any]) -> list[tuple[str, int, str, str]]:
    """The checks as a table."""
    return [
        (name, one["n"], f"{one['mean']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}")
        for name, one in summary["checks"].items()
    ]


def change_rows(comparison: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What changed as a table."""
    return [
        (
            name,
            one["n"],
            f"{one['before']:.2f}",
            f"{one['after']:.2f}",
            one["better"],
            one["worse"],
            f"{one['gain_low']:+.2f} to {one['gain_high']:+.2f}",
        )
        for name, one in comparison["changes"].items()
    ]


def _read_report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / REPORT if path.is_dir() else path).read_text(encoding="utf-8"))
        if not {"model", "rows"} <= set(found):
            raise ValueError("it has no rows")  # noqa: TRY301
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no report of an earlier run: {error}") from error
    return dict(found)


def _cases(test_file: Path | None, domain: str) -> list[Case]:
    if test_file:
        return read_cases(test_file)
    with as_file(files("training.workshop").joinpath("seed", BUILT_IN)) as path:
        cases = [one for one in read_cases(path, name=BUILT_IN) if domain in {"", one.domain}]
    if not cases:
        raise ConfigError(f"there are no built-in cases {domain!r}", hint="host or social")
    return cases


def command(
    *,
    model_path: Annotated[
        str, typer.Option("--model-path", help="The model's name at the server, or a GGUF file to serve.")
    ],
    test_file: Annotated[
        Path | None, typer.Option("--test-file", help="JSONL; default: built-in cases.")
    ] = None,
    domain: Annotated[str, typer.Option("--domain", help="Of the built-in cases: host or social.")] = "",
    url: endpoint.Url = DEFAULT_URL,
    key_file: endpoint.KeyFile = None,
    header: endpoint.Headers = None,
    consent: endpoint.Consents = None,
    timeout: endpoint.Timeout = TIMEOUT_S,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="For one answer.")] = MAX_TOKENS,
    before: Annotated[
        Path | None, typer.Option("--before", help="An earlier report to compare with.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for report.json and report.html.")] = Path(
        "report"
    ),
    as_json: folders.AsJson = False,
) -> None:
    """JSON, keys and schema, language, length, facts, likeness to a reference: as each case asks."""

    def tell(said: str) -> None:
        print(f"hauswart: {said}", file=sys.stderr, flush=True)  # noqa: T201

    cases = _cases(test_file, domain)
    earlier = _read_report(before) if before else None
    served: Any = nullcontext(None)
    if model_path.endswith(".gguf"):
        from training.engine import open_engine  # noqa: PLC0415  # only for a file

        if not Path(model_path).is_file():
            raise ConfigError(f"there is no file {model_path}")
        served = open_engine(Path(model_path), context=4096)
    with served as engine:
        address = f"{engine.url}/v1/chat/completions" if engine else url
        name = Path(model_path).name if engine else model_path
        headers = endpoint.parse_headers(header or [])
        place = Endpoint(address, name, key_file, headers, consent or [], timeout)
        patient = endpoint.open_chat(place, "prompts", tell=tell)
        rows = run(patient, cases, max_tokens=max_tokens, tell=tell)
    if not any(row["answer"] for row in rows):
        raise HauswartError(f"{model_path} answered none of {len(rows)} cases")
    summary = summarise(name, rows)
    comparison = compare(earlier, summary) if earlier else None
    write_report(out, summary, comparison)
    whole = {**summary, **({"comparison": comparison} if comparison else {})}
    sys.stdout.write(
        json.dumps(whole, ensure_ascii=False) + "\n" if as_json else _said(summary, comparison, out)
    )


def _said(summary: Mapping[str, Any], comparison: Mapping[str, Any] | None, out: Path) -> str:
    lines = [f"{summary['model']}: {summary['whole']} of {summary['cases']} answers are all that was asked"]
    lines += [f"  {name:<11} {mean}  ({bounds}, n={n})" for name, n, mean, bounds in check_rows(summary)]
    lines.append(f"  {summary['seconds']:.0f} s, {summary['tokens_per_second']:.1f} tokens/s")
    if comparison:
        lines.append(f"before ({comparison['before']}) and after:")
        lines += [
            f"  {name:<11} {old} -> {new}  ({better} better, {worse} worse of {n}; gain {gain})"
            for name, n, old, new, better, worse, gain in change_rows(comparison)
        ]
    return "\n".join([*lines, f"report in {out / PAGE}"]) + "\n"
