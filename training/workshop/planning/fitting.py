"""Which model fits at which quantization, to answer and to be trained, and how fast it would be.

Answering: weights + KV cache + computation + runtime, where
  weights     = parameters x bits / 8
  KV cache    = 2 x layers x KV heads x head size x 2 bytes, for each token of context and each conversation
  computation = a block of 512 tokens, some 24 hidden vectors of 32 bits for each
  runtime     = what a server holds beside, a card's driver included
Training: `training.memory.estimate_bytes`, with checkpoints on a card, and the runtime.
An answer's tokens come as fast as weights and cache are read from memory or are multiplied one at a time (the
slower of both); a prompt's as blocks are multiplied: 2 operations for a weight and token. Training takes 4
(frozen weights have no gradient of their own), and 6 where layers are computed again.
"""

from __future__ import annotations

from typing import NamedTuple

from training.memory import LEAST_BATCH, LEAST_LENGTH, LEAST_RANK, Shape, estimate_bytes
from training.workshop.planning.catalogue import Model, Quantization
from training.workshop.planning.machine import GIB, Machine

BLOCK = 512  # tokens of a prompt that llama.cpp computes at a time
# Both by SmolLM2-135M in llama.cpp: it took 234 MB with 2048 tokens of context, and 385 MB with 8192.
HIDDEN_VECTORS, RUNTIME_BYTES = 24, 60e6
# A card's driver is some 500 MB more; with it the estimate of training is within 9 % of LLaMA-Factory's table
# of measured sizes (7B, 4 bits, 1k to 32k tokens).
GPU_RUNTIME_BYTES = 0.6e9
SPARE = 0.9  # of a card's or a host's memory; the rest is the desktop's, the system's, and fragments
SYSTEM_BYTES = 1.5e9  # of the host's memory, for everything else on it
# Of what memory and arithmetic could give. A card reads weights at some 0.6 of its bandwidth. A core is bound
# by arithmetic: SmolLM2-135M in llama.cpp wrote 65 and read 162 tokens in a second of its time (n=4), beside
# 93 GFLOP/s: 0.19 and 0.47 of it. Memory (30 GB/s) would have let it write three times as many.
READ_SHARE, WRITE_SHARE, MULTIPLY_SHARE = 0.6, 0.19, 0.45
TRAIN_SHARE = 0.3  # of a card's listed arithmetic, with frameworks as they are; a guess for a processor
PREFERRED_BITS = 5.0  # below eight billion parameters, 4 bits cost one percent of perplexity; fewer cost more


class Effort(NamedTuple):
    """How it is asked: tokens of context, conversations at a time."""

    context: int
    concurrency: int


class Fit(NamedTuple):
    """One model at one quantization here; speeds in tokens a second over all conversations."""

    model: Model
    quantization: Quantization
    memory_gib: float
    room_gib: float
    fits: bool
    answer_tokens_s: float
    prompt_tokens_s: float
    download_gib: float
    why_not: str = ""


class Training(NamedTuple):
    """How a model could be adapted here; `method` is qlora, lora or "" where nothing fits."""

    model: Model
    method: str
    memory_gib: float
    tokens_s: float
    batch_size: int = 2
    accumulation: int = 4
    length: int = 4096
    rank: int = 16

    @property
    def quantization(self) -> str:
        """As the training configuration calls it."""
        return "4bit" if self.method == "qlora" else "none"


class Calibration(NamedTuple):
    """What a served model reached, of what was expected of it: factors for all expectations."""

    answer: float = 1.0
    prompt: float = 1.0


def inference_bytes(model: Model, bits: float, effort: Effort, *, gpu: bool) -> float:
    """Memory to answer."""
    context = min(effort.context, model.context)
    cache = kv_bytes(model) * context * effort.concurrency
    computation = BLOCK * 4.0 * HIDDEN_VECTORS * model.hidden
    runtime = GPU_RUNTIME_BYTES if gpu else RUNTIME_BYTES
    return model.parameters * bits / 8 + cache + computation + runtime


def kv_bytes(model: Model) -> float:
    """Keys and values of one token in 16 bits."""
    return 2.0 * model.layers * model.kv_heads * model.head_size * 2


def room_bytes(machine: Machine) -> float:
    """What a model may take here."""
    if machine.gpu:
        return machine.gpu_gib * GIB * SPARE
    return max(0.0, machine.ram_gib * GIB * SPARE - SYSTEM_BYTES)


def fit(
    model: Model,
    quantization: Quantization,
    machine: Machine,
    effort: Effort,
    calibration: Calibration | None = None,
) -> Fit:
    """Whether it fits, and how fast it would be."""
    factor = calibration or Calibration()
    needed = inference_bytes(model, quantization.bits, effort, gpu=bool(machine.gpu))
    room = room_bytes(machine)
    weights = model.parameters * quantization.bits / 8
    why_not = ""
    if needed > room:
        why_not = "memory"
    elif weights > machine.disk_gib * GIB:
        why_not = "disk"
    elif model.context < effort.context:
        why_not = "context"
    read = weights + kv_bytes(model) * min(effort.context, model.context) / 2  # half full, on average
    multiplied = machine.gflops * 1e9 / (2.0 * model.parameters)  # tokens a second, at best
    answer = min(machine.bandwidth_gb_s * 1e9 * READ_SHARE / read, multiplied * WRITE_SHARE) * factor.answer
    prompt = multiplied * MULTIPLY_SHARE * factor.prompt
    # Conversations at a time share each reading of the weights, until arithmetic is the limit.
    return Fit(
        model,
        quantization,
        needed / GIB,
        room / GIB,
        not why_not,
        min(answer * effort.concurrency, max(prompt, answer)),
        prompt,
        weights / GIB,
        why_not,
    )


def choose(fits: list[Fit]) -> Fit:
    """Of one model's fits the one to take: as many bits as needed, and of those that fit the smallest."""
    good = [one for one in fits if one.fits]
    enough = [one for one in good if one.quantization.bits <= PREFERRED_BITS]
    if enough:
        return max(enough, key=lambda one: one.quantization.bits)
    return min(good or fits, key=lambda one: one.quantization.bits)


def training(model: Model, machine: Machine, rank: int) -> Training:
    """The settings that fit, giving up batch, length and rank in this order; 4 bits on a card only."""
    shape = Shape(model.parameters, model.layers, model.hidden, model.vocabulary)
    room = room_bytes(machine)
    for method in ("qlora", "lora") if machine.gpu else ("lora",):
        for settings in _lessened(model, method, rank):
            needed = training_bytes(shape, settings, gpu=bool(machine.gpu))
            if needed <= room:
                speed = _training_tokens_s(model, machine)
                return settings._replace(memory_gib=needed / GIB, tokens_s=speed)
    return Training(model, "", 0.0, 0.0)


def training_bytes(shape: Shape, settings: Training, *, gpu: bool) -> float:
    """Memory to train with these settings."""
    return (GPU_RUNTIME_BYTES if gpu else 0.0) + estimate_bytes(
        shape,
        four_bits=settings.method == "qlora",
        sixteen_bits=gpu,
        tokens=settings.batch_size * settings.length,
        rank=settings.rank,
        checkpointing=True,
    )


def _lessened(model: Model, method: str, rank: int) -> list[Training]:
    length = min(4096, model.context)
    first = Training(model, method, 0.0, 0.0, 2, 4, length, rank)
    second = first._replace(batch_size=LEAST_BATCH, accumulation=8)
    third = second._replace(length=min(length, LEAST_LENGTH))
    return [first, second, third, third._replace(rank=min(rank, LEAST_RANK))]


def _training_tokens_s(model: Model, machine: Machine) -> float:
    return machine.gflops * 1e9 * TRAIN_SHARE / (6.0 * model.parameters)
