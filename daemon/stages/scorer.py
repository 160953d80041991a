"""The scorer process: loads one bundle, answers its stage over one socket, ends when nothing is asked.

The only part of the daemon that imports numpy and onnxruntime. It reads nothing but its bundle and its
socket, and takes the blame for its own memory: it is the first to be slowed down and the first to be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import FrameError, HauswartError
from daemon.questions import (
    MAX_FRAME_BYTES,
    MAX_PROMPT,
    Broken,
    Bye,
    Classify,
    Failed,
    FromScorer,
    Open,
    Ready,
    Request,
    Scored,
    Scores,
    Write,
    Written,
    decode_request,
    encode_frame,
)
from daemon.stages.process import describe, inherited_channel, name_process

# Whatever the host does is more urgent; systemd's CPUWeight= does the rest. For an incident somebody waits.
NICE = {"low": 10, "middle": 5, "top": 5}
OOM_SCORE_ADJ = 500  # of 1000: losing it costs answers, not observations
DATA_BYTES = 512 << 20  # shapes like the shipped ones take 70 to 90 MiB; a DistilBERT of full size fits, too
REASON_CHARS = 1000
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Model:
    """A loaded bundle; a classifier has `score`, a generator `write`."""

    bundle: str
    thresholds: Mapping[str, float] = field(default_factory=dict)
    refused: Sequence[str] = ()
    score: Callable[[str], Scores] | None = None
    write: Callable[[Write], str] | None = None


def run_scorer(tier: str) -> int:
    """Be the scorer of a tier on the socket that is the standard input; the exit code."""
    channel = inherited_channel(f"scorer of the {tier} tier")
    name_process("hauswart-score")
    be_humble(NICE.get(tier, NICE["low"]))
    serve(channel, load)
    return 0


def be_humble(nice: int) -> None:
    """Give way to everything else, and end with the stage, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):  # the stage ends it, when it has heard the last answer
        signal.signal(number, signal.SIG_IGN)
    os.nice(nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = DATA_BYTES if hard == resource.RLIM_INFINITY else min(DATA_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def serve(channel: socket.socket, load_model: Callable[[Open], Model]) -> None:
    """Load what the first frame names and answer until the stage is gone or asks nothing any more."""
    with channel:
        first = _receive(channel)
        if not isinstance(first, Open):
            return
        try:
            model = load_model(first)
        except (HauswartError, ImportError, OSError, MemoryError, ValueError, RuntimeError) as error:
            said = str(error) if isinstance(error, HauswartError) else describe(error)
            _send(channel, Broken(said[:REASON_CHARS]))
            return
        _send(channel, Ready(model.bundle[:128], dict(model.thresholds), list(model.refused)))
        channel.settimeout(first.idle_s)
        while (request := _receive(channel)) is not None:
            if isinstance(request, Open):
                return
            _send(channel, answer(model, request))


def answer(model: Model, request: Request) -> FromScorer:
    """The answer to one request; what fails is said and harms no other request."""
    try:
        if isinstance(request, Classify) and model.score is not None:
            return Scored(request.id, [model.score(text) for text in request.texts])
        if isinstance(request, Write) and model.write is not None:
            return Written(request.id, model.write(request)[:MAX_PROMPT])
        return Failed(request.id, f"{model.bundle} does not answer such questions")
    except Exception as error:  # noqa: BLE001  # the text is other people's, and so is the runtime
        return Failed(request.id, describe(error)[:REASON_CHARS])


def load(wanted: Open) -> Model:
    """Choose, verify and load the bundle; raises BundleError, or what the runtime raises."""
    from models.runtime import Classifier, Generator  # noqa: PLC0415  # the heavy imports of this process
    from models.shelf import Trust, look  # noqa: PLC0415

    key = Path(wanted.allowed_signers) if wanted.allowed_signers else None
    choice = look(wanted.tier, wanted.pinned, Path(wanted.state_dir), Trust(key, wanted.signature_required))
    bundle, refused = choice.bundle, [one[:REASON_CHARS] for one in choice.refused]
    if bundle.config.kind == "classifier":
        classifier = Classifier(bundle)
        # One at a time: 32 at once take 34 MB more, are no faster on one thread, and under dynamic
        # quantisation an answer would depend on its neighbours.
        return Model(
            bundle.name, bundle.config.thresholds, refused, score=lambda text: classifier.score([text])[0]
        )
    generator = Generator(bundle)

    def write(request: Write) -> str:
        return generator.generate(
            request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            seed=request.seed,
        )

    return Model(bundle.name, refused=refused, write=write)


def _receive(channel: socket.socket) -> Open | Request | None:
    """The next request; None when the stage is gone, sends what cannot be read, or asks nothing any more."""
    try:
        data = channel.recv(MAX_FRAME_BYTES + 1)
        return decode_request(data) if data else None
    except TimeoutError:
        _send(channel, Bye())
    except (FrameError, OSError):
        pass
    return None


def _send(channel: socket.socket, frame: FromScorer) -> None:
    with contextlib.suppress(OSError):
        channel.send(encode_frame(frame))
