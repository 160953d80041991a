"""What the lab's command line does."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from daemon import config as configuration
from daemon.command.replay import scorers
from daemon.errors import ConfigError, HauswartError
from daemon.replay import Ask
from daemon.settings import Settings
from daemon.stages.top import writer
from daemon.status import ModelTier
from daemon.tiers.top import Write
from tests.lab import cases, dataset, days, judging, peers, quiet, report, runner, split, tables
from tests.lab.comparison import compare
from tests.lab.reader import Reader
from tests.lab.recording import RecordingError, Watch, is_current, record
from tests.lab.scenario import Run, Scenario, find, load_noise, missing_programs, runs
from tests.lab.score import Coverage, by_class, figures
from tests.lab.systems import failures, obstacle
from tests.lab.verdict import Verdict, is_drowned, judge
from training.sources.cases import Case


def attempt(options: argparse.Namespace) -> int:
    """Inject faults one after another under one daemon on this machine."""
    chosen = runner.chosen(options.names)
    scratch = options.keep or Path(tempfile.mkdtemp(prefix="hwlab-"))
    scratch.mkdir(parents=True, exist_ok=True)
    with runner.daemon(scratch) as watched:
        time.sleep(options.warm + options.quiet)
        if options.quiet:
            found = watched.incidents()
            print(f"{options.quiet:.0f} quiet seconds: {len(found)} incidents")
            for one in found:
                print(f"  {one.fault_class} {one.severity} {one.culprits[:1]} {one.evidence[:1]}")
            if not options.faults:
                return bool(found)
        scores = []
        for run in chosen:
            if reason := against(run.scenario, []):
                print(f"{run.scenario.name}: skipped, {reason}", file=sys.stderr)
                continue
            scores.append(runner.inject(watched, run, scratch))
            print(runner.table(scores[-1:]).splitlines()[1], file=sys.stderr, flush=True)
    print(runner.table(scores))
    return int(not scores or not all(one.right for one in scores))  # nothing tried is nothing shown


def list_scenarios(options: argparse.Namespace) -> int:
    """One line a scenario."""
    found = _scenarios(options)
    for one in found:
        reason = against(one, [])
        if options.json:
            row = {"name": one.name, "about": one.document.about, "system": one.document.system}
            print(json.dumps({**row, "obstacle": reason}))
        else:
            print(
                f"{one.name:<44}{one.document.system:<11}{one.document.about}"
                + (f" [{reason}]" * bool(reason))
            )
    return 0


def record_runs(options: argparse.Namespace) -> int:
    """Play and keep what is not kept yet; 1 if anything failed, or all was skipped."""
    for name in options.noise:
        load_noise(name)
    beside = peers.chosen(options.peers, options.prometheus_rules)
    watch = Watch(beside, options.peers_warm, options.linger)
    todo = _shard(
        [one for each in _scenarios(options) for one in runs(each, options.seed, options.repeat)], options
    )
    until = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    failed = skipped = 0
    with _progress() as bar:
        task = bar.add_task("recording", total=len(todo))
        for run in todo:
            folder = _folder(run, options)
            bar.update(task, description=run.id)
            if time.monotonic() > until:
                bar.console.print(f"{run.id}: left for later, the time is over")
            elif options.again or not is_current(run.scenario, folder):
                reason = against(run.scenario, options.noise)
                said, bad = (f"skipped, {reason}", False) if reason else _record(run, folder, options, watch)
                failed, skipped = failed + bad, skipped + bool(reason)
                bar.console.print(f"{run.id}: {said}", highlight=False, markup=False)
            bar.advance(task)
    return int(bool(failed) or (bool(todo) and skipped == len(todo)))


def score_runs(options: argparse.Namespace) -> int:
    """Replay and score; the figures go to standard output."""
    verdicts, covered = verdicts_of(options)
    if options.json:
        scored, accompanied = tables.apart(verdicts)
        found = {"all": figures(scored), "classes": by_class(scored), "beside": compare(accompanied)}
        found["coverage"] = covered.document(scored, verdicts)
        print(json.dumps({**found, "runs": [one.document() for one in verdicts]}, indent=1))
    else:
        print(tables.text(verdicts, covered))
    return 0


def pair_advice(options: argparse.Namespace) -> int:
    """Put two versions of advice beside one another, for somebody to judge."""
    number = judging.pair(options.former, options.latter, options.out, options.lang)
    print(f"{options.out}: {number} pairs, to be judged as {options.out / judging.INSTRUCTION} says")
    return 0


def tell_judged(options: argparse.Namespace) -> int:
    """What judges said of the pairs."""
    found = judging.judged(options.folder)
    print(json.dumps(found, indent=1) if options.json else judging.text(found))
    return 0


def record_quiet(options: argparse.Namespace) -> int:
    """Record days on which nothing goes wrong, for `score_days`."""
    if not options.hours > 0.0:
        raise ConfigError(f"--hours {options.hours} is no time", hint="a number above 0")
    if reason := obstacle("machine"):
        raise ConfigError(f"no virtual machine here: {reason}")
    with _progress() as bar:
        task = bar.add_task("hours", total=options.hours)
        try:
            quiet.record(
                options.folder, options.hours, lambda hours: bar.update(task, completed=hours), time.sleep
            )
        except failures() as error:
            print(f"{options.folder}: {error}", file=sys.stderr)
            return 1
    print(options.folder)
    return 0


def score_days(options: argparse.Namespace) -> int:
    """Replay what hosts recorded on quiet days; the figures go to standard output."""
    with _models(wanted=not options.no_models) as (settings, ask, _), _progress() as bar:
        task = bar.add_task("replaying", total=len(options.folders))
        found = []
        for folder in options.folders:
            found.append(days.replayed(folder, settings, ask))
            bar.advance(task)
    summed = days.summary(found)
    print(json.dumps(summed, indent=1) if options.json else days.text(summed))
    return 0


def report_runs(options: argparse.Namespace) -> int:
    """Replay, score and write the page."""
    options.out.write_text(report.page(*verdicts_of(options)), encoding="utf-8")
    print(options.out)
    return 0


def publish_runs(options: argparse.Namespace) -> int:
    """Write what was recorded, of both sides of the split, as one file."""
    wanted = {one.name: one for one in find(options.names)}
    folders = [
        one
        for one in _usable(options.runs, wanted)[0]
        if options.host or wanted[_name(one)].document.system != "host"
    ]
    index = dataset.publish(folders, wanted, options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {index['runs']} runs of {index['mechanisms']} mechanisms, {size:.1f} MB")
    return 0


def write_cases(options: argparse.Namespace) -> int:
    """Replay the open recordings and write what training needs of them."""
    cases.check(options.out)
    if options.degraded < 0:
        raise ConfigError(f"--degraded {options.degraded} is no number of copies", hint="0 or more")
    part = _part(options.hold_out, "--hold-out") if options.hold_out else None
    wanted = {one.name: one for one in _scenarios(options)}
    found: list[Case] = []
    with (
        _recordings(options.runs) as runs_folder,
        _models(wanted=not options.no_models) as (_, ask, _write),
        _progress() as bar,
    ):
        folders, _ = _usable(runs_folder, wanted)
        task = bar.add_task("replaying", total=len(folders))
        for folder in folders:
            found += cases.cases(folder, wanted[_name(folder)], ask, options.without)
            bar.advance(task)
    found += list(cases.degraded(found, copies=options.degraded))
    found = cases.held_out(found, *part) if part else found
    written = cases.write(found, options.out, keep_split=part is not None)
    what, groups = cases.SUFFIXES[options.out.suffix], len({one.group for one in found})
    print(f"{options.out}: {written} {what} of {groups} mechanisms, from {len(folders)} runs")
    return 0


def freeze(options: argparse.Namespace) -> int:
    """Give new scenarios their side; with --scored, end that of those whose score is known."""
    sides = split.load_sides()
    split.write_sides(
        split.unfreeze(sides) if options.scored else split.extend(sides, [one.name for one in find([])])
    )
    return 0


def against(scenario: Scenario, noise: list[str]) -> str:
    """Why a scenario cannot be played here; "" if it can."""
    return obstacle(scenario.document.system) or missing_programs(scenario, noise)


def verdicts_of(options: argparse.Namespace) -> tuple[list[Verdict], Coverage]:
    """The verdicts on all recorded runs that were asked for, and what was asked for."""
    wanted = {one.name: one for one in _scenarios(options)}
    with _recordings(options.runs) as folder:
        folders, left_out = _usable(folder, wanted)
        verdicts, read = _judged(folders, wanted, options)
    questions = (read.asked, read.unanswered) if read else ()
    return verdicts, Coverage(sorted(wanted), left_out, *questions)


@contextlib.contextmanager
def _recordings(place: Path) -> Iterator[Path]:
    """The folder of recordings, or that of a data set's file."""
    with tempfile.TemporaryDirectory() as scratch:
        yield dataset.unpack(place, Path(scratch)) if place.is_file() else place


def _usable(runs_folder: Path, wanted: dict[str, Scenario]) -> tuple[list[Path], dict[str, str]]:
    """The folders of recordings that can be scored; which others cannot, and why. Raises ConfigError."""
    found = [one.parent for one in sorted(runs_folder.glob("*/*/*/run.json")) if _name(one.parent) in wanted]
    against_it = {one: _flaw(wanted[_name(one)], one) for one in found}
    for folder, reason in against_it.items():
        if reason:
            print(f"lab: {folder}: left out, {reason}; record it again", file=sys.stderr)
    folders = [one for one in found if not against_it[one]]
    if not folders:
        raise ConfigError(f"{runs_folder} holds no such run", hint="`python -m tests.lab record` makes them")
    left_out = {str(one.relative_to(runs_folder)): reason for one, reason in against_it.items() if reason}
    return folders, left_out


def _judged(
    folders: list[Path], wanted: dict[str, Scenario], options: argparse.Namespace
) -> tuple[list[Verdict], Reader | None]:
    """The verdicts, and who read meanwhile."""
    wanted_reader = options.served or options.answers
    read = Reader(options.served, options.served_model, options.answers) if wanted_reader else None
    with _models(wanted=not options.no_models) as (_, ask, write), _progress() as bar:
        task = bar.add_task("replaying", total=len(folders))
        found, advice = [], []
        for folder in folders:
            scenario, advised = wanted[_name(folder)], []
            found.append(judge(folder, scenario, (ask, read), write, options.age, tell=advised.extend))
            if not scenario.benign and (row := judging.advised(scenario, advised)):
                advice.append(row)
            bar.advance(task)
    if read:
        _tell_reader(read)
    if options.advice:
        options.advice.write_text("".join(f"{json.dumps(row)}\n" for row in advice), encoding="utf-8")
    return found, read


def _tell_reader(read: Reader) -> None:
    took = sorted(read.seconds) or [0.0]
    median, most = took[len(took) // 2], took[-1]
    print(f"lab: {read.asked} questions were read, {median:.1f} s each, {most:.1f} at most", file=sys.stderr)
    if (path := read.close()) is not None:
        print(f"lab: {read.left} of them have no answer: they are in {path}", file=sys.stderr)


@contextlib.contextmanager
def _models(*, wanted: bool) -> Iterator[tuple[Settings, dict[ModelTier, Ask], Write | None]]:
    """Default settings and the models to ask: the shipped ones, whatever is installed on this machine."""
    with tempfile.TemporaryDirectory() as state:
        settings = configuration.load(_empty(Path(state)), state_dir=Path(state))
        with scorers(settings, wanted=wanted) as models:
            ask = {tier: one.ask_now for tier, one in models.items() if tier != "top"}
            speaks = models and models["top"].state != "off"
            yield settings, ask, writer(models["top"]) if speaks else None


def _flaw(scenario: Scenario, folder: Path) -> str:
    if not is_current(scenario, folder):
        return "its scenario was changed since"
    return "others kept the machine busy" if is_drowned(folder) else ""


def _name(folder: Path) -> str:
    return f"{folder.parent.parent.name}/{folder.parent.name}"


def _empty(folder: Path) -> Path:
    path = folder / "hauswart.toml"
    path.touch()
    return path


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    found, sides = find(options.names), split.load_sides()
    if options.both_sides:
        if options.frozen:
            raise ConfigError("--frozen and --both-sides: only one of them", hint="--both-sides has all")
        return found
    return [one for one in found if split.is_frozen(one.name, sides) == options.frozen]


def _shard(todo: list[Run], options: argparse.Namespace) -> list[Run]:
    number, of = _part(options.shard, "--shard")
    return todo[number - 1 :: of]


def _part(text: str, option: str) -> tuple[int, int]:
    """`I/N` as numbers; raises ConfigError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"{option} {text!r} is not I/N", hint="such as 1/4 to 4/4")
    return int(found[1]), int(found[2])


def _folder(run: Run, options: argparse.Namespace) -> Path:
    parts = sorted(options.noise)
    if options.peers is not None:
        parts += [
            "peers" if options.peers == "all" else "peers-" + "-".join(sorted(options.peers.split(",")))
        ]
    parts += [f"linger-{options.linger:.0f}"] if options.linger else []
    return options.runs / "".join([run.id, *(f"+{one}" for one in parts)])


def _record(run: Run, folder: Path, options: argparse.Namespace, watch: Watch) -> tuple[str, bool]:
    """What came of it, in words, and whether that is a failure."""
    began = time.monotonic()
    try:
        found = record(run, folder, options.noise, watch)
    except (RecordingError, HauswartError, *failures()) as error:
        return f"NOT RECORDED: {error}", True
    took = f"{time.monotonic() - began:.0f} s"
    if split.is_frozen(run.scenario.name, split.load_sides()):
        return f"recorded, {took}", False  # what was said of a frozen one is nobody's business yet
    told = f"{took}, live: {_gist(found['live'])}"
    return "; ".join(
        [told, *(_peer_gist(*one, found["times"]) for one in found.get("peers", {}).items())]
    ), False


def _peer_gist(name: str, said: dict, times: dict) -> str:
    if "left_out" in said:
        return f"{name} left out, {said['left_out']}"
    since = [one["name"] for one in said["alerts"] if one["at"] + one["grain_s"] > times["began"]["wall"]]
    return f"{name}: {', '.join(dict.fromkeys(since)) or 'nothing'}"


def _gist(live: list[dict]) -> str:
    told = [one["incident"] for one in live if one["incident"]["state"] != "merged"]
    said = [
        f"{one['fault_class']} {one['severity']} "
        + ", ".join(f"{c['kind']}:{c['name']}" for c in one["culprits"][:2])
        for one in sorted(told, key=lambda one: one["opened_at"])
    ]
    return "; ".join(said) or "nothing"


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, soft_wrap=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar
