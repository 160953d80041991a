"""Cuts whole parts out of a model: layers and the width of feed-forward blocks, for every family.

Each cut builds a smaller transformers model of the same class and leaves the one it was given alone. What
remains is really smaller and faster, and really worse until it was distilled (`training.prune`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.graph import SurgeryError


@dataclass(frozen=True)
class Family:
    """Where a family keeps its layers: the name before the number, config keys, the feed-forward pair."""

    prefix: str
    layers: str
    width: str
    inner: str
    outer: str
    turned: bool = False  # Conv1D: weight (in, out)


FAMILIES = {
    "distilbert": Family("distilbert.transformer.layer.", "n_layers", "hidden_dim", "ffn.lin1", "ffn.lin2"),
    "bert": Family(
        "bert.encoder.layer.", "num_hidden_layers", "intermediate_size", "intermediate.dense", "output.dense"
    ),
    "roberta": Family(
        "roberta.encoder.layer.",
        "num_hidden_layers",
        "intermediate_size",
        "intermediate.dense",
        "output.dense",
    ),
    "albert": Family(
        "albert.encoder.albert_layer_groups.",
        "num_hidden_groups",
        "intermediate_size",
        "albert_layers.0.ffn",
        "albert_layers.0.ffn_output",
    ),
    "gpt2": Family("transformer.h.", "n_layer", "n_inner", "mlp.c_fc", "mlp.c_proj", turned=True),
}


def family_of(model: Any) -> Family:
    """The model's family; raises SurgeryError for one that nobody described."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise SurgeryError(f"no way to cut a {kind}", hint=f"families: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def layer_count(model: Any) -> int:
    """How many layers a model runs through; ALBERT runs through the same one several times."""
    name = "num_hidden_layers" if model.config.model_type == "albert" else family_of(model).layers
    return int(getattr(model.config, name))


def feed_forward_width(model: Any) -> int:
    """The inner width of the feed-forward blocks."""
    width = getattr(model.config, family_of(model).width)
    return int(width or 4 * model.config.n_embd)  # GPT-2 leaves it out where it is the usual one


def keep_layers(model: Any, kept: Sequence[int]) -> Any:
    """A model of these layers; of an ALBERT that repeats one layer only their number counts."""
    family, total = family_of(model), layer_count(model)
    if not kept or sorted(set(kept)) != list(kept) or not 0 <= kept[0] <= kept[-1] < total:
        raise SurgeryError(f"cannot keep layers {list(kept)} of {total}")
    config = copy.deepcopy(model.config)
    if config.model_type == "albert":
        return _keep_groups(model, config, list(kept))
    setattr(config, family.layers, len(kept))
    return _build(model, config, _renumbered(model, family, list(kept)))


def _keep_groups(model: Any, config: Any, kept: list[int]) -> Any:
    groups, repeats = config.num_hidden_groups, config.num_hidden_layers // config.num_hidden_groups
    config.num_hidden_layers = len(kept)
    if groups == 1:
        return _build(model, config, model.state_dict())
    if repeats > 1:
        raise SurgeryError("an ALBERT with several groups that repeat is cut by training.albert.shrink")
    config.num_hidden_groups = len(kept)
    return _build(model, config, _renumbered(model, FAMILIES["albert"], kept))


def _renumbered(model: Any, family: Family, kept: list[int]) -> dict[str, Any]:
    state = {}
    for name, value in model.state_dict().items():
        number, _, rest = name.removeprefix(family.prefix).partition(".")
        if not name.startswith(family.prefix):
            state[name] = value
        elif int(number) in kept:
            state[f"{family.prefix}{kept.index(int(number))}.{rest}"] = value
    return state


def _build(model: Any, config: Any, state: Mapping[str, Any]) -> Any:
    made = type(model)(config)
    made.load_state_dict({name: value.clone() for name, value in state.items()}, strict=True)
    return made.train(model.training)


def spread(count: int, total: int) -> list[int]:
    """`count` of `total` layers, evenly, the first and the last among them (compare Sanh et al. 2019)."""
    if not 1 <= count <= total:
        raise SurgeryError(f"cannot keep {count} of {total} layers")
    if count == 1:
        return [0]
    return [round(number * (total - 1) / (count - 1)) for number in range(count)]


def choose_layers(model: Any, count: int, loss_of: Callable[[Any], float]) -> list[int]:
    """The layers that stay when the one that is missed least goes, again and again."""
    kept = list(range(layer_count(model)))
    if not 1 <= count <= len(kept):
        raise SurgeryError(f"cannot keep {count} of {len(kept)} layers")
    while len(kept) > count:
        without = {out: [one for one in kept if one != out] for out in kept}
        losses = {out: loss_of(keep_layers(model, rest)) for out, rest in without.items()}
        kept = without[min(losses, key=lambda out: losses[out])]
    return kept


def pairs(model: Any) -> list[tuple[Any, Any]]:
    """The feed-forward pairs (into and out of the inner width), one for each layer with own weights."""
    family = family_of(model)
    config = model.config
    own = config.num_hidden_groups if config.model_type == "albert" else layer_count(model)
    return [
        (
            model.get_submodule(f"{family.prefix}{number}.{family.inner}"),
            model.get_submodule(f"{family.prefix}{number}.{family.outer}"),
        )
        for number in range(own)
    ]


def weigh_neurons(model: Any) -> list[Any]:
    """For each pair the L1 norm of what leads into and out of each inner neuron: (width,) float32."""
    turned = family_of(model).turned
    found = []
    for inner, outer in pairs(model):
        into, out = inner.weight.detach().abs(), outer.weight.detach().abs()
        found.append(into.sum(0) + out.sum(1) if turned else into.sum(1) + out.sum(0))
    return found


def feel_neurons(model: Any, losses: Iterable[Any]) -> list[Any]:
    """For each pair how much the loss would change without each inner neuron: (width,) float32.

    First-order Taylor expansion (Molchanov et al. 2019), summed over the batches whose losses come in.
    """
    turned = family_of(model).turned
    felt = [torch.zeros(feed_forward_width(model)) for _ in pairs(model)]
    for loss in losses:
        model.zero_grad()
        loss.backward()
        for total, (inner, _) in zip(felt, pairs(model), strict=True):
            product = (inner.weight * inner.weight.grad).detach()
            each = product.sum(0) if turned else product.sum(1)
            total.add_((each + (inner.bias * inner.bias.grad).detach()).square())
    model.zero_grad()
    return felt


def cut_feed_forward(model: Any, width: int, scores: Sequence[Any]) -> Any:
    """A model whose feed-forward blocks keep the `width` inner neurons with the highest scores."""
    family, before = family_of(model), feed_forward_width(model)
    if not 1 <= width <= before:
        raise SurgeryError(f"cannot cut feed-forward blocks of {before} to {width}")
    config = copy.deepcopy(model.config)
    setattr(config, family.width, width)
    state = model.state_dict()
    for number, score in enumerate(scores):
        kept = score.topk(width).indices.sort().values  # (width,), in the old order
        inner, outer = (f"{family.prefix}{number}.{part}" for part in (family.inner, family.outer))
        state[f"{inner}.bias"] = state[f"{inner}.bias"][kept]
        into, out = (1, 0) if family.turned else (0, 1)
        state[f"{inner}.weight"] = state[f"{inner}.weight"].index_select(into, kept)
        state[f"{outer}.weight"] = state[f"{outer}.weight"].index_select(out, kept)
    return _build(model, config, state)
