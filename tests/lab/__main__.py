"""`python -m tests.lab [NAME ...] [--quiet SECONDS]`: inject faults into this machine and print the score."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.faults import FAULTS, obstacle
from tests.lab.runner import daemon, inject, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in FAULTS))
    parser.add_argument(
        "--quiet", type=float, default=0, metavar="SECONDS", help="watch and expect no incident"
    )
    parser.add_argument("--faults", action="store_true", help="after the quiet time inject the faults, too")
    parser.add_argument("--warm", type=float, default=10, metavar="SECONDS", help="watch this long first")
    parser.add_argument("--keep", type=Path, help="leave state and log here")
    options = parser.parse_args()
    scratch = options.keep or Path(tempfile.mkdtemp(prefix="hwlab-"))
    scratch.mkdir(parents=True, exist_ok=True)
    with daemon(scratch) as watched:
        time.sleep(options.warm)
        if options.quiet:
            time.sleep(options.quiet)
            found = watched.incidents()
            print(f"{options.quiet:.0f} quiet seconds: {len(found)} incidents")
            for one in found:
                print(f"  {one.fault_class} {one.severity} {one.culprits[:1]} {one.evidence[:1]}")
            if not options.faults:
                return bool(found)
        scores = []
        for fault in FAULTS:
            if options.names and fault.name not in options.names:
                continue
            if reason := obstacle(fault):
                print(f"{fault.name}: skipped, {reason}", file=sys.stderr)
                continue
            scores.append(inject(watched, fault, scratch))
            print(table(scores[-1:]).splitlines()[1], file=sys.stderr, flush=True)
    print(table(scores))
    return int(not all(one.right for one in scores))


sys.exit(main())
