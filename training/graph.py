"""ONNX graphs by hand: fold transposed weights, count what is integer, keep embeddings as one byte a value.

Knows neither torch nor what a model is for. Weights that a graph shares between nodes (ALBERT's repeated
layers, GPT-2's tied embedding and output head) stay shared, because every byte of them ships.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from daemon.errors import HauswartError

Array = npt.NDArray[Any]

# Weights keep to +-64: two products u8 x s8 then fit the 16 bits in which processors without VNNI add them
# (255 * 64 * 2 = 32640). With +-127 those processors saturate silently and give other verdicts than this one.
HEAD_RANGE = 64
TABLE_RANGE = 127
SMALLEST_TABLE = 4096  # values; a token-type table of two rows is not worth three more nodes


class SurgeryError(HauswartError):
    """A model could not be exported, pruned or quantised as asked; what came out must not ship."""


def tidy(model: Any) -> int:
    """Fold transposes of weights that nothing else reads, drop what nobody uses; the number of folds.

    `quantize_dynamic` silently skips a product whose weight comes out of a Transpose, and crashes on value
    information that names shapes from before.
    """
    folded = _fold_transposes(model.graph)
    _share_equal(model.graph)
    drop_unused(model.graph)
    del model.graph.value_info[:]
    return folded


def drop_unused(graph: Any) -> None:
    """Remove initializers that no node reads."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for initializer in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(initializer)


def _fold_transposes(graph: Any) -> int:
    weights = {one.name: one for one in graph.initializer}
    elsewhere = {n for node in graph.node if node.op_type != "Transpose" for n in node.input}
    made: dict[tuple[str, tuple[int, ...]], str] = {}
    renamed: dict[str, str] = {}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        source = node.input[0]
        if source in elsewhere:
            continue  # tied: folding would store it twice
        array = numpy_helper.to_array(weights[source])
        turn = tuple(next((a.ints for a in node.attribute if a.name == "perm"), range(array.ndim)[::-1]))
        if (source, turn) not in made:
            made[source, turn] = add_weight(graph, f"{source}_T{len(made)}", np.transpose(array, turn))
        renamed[node.output[0]] = made[source, turn]
        graph.node.remove(node)
    _rename_inputs(graph, renamed)
    return len(renamed)


def _share_equal(graph: Any) -> None:
    """The exporter folds small shared weights once for each reader; give them back their one copy."""
    first: dict[Any, str] = {}
    same = {
        one.name: first.setdefault(
            (one.data_type, tuple(one.dims), numpy_helper.to_array(one).tobytes()), one.name
        )
        for one in graph.initializer
    }
    _rename_inputs(graph, same)


def _rename_inputs(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def add_weight(graph: Any, name: str, array: Array) -> str:
    """Store an array under a name; the name."""
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def weight_products(graph: Any) -> int:
    """How many products have a stored weight as their second factor, so should become integer ones."""
    stored = {one.name for one in graph.initializer}
    stored |= {n.output[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in stored}
    return sum(n.op_type in {"MatMul", "Gemm"} and n.input[1] in stored for n in graph.node)


def integer_products(graph: Any) -> int:
    """How many products are integer ones."""
    return sum(node.op_type == "MatMulInteger" for node in graph.node)


def rows_to_bytes(table: Array, reach: int) -> tuple[Array, Array]:
    """A table (rows, width) as int8 within +-reach, and the scale of each row (rows, 1) float32."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(reach)
    return np.clip(np.rint(table / scale), -reach, reach).astype(np.int8), scale


def shrink_tables(model: Any) -> int:
    """Turn embedding tables into int8 with a scale a row, output heads tied to one included; how many."""
    graph, done = model.graph, 0
    for weight in list(graph.initializer):
        readers = [node for node in graph.node if weight.name in node.input]
        lookups = [n for n in readers if n.op_type == "Gather" and n.input[0] == weight.name and _by_row(n)]
        turns = [n for n in readers if n.op_type == "Transpose"]
        array = numpy_helper.to_array(weight) if lookups else np.empty(0)
        if array.dtype != np.float32 or array.ndim != 2 or array.size < SMALLEST_TABLE:
            continue
        if len(lookups) + len(turns) != len(readers):
            raise SurgeryError(f"the table {weight.name} is read by {[n.op_type for n in readers]}")
        _shrink_table(graph, weight.name, array, lookups, turns)
        done += 1
    drop_unused(graph)
    return done


def _by_row(node: Any) -> bool:
    return all(a.i == 0 for a in node.attribute if a.name == "axis")


def _shrink_table(graph: Any, name: str, array: Array, lookups: list[Any], turns: list[Any]) -> None:
    values, scale = rows_to_bytes(array, HEAD_RANGE if turns else TABLE_RANGE)
    small, scales = add_weight(graph, f"{name}_i8", values), add_weight(graph, f"{name}_scale", scale)
    for node in lookups:
        _replace(graph, node, _lookup(node, small, scales))
    for turn in turns:
        for product in [n for n in graph.node if turn.output[0] in n.input]:
            _replace(graph, product, _tied_product(product, small, scales))
        graph.node.remove(turn)


def _replace(graph: Any, old: Any, new: list[Any]) -> None:
    place = list(graph.node).index(old)
    graph.node.remove(old)
    for offset, node in enumerate(new):
        graph.node.insert(place + offset, node)


def _lookup(node: Any, small: str, scales: str) -> list[Any]:
    out, ids = node.output[0], node.input[1]
    return [
        helper.make_node("Gather", [small, ids], [f"{out}_i8"], axis=0),
        helper.make_node("Gather", [scales, ids], [f"{out}_scale"], axis=0),
        helper.make_node("Cast", [f"{out}_i8"], [f"{out}_whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_whole", f"{out}_scale"], [out]),
    ]


def _tied_product(node: Any, small: str, scales: str) -> list[Any]:
    """The product with the turned table in integers; the runtime turns the table once, when it loads."""
    if node.op_type != "MatMul":
        raise SurgeryError(f"the tied output head is a {node.op_type}, not a MatMul")
    x, out = node.input[0], node.output[0]
    return [
        helper.make_node("DynamicQuantizeLinear", [x], [f"{out}_x", f"{out}_xs", f"{out}_xz"]),
        helper.make_node("Transpose", [small], [f"{out}_w"], perm=[1, 0]),
        helper.make_node("Transpose", [scales], [f"{out}_ws"], perm=[1, 0]),
        helper.make_node("MatMulInteger", [f"{out}_x", f"{out}_w", f"{out}_xz"], [f"{out}_sum"]),
        helper.make_node("Cast", [f"{out}_sum"], [f"{out}_whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_xs", f"{out}_ws"], [f"{out}_both"]),
        helper.make_node("Mul", [f"{out}_whole", f"{out}_both"], [out]),
    ]
