"""`python -m training VERB ...` is `hauswart train VERB ...`; torchrun starts the verbs this way."""

from __future__ import annotations

import sys

from daemon.command.app import app as root
from daemon.command.app import main
from training.app import app

if __name__ == "__main__":
    if all(group.name != "train" for group in root.registered_groups):  # a checkout that is not installed
        root.add_typer(app, name="train")
    sys.exit(main(["train", *sys.argv[1:]]))
