"""`hauswart academy report`: a specialist beside its base and beside retrieval alone, on given questions.

Everything is asked of the same questions with the same retrieval. Each stage is kept in the specialist's
folder, so that an interrupted report goes on.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from models.passages import Index, Passage
from training.academy import desk, diploma, forms, library, scoring
from training.academy.chunks import sentences
from training.academy.query import reads_of
from training.academy.settings import Settings, load
from training.academy.specialist import Specialist, load_base
from training.academy.specialist import load as load_specialist
from training.academy.train import Config, Name, say
from training.causal import quieten

QUESTIONS = Path(__file__).with_name("questions")
GENERAL = QUESTIONS / "general.jsonl"
TOKENS = 40
READ_WAY = "retrieval + specialist, read by the general model"
_BATCH = 6
_CONTEXT = 3  # passages that the base is given
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NUMBERED = re.compile(r"\[(\d+)\]")
Json = dict[str, Any]
Outcome = dict[str, Any]  # said, found, right, cited


class Bench:
    """One report: the questions, the index, the models, and what was answered so far."""

    def __init__(
        self, folder: Path, settings: Settings, questions: Sequence[Json], index: Index, generals: int
    ) -> None:
        self.generals = generals
        self.folder, self.settings, self.questions, self.index = folder, settings, questions, index
        self.card = library.read_card(folder)
        self._specialist: Specialist | None = None
        self._base: Specialist | None = None

    @property
    def specialist(self) -> Specialist:
        """The adapter with its base, loaded when it is first needed."""
        if self._specialist is None:
            diploma.verify(self.folder)
            self._specialist = load_specialist(self.folder / library.ADAPTER)
        return self._specialist

    @property
    def base(self) -> Specialist:
        """The base alone, loaded when it is first needed."""
        if self._base is None:
            self._base = load_base(self.card.get("base") or self.settings.train.base)
        return self._base

    def retrieval(self) -> list[Outcome]:
        """The best sentence of the passage that retrieval puts first; it never abstains."""
        return [self._first(row, whole=False) for row in self.questions]

    def passage(self) -> list[Outcome]:
        """That whole passage."""
        return [self._first(row, whole=True) for row in self.questions]

    def specialist_answers(self, *, judged: bool, read: bool = False) -> list[Outcome]:
        """As `query` answers, as it does with --retrieval-only, or with --read."""
        reads = reads_of(self.settings) if read else None
        with desk.opened(self.folder, self.settings.query, model=judged, tell=say, reads=reads) as ask:
            return self._answers(ask)

    def base_answers(self) -> list[Outcome]:
        """Retrieval and the base, asked to answer from numbered passages."""
        return self._generated(self.base)

    def closed(self, *, plain: bool) -> list[Outcome]:
        """Without any passage, by base or specialist."""
        rows = [row for row in self.questions if row["accepted"]]
        return self._closed(self.base if plain else self.specialist, rows)

    def general(self, *, plain: bool) -> list[Outcome]:
        """The shipped general questions."""
        rows = library.read_lines(GENERAL)[: self.generals]
        model = self.base if plain else self.specialist

        def weigh(question: str, options: Sequence[str]) -> list[float]:
            return model.weigh(
                [{"role": "user", "content": question}], [one[:1].upper() + one[1:] for one in options]
            )

        return [{"right": one} for one in scoring.general(weigh, rows)]

    def _answers(self, ask: desk.Ask) -> list[Outcome]:
        found = []
        for number, row in enumerate(self.questions, 1):
            one = ask(row["question"])
            outcome = _outcome(row, one.text, one.passage, found=one.found)
            place = one.passage.place if one.passage else ""
            found.append(outcome | {"confidence": round(one.confidence, 4), "place": place})
            if number % 10 == 0:
                say(f"answered {number} of {len(self.questions)}")
        return found

    def _generated(self, model: Specialist) -> list[Outcome]:
        found: list[Outcome] = []
        for start in range(0, len(self.questions), _BATCH):
            part = self.questions[start : start + _BATCH]
            listed = [[hit.passage for hit in self.index.search(row["question"], _CONTEXT)] for row in part]
            asked = [forms.answering(row["question"], one) for row, one in zip(part, listed, strict=True)]
            for row, passages, text in zip(part, listed, model.say(asked, TOKENS), strict=True):
                match = _NUMBERED.search(text)
                number = int(match[1]) if match else 1
                cited = passages[number - 1] if 0 < number <= len(passages) else None
                found.append(_outcome(row, text, cited, found=not scoring.denies(text)))
            say(f"answered {len(found)} of {len(self.questions)}")
        return found

    def _closed(self, model: Specialist, rows: Sequence[Json]) -> list[Outcome]:
        found: list[Outcome] = []
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            texts = model.say([forms.closed(row["question"]) for row in part], TOKENS)
            found += [_outcome(row, text, None, found=True) for row, text in zip(part, texts, strict=True)]
            say(f"answered {len(found)} of {len(rows)}")
        return found

    def _first(self, row: Json, *, whole: bool) -> Outcome:
        hits = self.index.search(row["question"], 1)
        if not hits:
            return _outcome(row, "", None, found=False)
        one = hits[0].passage
        text = f"{one.term}: {one.text}" if whole else _best_sentence(row["question"], one.text)
        return _outcome(row, text, one, found=True)


def _outcome(row: Json, text: str, cited: Passage | None, *, found: bool) -> Outcome:
    answerable = bool(row["accepted"])
    right = found and scoring.is_right(text, row) if answerable else not found
    return {
        "question": row["question"],
        "answerable": answerable,
        "said": text[:600],
        "found": found,
        "right": right,
        "cited": found and answerable and cited is not None and scoring.is_cited(cited, row),
    }


def _best_sentence(question: str, text: str) -> str:
    asked = set(question.lower().split())
    return max(sentences(text) or [text], key=lambda one: len(asked & set(one.lower().split())))


def run(
    folder: Path,
    settings: Settings,
    questions: Sequence[Json],
    kept: Path,
    *,
    generals: int,
    ways: Sequence[str] = (),
) -> Json:
    """Every stage (or of `ways` alone) that `kept` does not hold, then the figures; raises ConfigError."""
    done: Json = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    with Index(folder / library.INDEX) as index:
        bench = Bench(folder, settings, questions, index, generals)
        stages: dict[str, Callable[[], list[Outcome]]] = {
            "retrieval alone": bench.retrieval,
            "retrieval alone, whole passage": bench.passage,
            "retrieval, paragraph and threshold": lambda: bench.specialist_answers(judged=False),
            "retrieval + specialist": lambda: bench.specialist_answers(judged=True),
            READ_WAY: lambda: bench.specialist_answers(judged=True, read=True),
            "general ability, base": lambda: bench.general(plain=True),
            "general ability, specialist": lambda: bench.general(plain=False),
            "retrieval + base": bench.base_answers,
            "closed book, base": lambda: bench.closed(plain=True),
            "closed book, specialist": lambda: bench.closed(plain=False),
        }
        if strange := set(ways) - set(stages):
            raise ConfigError(f"no way {min(strange)!r}", hint=f"one of: {'; '.join(stages)}")
        if not (settings.query.read and settings.general.enabled):
            del stages[READ_WAY]
        for name, stage in stages.items():
            if name not in done and (name in ways or not ways):
                say(f"{name} ...")
                started = time.monotonic()
                done[name] = {"outcomes": stage(), "seconds": round(time.monotonic() - started, 1)}
                kept.write_text(json.dumps(done, ensure_ascii=False), encoding="utf-8")
    return {
        "specialist": folder.name,
        "base": bench.card.get("base", ""),
        "questions": len(questions),
        "rows": figures(done),
    }


def figures(done: Json) -> list[Json]:
    """The table: answers right, abstention, cited pages, by way of answering."""
    rows = []
    for name, stage in done.items():
        outcomes = stage["outcomes"]
        there = [one for one in outcomes if one.get("answerable", True)]
        absent = [one for one in outcomes if not one.get("answerable", True)]
        said = [one for one in there if one.get("found", True)]
        row: Json = {"way": name, "right": scoring.rate([one["right"] for one in there])._asdict()}
        if absent:
            row["abstained"] = scoring.rate([one["right"] for one in absent])._asdict()
            row["answered"] = scoring.rate([one["found"] for one in there])._asdict()
            row["page"] = scoring.rate([one["cited"] for one in said])._asdict()
        rows.append(row | {"seconds": stage["seconds"]})
    by = {
        name: [one["right"] for one in stage["outcomes"] if one.get("answerable", True)]
        for name, stage in done.items()
    }
    for first, second in (
        ("retrieval + specialist", "retrieval + base"),
        (READ_WAY, "retrieval + specialist"),
        ("retrieval + specialist", "retrieval, paragraph and threshold"),
        ("general ability, specialist", "general ability, base"),
    ):
        if first in by and second in by:
            gain = scoring.difference(by[first], by[second])
            value = sum(by[first]) / len(by[first]) - sum(by[second]) / len(by[second])
            rows.append(
                {
                    "way": f"{first} less {second.rpartition(', ')[2]}",
                    "right": scoring.Rate(value, gain.low, gain.high, len(by[first]))._asdict(),
                }
            )
    return rows


_COLUMNS = (
    ("right", "right"),
    ("abstained", "silent where there is no answer"),
    ("answered", "answered"),
    ("page", "cited place right"),
)


def table(result: Json) -> str:
    """The figures as text."""
    lines = [f"{result['specialist']} on {result['base']}, {result['questions']} questions"]
    for row in result["rows"]:
        cells = [f"{shown} {_cell(row[key])}" for key, shown in _COLUMNS if key in row]
        lines.append(f"  {row['way']}: " + "; ".join(cells))
    return "\n".join(lines)


def page(result: Json) -> str:
    """The figures as one HTML page that asks for nothing from anywhere."""
    head = "".join(f"<th>{escape(shown)}</th>" for _, shown in _COLUMNS)
    body = "".join(
        f"<tr><td>{escape(row['way'])}</td>"
        + "".join(f"<td>{_cell(row[key]) if key in row else ''}</td>" for key, _ in _COLUMNS)
        + "</tr>"
        for row in result["rows"]
    )
    title = escape(f"academy: {result['specialist']}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}</style></head>\n"
        f"<body><h1>{title}</h1><p>Base {escape(str(result['base']))}, {result['questions']} questions;"
        " shares with their 95 % intervals (bootstrap over questions).</p>"
        f"<table><tr><th>way</th>{head}</tr>{body}</table></body></html>\n"
    )


def _cell(one: Json) -> str:
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f}, n {one['questions']})"


def command(
    questions: Annotated[
        Path | None, typer.Argument(help="JSONL: question, accepted, document, places.")
    ] = None,
    *,
    config: Config = None,
    name: Name = "",
    out: Annotated[
        Path | None, typer.Option(help="The page (default: report.html in the specialist's folder).")
    ] = None,
    generals: Annotated[
        int, typer.Option("--general", min=1, help="How many of the general questions.")
    ] = 200,
    way: Annotated[
        list[str] | None, typer.Option("--way", help="Only this way to answer; may be repeated.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier report kept.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Closed-book, retrieval alone, with the base, with the specialist; abstention; general ability."""
    quieten()
    settings = load(config)
    folder = library.folder_of(settings.folder, name or settings.specialist)
    path = questions or QUESTIONS / "test.jsonl"
    kept = folder / f"report-{path.stem}.json"
    if fresh:
        kept.unlink(missing_ok=True)
    result = run(folder, settings, scoring.read_questions(path), kept, generals=generals, ways=way or ())
    library.write_card(folder, report=result["rows"])
    target = out or folder / "report.html"
    target.write_text(page(result), encoding="utf-8")
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else f"{table(result)}\n{target}")
