"""What an exported model costs: bytes, milliseconds on one thread, memory, and how many weights are zero.

Time and memory are taken in fresh processes that load what the daemon loads, with the daemon's options, so
that what this process holds does not count. Models that are to be compared are timed in turns: a busy
machine slows all of them alike. `python -m training.measure SEQUENCE ROUNDS MODEL...` prints it as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import HauswartError

ROUNDS = 200
WARM_UP = 10  # the first runs allocate
PROMPT = 32  # tokens before the one whose time is taken, for a generator
TIMEOUT_S = 600


class MeasureError(HauswartError):
    """A model could not be measured."""


def costs(paths: Sequence[Path], *, sequence: int, rounds: int = ROUNDS) -> list[dict[str, float]]:
    """For each ONNX file `bytes`, `latency_ms`, `latency_low_ms`, `latency_high_ms`, `memory_mib`.

    Latency is the processor time of one thread for one text of `sequence` tokens, or for one token that a
    generator writes: the median, and what nine of ten runs lie between. Memory is what loading the model and
    running it once added to a process (proportional set size). Raises MeasureError.
    """
    times = _child([str(sequence), str(rounds), *map(str, paths)])
    found = []
    for path, took in zip(paths, times, strict=True):
        memory = _child([str(sequence), "0", str(path)])[0]
        found.append({"bytes": path.stat().st_size, **took, **memory})
    return found


def onnx_sparsity(path: Path) -> float:
    """The share of zeros in an ONNX file's weight matrices."""
    import onnx  # noqa: PLC0415 - the measuring processes do without
    from onnx import numpy_helper  # noqa: PLC0415

    weights = [w for w in onnx.load(path).graph.initializer if len(w.dims) == 2 and min(w.dims) > 1]
    arrays = [numpy_helper.to_array(one) for one in weights]
    zeros = sum(int((one == 0).sum()) for one in arrays)
    return float(zeros / max(1, sum(one.size for one in arrays)))


def row(step: str, detail: str = "", *, touched: int = 0, of: int = 0, **known: Any) -> dict[str, Any]:
    """One row of the table of what shrinking did: `step`, `detail`, layers touched of how many, figures.

    The figures are `parameters`, `sparsity`, those of `costs`, `quality` and `quality_before`.
    """
    return {"step": step, "detail": detail, "layers_touched": touched, "layers": of, **known}


def chain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with the quality of the one before it."""
    before: Mapping[str, Any] = {}
    for one in rows:
        one["quality_before"] = dict(before)
        before = one.get("quality", before)
    return list(rows)


def _child(arguments: Sequence[str]) -> list[dict[str, float]]:
    argv = [sys.executable, "-m", "training.measure", *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"measuring {arguments[2]} took more than {TIMEOUT_S} s") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasureError(f"measuring {arguments[2]} failed: {said}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def _main(sequence: int, rounds: int, paths: Sequence[str]) -> list[dict[str, float]]:
    import onnxruntime  # noqa: PLC0415, F401 - counts as there before the first reading

    if not rounds:
        before = _pss_mib()
        session = open_session(Path(paths[0]))
        session.run(None, _inputs(session, sequence))
        return [{"memory_mib": round(_pss_mib() - before, 1)}]
    sessions = [open_session(Path(path)) for path in paths]
    return _timed([(one, _inputs(one, sequence)) for one in sessions], rounds)


def _timed(runs: Sequence[tuple[Any, dict[str, Any]]], rounds: int) -> list[dict[str, float]]:
    times = np.zeros((rounds + WARM_UP, len(runs)))  # (rounds, models) ms
    for turn in range(rounds + WARM_UP):
        for number, (session, inputs) in enumerate(runs):
            began = time.thread_time()
            session.run(None, inputs)
            times[turn, number] = 1000.0 * (time.thread_time() - began)
    low, middle, high = np.percentile(times[WARM_UP:], [5, 50, 95], axis=0).round(4)
    return [
        {"latency_ms": float(m), "latency_low_ms": float(one), "latency_high_ms": float(h)}
        for one, m, h in zip(low, middle, high, strict=True)
    ]


def open_session(path: Path) -> Any:
    """An ONNX file with the options that the daemon's runtime has."""
    import onnxruntime  # noqa: PLC0415 - callers that only read files do without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def empty_past(session: Any, length: int = 0) -> dict[str, Any]:
    """A generator's past of so many tokens, all zeros; {} for a classifier."""
    pasts = [one for one in session.get_inputs() if one.name[:1] in {"k", "v"}]
    return {one.name: np.zeros((1, one.shape[1], length, one.shape[3]), np.float32) for one in pasts}


def _inputs(session: Any, sequence: int) -> dict[str, Any]:
    past = empty_past(session, min(PROMPT, sequence - 1))
    if past:
        return {"input_ids": np.array([[5]], np.int64), **past}
    ids = 5 + np.arange(sequence, dtype=np.int64)[None] % 50  # any tokens cost the same
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _pss_mib() -> float:
    with Path("/proc/self/smaps_rollup").open(encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    json.dump(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]), sys.stdout)
