"""Reads of an ONNX file what a check needs, before any runtime sees it: inputs, outputs, operators, files.

A protobuf reader for the few messages that matter (onnx/onnx.proto, IR version 3 to 11): it copies no
weights, believes no length, and follows nothing deeper than a model goes. Knows nothing of bundles or tiers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from models.errors import BundleError

FLOAT, INT64 = 1, 7  # TensorProto.DataType
MAX_NODES = 100_000
MAX_DEPTH = 12  # a graph in an attribute of a node of a graph ...: 3 levels each
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation

Value = int | memoryview


@dataclass(frozen=True)
class Port:
    """An input or output: element type and shape; -1 where the size is open, () where no shape is given."""

    element: int
    shape: tuple[int, ...]


@dataclass
class Graph:
    """What a model's file says of itself; `external` names tensors whose bytes lie in other files."""

    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)
    external: list[str] = field(default_factory=list)


def read_graph(content: bytes) -> Graph:
    """The facts of an ONNX model; raises BundleError for what is none."""
    if content[4:8] == b"ORTM":
        raise BundleError("is in onnxruntime's own format, not ONNX")
    found = Graph()
    try:
        graphs = 0
        for number, value in _fields(memoryview(content)):
            if number == 7:
                graphs += 1
                _walk("graph", _message(value), found, 0)
                _read_ports(_message(value), found)
            elif number in {20, 25}:
                _walk("training" if number == 20 else "function", _message(value), found, 0)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise BundleError(f"is not an ONNX model ({error})") from error
    if graphs != 1 or not found.outputs:
        raise BundleError("is not an ONNX model (no graph, or more than one)")
    return found


# Which field of a message is which message; all others are skipped.
_INNER = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}


def _walk(kind: str, message: memoryview, found: Graph, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    inner = _INNER[kind]
    for number, value in _fields(message):
        below = inner.get(number)
        if below == "tensor":
            _check_tensor(_message(value), found)
        elif below is not None:
            _walk(below, _message(value), found, depth + 1)
        elif kind == "node" and number == 4:
            operator = str(_message(value), "utf-8")
            found.operators[operator] = found.operators.get(operator, 0) + 1
            if sum(found.operators.values()) > MAX_NODES:
                raise ValueError("too many nodes")


def _check_tensor(message: memoryview, found: Graph) -> None:
    name, outside = "", False
    for number, value in _fields(message):
        if number == 8:
            name = str(_message(value), "utf-8")
        elif number == 13 or (number == 14 and value == _EXTERNAL):
            outside = True
    if outside:
        found.external.append(name)


def _read_ports(graph: memoryview, found: Graph) -> None:
    weights = set()
    for number, value in _fields(graph):
        if number == 5:
            weights |= {str(_message(text), "utf-8") for key, text in _fields(_message(value)) if key == 8}
        elif number in {11, 12}:
            name, port = _read_port(_message(value))
            (found.inputs if number == 11 else found.outputs)[name] = port
    for name in weights & set(found.inputs):  # IR version 3 lists weights among the inputs
        del found.inputs[name]


def _read_port(message: memoryview) -> tuple[str, Port]:
    name, element = "", 0
    shape: tuple[int, ...] = ()
    for number, value in _fields(message):
        if number == 1:
            name = str(_message(value), "utf-8")
        elif number == 2:
            for kind, tensor in _fields(_message(value)):
                if kind == 1:
                    element, shape = _read_type(_message(tensor))
    return name, Port(element, shape)


def _read_type(message: memoryview) -> tuple[int, tuple[int, ...]]:
    element, shape = 0, []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            element = value
        elif number == 2:
            for _, dimension in _fields(_message(value)):
                sizes = [size for key, size in _fields(_message(dimension)) if key == 1]
                shape.append(sizes[0] if sizes and isinstance(sizes[0], int) else -1)
    return element, tuple(shape)


# --- protobuf's wire format (protobuf.dev/programming-guides/encoding) -----------------------------------


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")  # noqa: TRY004  # hostile bytes, not our types
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        value: Value
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        if at > end:
            raise ValueError("cut short")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
