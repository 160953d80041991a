"""`python -m tests.lab [COMMAND]`: real faults, what the daemon says of them, and how right that is.

    try [NAME ...]     inject a few faults into this machine under one daemon (the default)
    list [NAME ...]    what there is, and what stands against it here
    record [NAME ...]  play scenarios and keep each run's telemetry; goes on where it was interrupted
    score [NAME ...]   replay what was recorded and say how right it was
    report [NAME ...]  the same as one HTML page
    pair OLD NEW       put two versions of advice (score --advice) beside one another, for blind judging
    judged DIR         what judges said of them
    quiet DIR          record days of a virtual machine in hours, on which nothing goes wrong
    days DIR ...       replay what a host's daemon recorded while nothing was wrong: false incidents a day
    cases [NAME ...]   replay the open ones and write their incidents with the answers, to learn from
    publish [NAME ...] pack what was recorded as one file for others, with labels and a data card
    freeze             put new scenarios on one side of the split

A NAME is CLASS/MECHANISM, CLASS or MECHANISM, or a pattern of them such as 'disk-*/*'.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from daemon.errors import HauswartError
from tests.lab import commands, dataset
from tests.lab.cases import KINDS
from tests.lab.peers import WARM_S

RECORDINGS = Path("lab-runs")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    attempt = _verb(verbs, "try", commands.attempt)
    attempt.add_argument("--quiet", type=float, default=0, metavar="SECONDS", help="expect no incident")
    attempt.add_argument("--faults", action="store_true", help="after the quiet time the faults, too")
    attempt.add_argument("--warm", type=float, default=10, metavar="SECONDS", help="watch this long first")
    attempt.add_argument("--keep", type=Path, help="leave state and log here")
    listing = _verb(verbs, "list", commands.list_scenarios)
    listing.add_argument("--frozen", action="store_true", help="the frozen ones instead")
    listing.add_argument("--json", action="store_true")
    record = _verb(verbs, "record", commands.record_runs)
    _add_record(record)
    for name, function in (("score", commands.score_runs), ("report", commands.report_runs)):
        verb = _verb(verbs, name, function)
        verb.add_argument("--no-models", action="store_true", help="the baselines alone")
        verb.add_argument(
            "--served", default="", metavar="URL", help="a model there reads what no rule knows"
        )
        verb.add_argument("--served-model", default="", metavar="NAME", help="its name there")
        verb.add_argument(
            "--answers", type=Path, metavar="FILE", help="what it answered before; more is added"
        )
        verb.add_argument(
            "--age",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="as of a host that was quiet for so long",
        )
        if name == "score":
            verb.add_argument("--json", action="store_true")
            verb.add_argument("--advice", type=Path, metavar="FILE", help="write what is advised, for `pair`")
        else:
            verb.add_argument("--out", type=Path, default=Path("lab-report.html"))
            verb.set_defaults(advice=None)
    _add_judging(verbs)
    quiet = _verb(verbs, "quiet", commands.record_quiet, names=False)
    quiet.add_argument("folder", type=Path, metavar="DIR", help="what `days` replays")
    quiet.add_argument("--hours", type=float, default=24.0, help="of the machine's clock")
    quiet_days = _verb(verbs, "days", commands.score_days, names=False)
    quiet_days.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a state directory")
    quiet_days.add_argument("--no-models", action="store_true", help="the baselines alone")
    quiet_days.add_argument("--json", action="store_true")
    publish = _verb(verbs, "publish", commands.publish_runs)
    publish.add_argument("--out", type=Path, default=Path(dataset.ROOT + dataset.SUFFIX))
    publish.add_argument("--host", action="store_true", help="also recordings of the machine itself")
    case = _verb(verbs, "cases", commands.write_cases)
    case.add_argument(
        "--out",
        type=Path,
        default=Path("lab-cases.jsonl"),
        help=".jsonl for `train evaluate`, .parquet for `train dataset --table`",
    )
    case.add_argument(
        "--degraded", type=int, default=0, metavar="N", help="also N copies a way of which less is seen"
    )
    case.add_argument(
        "--without", action="append", default=[], choices=KINDS, help="as of a host that has no such reader"
    )
    case.add_argument("--no-models", action="store_true", help="without what the low tier's model raises")
    case.add_argument("--hold-out", default="", metavar="I/N", help="test on every N-th mechanism")
    case.set_defaults(frozen=False)  # nothing learns from those
    for verb in (record, publish):
        verb.add_argument("--runs", type=Path, default=RECORDINGS, metavar="DIR", help="where recordings lie")
    for verb in (verbs.choices["score"], verbs.choices["report"], case):
        verb.add_argument(
            "--runs", type=Path, default=RECORDINGS, metavar="DIR", help="recordings, or a data set's file"
        )
    for verb in (record, verbs.choices["score"], verbs.choices["report"]):
        verb.add_argument("--frozen", action="store_true", help="the frozen ones instead")
    sides = _verb(verbs, "freeze", commands.freeze, names=False)
    sides.add_argument("--scored", action="store_true", help="the frozen ones' score is known: they are open")
    return top


def _add_record(record: argparse.ArgumentParser) -> None:
    record.add_argument("--again", action="store_true", help="also what is recorded already")
    record.add_argument("--both-sides", action="store_true", help="the frozen ones and the others")
    record.add_argument("--seed", type=int, default=1)
    record.add_argument("--repeat", type=int, default=1, metavar="N", help="so many runs of each")
    record.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th run from the I-th on")
    record.add_argument("--minutes", type=float, default=0, help="begin no run after this time")
    record.add_argument("--noise", action="append", default=[], metavar="NAME", help="beside it")
    record.add_argument(
        "--peers",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="others beside it: all, or such as netdata,monit",
    )
    record.add_argument("--prometheus-rules", type=Path, metavar="FILE", help="alerting rules for prometheus")
    record.add_argument(
        "--peers-warm", type=float, default=WARM_S, metavar="SECONDS", help="peers run so long first"
    )
    record.add_argument(
        "--linger", type=float, default=0, metavar="SECONDS", help="watch until so long after the effect"
    )


def _add_judging(verbs) -> None:
    pair = _verb(verbs, "pair", commands.pair_advice, names=False)
    pair.add_argument("former", type=Path, help="what `score --advice` wrote")
    pair.add_argument("latter", type=Path, help="and what another version did")
    pair.add_argument("--out", type=Path, default=Path("lab-judging"), metavar="DIR")
    pair.add_argument("--lang", choices=("en", "de"), default="en")
    judged = _verb(verbs, "judged", commands.tell_judged, names=False)
    judged.add_argument("folder", type=Path, metavar="DIR", help="with what judges wrote")
    judged.add_argument("--json", action="store_true")


def _verb(verbs, name: str, function, *, names: bool = True) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name)
    verb.set_defaults(function=function, both_sides=False)  # only `record` takes both
    if names:
        verb.add_argument("names", nargs="*", metavar="NAME")
    return verb


def main(argv: list[str]) -> int:
    """Do what the command line asks for."""
    verbs = {"try", "list", "record", "score", "report", "pair", "judged", "quiet", "days"}
    verbs |= {"cases", "publish", "freeze"}
    if not argv or (argv[0] not in verbs and argv[0] not in {"-h", "--help"}):
        argv = ["try", *argv]
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that containers and faults are undone
    try:
        return options.function(options)
    except HauswartError as error:
        print(f"lab: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
