"""Starts one stage in this process: the only place that knows which module is which stage."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path

from daemon.errors import ConfigError, HauswartError
from daemon.settings import load_resolved
from daemon.stages.log import StageLog
from daemon.stages.process import describe, name_process

MODULES = {name: f"daemon.stages.{name}" for name in ("collector", "low", "middle", "top", "notify")}
# Objects made before a collection looks at them; at 700 it would run for every few lines of a flood.
_YOUNG_MAX = 10_000


def run_stage(name: str, resolved: Path) -> int:
    """Be that stage until it is stopped; the exit code. Errors become one line in its log."""
    tell = StageLog(name)
    if name not in MODULES:
        tell.error(f"there is no such stage; there are {', '.join(MODULES)}")
        return ConfigError.exit_code
    try:
        settings = load_resolved(resolved)
        name_process(f"hauswart-{name}")
        gc.set_threshold(_YOUNG_MAX)
        importlib.import_module(MODULES[name]).run(settings)
    except HauswartError as error:
        tell.failure(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # the last place where it can be said what ended a stage
        tell.error(f"crashed: {describe(error)}")
        return 1
    return 0
