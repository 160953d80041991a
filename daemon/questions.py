"""What a tier asks a model, what comes back, and the frames between a stage and its scorer process.

Knows neither sockets nor models. Both ends decode with hard limits: a scorer that went wrong must not take
its stage with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from daemon.errors import FrameError
from daemon.status import ModelTier

T = TypeVar("T")

MAX_FRAME_BYTES = 128 << 10  # below the kernel's default socket buffer (208 KiB), so that one frame fits
BATCH = 32  # texts in one question: 0.1 s of work at 3 ms a line, and no more memory than that
MAX_PROMPT = 16384

Number = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]  # a NaN is neither, and so refused
Head = Annotated[str, Meta(max_length=32)]
Scores = Annotated[
    dict[Head, Annotated[list[Probability], Meta(max_length=256)]], Meta(max_length=16)
]  # probabilities of each head's classes
Reason = Annotated[str, Meta(max_length=1024)]
Thresholds = Annotated[dict[Annotated[str, Meta(max_length=64)], float], Meta(max_length=256)]


class Question(NamedTuple):
    """One encoded text that a tier wants judged; `id` is the tier's own."""

    id: int
    text: str


class Answer(NamedTuple):
    """What the model of `bundle` says to the question with this id; its thresholds come with it."""

    id: int
    scores: Mapping[str, list[float]]
    bundle: str = ""
    thresholds: Mapping[str, float] = {}


# --- stage to scorer --------------------------------------------------------------------------------------


class Open(Struct, frozen=True, tag="open"):
    """The first frame: which bundle to serve. `pinned` is the setting: "auto" or a directory."""

    tier: ModelTier
    pinned: Annotated[str, Meta(max_length=4096)]
    state_dir: Annotated[str, Meta(max_length=4096)]
    idle_s: Annotated[float, Meta(gt=0.0)]
    signature_required: bool = False
    allowed_signers: Annotated[str, Meta(max_length=4096)] = ""


class Classify(Struct, frozen=True, tag="classify"):
    """Texts to score, encoded by the tier's encoder."""

    id: Number
    texts: Annotated[list[Annotated[str, Meta(max_length=MAX_PROMPT)]], Meta(min_length=1, max_length=BATCH)]


class Write(Struct, frozen=True, tag="write"):
    """A prompt to go on with."""

    id: Number
    prompt: Annotated[str, Meta(max_length=MAX_PROMPT)]
    max_tokens: Annotated[int, Meta(ge=1, le=1024)]
    temperature: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    top_k: Annotated[int, Meta(ge=0, le=100000)] = 0
    seed: Number = 0


Request = Classify | Write
ToScorer = Open | Classify | Write

# --- scorer to stage --------------------------------------------------------------------------------------


class Ready(Struct, frozen=True, tag="ready"):
    """The bundle is loaded."""

    bundle: Annotated[str, Meta(max_length=128)]  # tier, version and the first digits of its hash
    thresholds: Thresholds = {}
    refused: Annotated[list[Reason], Meta(max_length=4)] = []  # bundles that should have served before it


class Scored(Struct, frozen=True, tag="scored"):
    """The scores of the texts, in their order."""

    id: Number
    rows: Annotated[list[Scores], Meta(max_length=BATCH)]


class Written(Struct, frozen=True, tag="written"):
    """What the model wrote after the prompt."""

    id: Number
    text: Annotated[str, Meta(max_length=MAX_PROMPT)]


class Failed(Struct, frozen=True, tag="failed"):
    """This question could not be answered; the next one may."""

    id: Number
    reason: Reason


class Broken(Struct, frozen=True, tag="broken"):
    """No question can be answered: no bundle, a damaged one, a library is missing."""

    reason: Reason


class Bye(Struct, frozen=True, tag="bye"):
    """Nothing was asked for `idle_s`; the scorer ends."""


FromScorer = Ready | Scored | Written | Failed | Broken | Bye

_encoder = msgspec.msgpack.Encoder()
_to_scorer: msgspec.msgpack.Decoder[ToScorer] = msgspec.msgpack.Decoder(ToScorer)
_from_scorer: msgspec.msgpack.Decoder[FromScorer] = msgspec.msgpack.Decoder(FromScorer)


def encode_frame(frame: ToScorer | FromScorer) -> bytes:
    """One frame; raises FrameError where it is longer than a frame may be."""
    data = _encoder.encode(frame)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(data)} bytes exceeds {MAX_FRAME_BYTES}")
    return data


def decode_request(data: bytes) -> ToScorer:
    """What a stage sent; raises FrameError."""
    return _decode(_to_scorer, data)


def decode_answer(data: bytes) -> FromScorer:
    """What a scorer sent; raises FrameError."""
    return _decode(_from_scorer, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of more than {MAX_FRAME_BYTES} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"malformed frame: {error}") from error
