"""Checks every byte of a bundle without loading its model: `verify.py TIER DIR`."""  # noqa: INP001  # a script of the Nix package

import sys
from pathlib import Path

from daemon.errors import HauswartError
from models.bundle import verify

try:
    verify(Path(sys.argv[2]), sys.argv[1])
except HauswartError as error:
    sys.exit(f"hauswart: {error}")
