"""transformers' Trainer with our loss, and its progress as lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

_TELL_EVERY_S = 15.0


class LossTrainer(Trainer):
    """A Trainer whose loss is ours; without one it is the model's own."""

    def __init__(self, *, loss: Any = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._our_loss = loss
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **known: Any) -> Any:  # noqa: FBT001, FBT002  # the library's signature
        """The loss of a batch."""
        if self._our_loss is None:
            return super().compute_loss(model, inputs, return_outputs, **known)
        loss, outputs = self._our_loss.of(model, inputs)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, *rest: Any, **known: Any) -> Any:
        """Only the loss: quality is what `evaluate` measures."""
        import torch  # noqa: PLC0415

        if self._our_loss is None:
            return super().prediction_step(model, inputs, *rest, **known)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return (loss.detach(), None, None)


class Progress(TrainerCallback):
    """Tells how far it is, every quarter of a minute and at each evaluation."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told, self._began = tell, 0.0, time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """One line."""
        logs = logs or {}
        now = time.monotonic()
        if "eval_loss" not in logs and now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        said = ", ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "eval_loss") if name in logs)
        step = (
            f"step {state.global_step} of {state.max_steps}" if state.max_steps else "before the first step"
        )
        self._tell(f"{step}, {now - self._began:.0f} s: {said}")


class LogFile(TrainerCallback):
    """A run's figures as they come, one JSON object a line: the tracker that needs no service."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Append."""
        line = {"at": round(time.time(), 1), "step": state.global_step, **(logs or {})}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
