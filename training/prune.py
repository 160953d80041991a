"""Prune: single weights as the guide has it, or whole parts, and then distil from the model as it was.

Zeroing single weights (L1, amount 0.3) changes neither size nor speed; it is called sparsity here, and the
table that comes with every cut shows it. Vocabulary, layers and feed-forward width change both.
"""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn.utils import prune
from transformers.pytorch_utils import Conv1D

from daemon.errors import ConfigError
from training import batches, measure, served, structure, tokens
from training.export import to_onnx
from training.folder import load_folder, make_card, read_card, save_folder, write_card
from training.graph import SurgeryError
from training.losses import Loss
from training.show import print_table

AMOUNT = 0.3
FELT_ROWS = 256  # rows whose gradients weigh the neurons, and whose loss chooses the layers
Tell = Callable[[str], None]


def prune_model(model: Any, amount: float = AMOUNT) -> Any:
    """Set the smallest `amount` of each layer's weights to zero for good (L1, unstructured); the model.

    Over every Linear and Conv1D layer except an output head that is tied to the embedding, which has no
    weight of its own. Raises SurgeryError for an amount that is no share, or a model without such layers.
    """
    if not 0.0 <= amount < 1.0:
        raise SurgeryError(f"cannot prune an amount of {amount}", hint="a share: at least 0, below 1")
    layers = prunable_layers(model)
    if not layers:
        raise SurgeryError(f"{type(model).__name__} has no layer to prune")
    for layer in layers.values():
        prune.l1_unstructured(layer, name="weight", amount=amount)
        prune.remove(layer, "weight")
    return model


def prunable_layers(model: Any) -> dict[str, Any]:
    """The layers whose weights are pruned, by name."""
    table = model.get_input_embeddings().weight if hasattr(model, "get_input_embeddings") else None
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer.weight is not table
    }


def sparsity(model: Any) -> float:
    """The share of zeros among the weights of all layers that can be pruned."""
    weights = [layer.weight for layer in prunable_layers(model).values()]
    zeros = sum(int((one == 0).sum()) for one in weights)
    return float(zeros / max(1, sum(one.numel() for one in weights)))


class Cutter:
    """A model on its way through cuts: each leaves a row of the table and an ONNX file to be measured."""

    def __init__(self, folder: Path, data: Path | None, work: Path, *, measured: bool, tell: Tell) -> None:
        self.model, self.tokenizer, self.card = load_folder(folder)
        self.train = batches.read_split(data, self.card["tier"], "train") if data else []
        self._test = served.read_rows(data, self.card["tier"]) if data else []
        self._work, self._measured, self._tell = work, measured, tell
        self.rows: list[dict[str, Any]] = []
        self._files: list[Path] = []
        self.note("parent", "as it was")

    def note(self, step: str, detail: str, *, touched: int = 0, of: int = 0) -> None:
        """A row for the model as it is now."""
        known: dict[str, Any] = {
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "sparsity": round(sparsity(self.model), 4),
            "quality": served.judge(self.model, self.tokenizer, self.card, self._test),
        }
        self.rows.append(measure.row(step, detail, touched=touched, of=of, **known))
        if self._measured:
            self._files.append(to_onnx(self.model, self._work / f"{len(self.rows)}.onnx"))
        self._tell(f"{step}: {detail}")

    def finish(self) -> list[dict[str, Any]]:
        """All rows, with bytes, time and memory, measured in turns."""
        if self._files:
            found = measure.costs(self._files, sequence=int(self.card["sequence"]))
            for one, cost in zip(self.rows, found, strict=True):
                one.update(cost)
        return measure.chain(self.rows)

    def cut_vocabulary(self, size: int) -> None:
        """Keep the pieces that the training rows use most; raises ConfigError without rows."""
        if not self.train:
            raise ConfigError("a vocabulary is cut to what data use", hint="--data ROWS.parquet")
        before = self.model.config.vocab_size
        texts = [batches.whole_text(one) for one in self.train]
        self.tokenizer, kept = tokens.prune_vocabulary(self.tokenizer, texts, size)
        self.model = tokens.resize(copy.deepcopy(self.model), kept)
        self.note("vocabulary", f"{before} -> {len(kept)} pieces", touched=1, of=1)

    def cut_layers(self, wanted: int | Sequence[int]) -> None:
        """Keep these layers, or so many: those that the loss misses most, without rows every other."""
        total = structure.layer_count(self.model)
        kept = list(wanted) if not isinstance(wanted, int) else self._choose(wanted, total)
        self.model = structure.keep_layers(self.model, kept)
        self.note(
            "layers",
            f"{total} -> {len(kept)}: {', '.join(map(str, kept))}",
            touched=total - len(kept),
            of=total,
        )

    def _choose(self, count: int, total: int) -> list[int]:
        shared = getattr(self.model.config, "num_hidden_groups", total) == 1
        few = self._test[:: -(-len(self._test) // FELT_ROWS)] if self._test else []
        if not few or shared:
            return structure.spread(count, total)
        return structure.choose_layers(
            self.model, count, lambda made: served.judge(made, self.tokenizer, self.card, few)["loss"]
        )

    def cut_feed_forward(self, width: int) -> None:
        """Keep the inner neurons that the loss feels most, without rows those with the largest weights."""
        before = structure.feed_forward_width(self.model)
        scores = (
            structure.feel_neurons(self.model, self._losses())
            if self.train
            else structure.weigh_neurons(self.model)
        )
        self.model = structure.cut_feed_forward(self.model, width, scores)
        how = "felt by the loss" if self.train else "by weight"
        self.note("feed-forward", f"{before} -> {width}, {how}", touched=len(scores), of=len(scores))

    def _losses(self) -> Iterator[Any]:
        heads, length = self.card["heads"], int(self.card["sequence"])
        some = self.train[:: -(-len(self.train) // FELT_ROWS)]
        made = (batches.LabelRows if heads else batches.TextRows)(some, self.tokenizer, heads, length)
        loss = Loss(heads, {})
        for start in range(0, len(made), 16):
            yield loss.of(
                self.model, made.collate([made[at] for at in range(start, min(start + 16, len(made)))])
            )[0]

    def take(self, folder: Path, step: str, detail: str) -> None:
        """Go on with the model that another verb left."""
        self.model, self.tokenizer, self.card = load_folder(folder)
        self.note(step, detail)

    def zero(self, amount: float) -> None:
        """Zero single weights."""
        prune_model(self.model, amount)
        layers = len(prunable_layers(self.model))
        self.note("sparsity", f"L1, amount {amount}: neither size nor speed", touched=layers, of=layers)


def prune_folder(
    model: Path,
    out: Path,
    *,
    data: Path | None = None,
    layers: int | list[int] = 0,
    feed_forward: int = 0,
    vocabulary: int = 0,
    amount: float = 0.0,
    epochs: float = 0.0,
    max_steps: int = -1,
    batch: int = 32,
    learning_rate: float = 2e-4,
    soft_weight: float = 0.7,
    temperature: float = 2.0,
    head_weights: Mapping[str, float] | None = None,
    balance: float = 0.0,
    teacher: Path | None = None,
    measured: bool = True,
    seed: int = 0,
    recipe: str = "",
    resume: bool = False,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Cut a trained model's folder and write the smaller one to `out`; `table` tells what each cut did.

    In this order: vocabulary, layers, feed-forward width, recovery by distillation from `teacher` (else from
    the model as it was) where `epochs` or `max_steps` ask for it, single weights. Raises ConfigError.
    """
    if not any((layers, feed_forward, vocabulary, amount)):
        raise ConfigError("nothing to cut", hint="--layers, --feed-forward, --vocabulary or --amount")
    recovering = epochs > 0 or max_steps > 0
    if recovering and data is None:
        raise ConfigError("distillation needs rows", hint="--distil ROWS.parquet")
    with tempfile.TemporaryDirectory(prefix="hauswart-prune-") as work:
        cutter = Cutter(model, data, Path(work), measured=measured, tell=tell)
        if vocabulary:
            cutter.cut_vocabulary(vocabulary)
        if layers:
            cutter.cut_layers(layers)
        if feed_forward:
            cutter.cut_feed_forward(feed_forward)
        if recovering:
            from training.finetune import train_folder  # noqa: PLC0415 - the trainer takes seconds

            save_folder(cutter.model, cutter.tokenizer, cutter.card, out / "cut")
            train_folder(
                data,  # type: ignore[arg-type]  # checked above
                str(out / "cut"),
                out,
                tier=cutter.card["tier"],
                epochs=epochs,
                max_steps=max_steps,
                batch=batch,
                learning_rate=learning_rate,
                sequence=int(cutter.card["sequence"]),
                specials=(),  # the base has its marks; others would be another vocabulary than the teacher's
                distil_from=teacher or model,
                soft_weight=soft_weight,
                temperature=temperature,
                head_weights=head_weights,
                balance=balance,
                seed=seed,
                recipe=recipe,
                resume=resume,
                tell=tell,
            )
            cutter.take(out, "distil", f"from {(teacher or model).name}")
            shutil.rmtree(out / "cut")
        if amount:
            cutter.zero(amount)
        return _save(cutter, model, out, seed, recipe)


def _save(cutter: Cutter, parent: Path, out: Path, seed: int, recipe: str) -> dict[str, Any]:
    before = read_card(parent)
    known = {name: value for name, value in cutter.card.items() if name not in {"tier", "heads", "sequence"}}
    known |= {"seed": seed, "recipe": recipe, "parent": str(parent), "data": known["data"] or before["data"]}
    rows = cutter.finish()
    earlier = before["metrics"].get("table", [])[:-1]  # its last row is our first
    known["metrics"] = dict(known["metrics"]) | {"table": [*earlier, *rows]}
    card = make_card(before["tier"], before["heads"], sequence=before["sequence"], **known)
    save_folder(cutter.model, cutter.tokenizer, card, out)
    write_card(card, out)
    return {"table": rows, "parameters": rows[-1]["parameters"]}


def command(
    folder: Annotated[Path, typer.Argument(help="A trained model's folder.")],
    *,
    out: Annotated[Path, typer.Option(help="The smaller model's folder.")] = Path("pruned"),
    layers: Annotated[
        str, typer.Option(help="How many stay, or which: 3, or 0,2,5. Of an ALBERT: how often it repeats.")
    ] = "",
    feed_forward: Annotated[int, typer.Option(help="Inner neurons of each feed-forward block.", min=0)] = 0,
    vocabulary: Annotated[int, typer.Option(help="Pieces; those that --data use most.", min=0)] = 0,
    amount: Annotated[
        float, typer.Option(help="Share of single weights set to zero (L1); sparsity, no speed.")
    ] = 0.0,
    data: Annotated[
        Path | None, typer.Option(help="Rows that choose what stays and measure quality.")
    ] = None,
    distil: Annotated[Path | None, typer.Option(help="Rows to recover on, from the model as it was.")] = None,
    epochs: Annotated[float, typer.Option(help="Of the recovery.", min=0.0)] = 3.0,
    max_steps: Annotated[int, typer.Option(help="Of the recovery; -1: by epochs.")] = -1,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float, typer.Option()] = 2e-4,
    measured: Annotated[bool, typer.Option(help="Measure time and memory of each step.")] = True,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with a recovery that was cut short.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Without any of the cuts: --amount 0.3, the guide's."""
    numbers = _numbers(layers)
    cuts = bool(numbers or feed_forward or vocabulary or amount)
    result = prune_folder(
        folder,
        out,
        data=distil or data,
        layers=numbers,
        feed_forward=feed_forward,
        vocabulary=vocabulary,
        amount=amount if cuts else AMOUNT,
        epochs=epochs if distil else 0.0,
        max_steps=max_steps if distil else -1,
        batch=batch,
        learning_rate=learning_rate,
        measured=measured,
        seed=seed,
        resume=resume,
        tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
    )
    print_table(result["table"], as_json=as_json)


def _numbers(text: str) -> int | list[int]:
    try:
        found = [int(one) for one in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigError(f"--layers {text!r} is neither a number nor a list like 0,2,5") from error
    return found if "," in text else (found or [0])[0]
