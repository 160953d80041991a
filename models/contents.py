"""What a bundle's files may contain: each kind is known by its bytes, and so is a pickle, which is refused.

Knows nothing of directories and hashes; every check takes bytes whose hash was compared before, and raises
BundleError with the end of a sentence that begins with the file's name.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from models.errors import BundleError
from models.graph import FLOAT, INT64, Graph, Port, read_graph

if TYPE_CHECKING:
    from models.bundle import Config

MAX_HEADER_BYTES = 16 << 20  # of a safetensors file; the format's own bound is 100 MB
_ZIP = b"PK\x03\x04"  # what torch.save writes is a ZIP archive around a pickle
_PROTOCOLS = range(2, 6)  # of pickle; protocols 0 and 1 have no mark, but are no JSON, ONNX or safetensors


def check_text(content: bytes) -> None:
    """UTF-8 text."""
    _refuse_pickle(content)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"is not text: {error}") from error
    if "\0" in text:
        raise BundleError("is not text: it has a NUL")


def check_json(content: bytes) -> None:
    """One JSON object."""
    _refuse_pickle(content)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BundleError("is not a JSON object")


def check_safetensors(file: BinaryIO) -> None:
    """A header whose tensors lie end to end in the rest (the safetensors format, 0.3); reads only that."""
    length, begin = os.fstat(file.fileno()).st_size, file.read(9)
    size = int.from_bytes(begin[:8], "little")
    if begin[8:] != b"{":  # a header of 0x280 bytes begins like a pickle, so this comes first
        _refuse_pickle(begin)
    if not 2 <= size <= min(MAX_HEADER_BYTES, length - 8):
        raise BundleError("is not a safetensors file")
    try:
        header: Any = json.loads(begin[8:] + file.read(size - 1))
        spans = sorted(one["data_offsets"] for name, one in header.items() if name != "__metadata__")
        ends = [0, *(end for _, end in spans)]
        whole = [begin for begin, _ in spans] == ends[:-1] and ends[-1] == length - 8 - size
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"is not a safetensors file: {error}") from error
    if not whole:
        raise BundleError("is not a safetensors file: its tensors do not fill it")


def check_model(content: bytes, config: Config) -> None:
    """An ONNX model in one file with the inputs and outputs that the configuration names."""
    if not content.startswith(b"\x08"):  # ir_version, the first field of every ONNX file
        _refuse_pickle(content)
    graph = read_graph(content)
    if graph.external:
        raise BundleError(f"keeps the weights of {graph.external[0]!r} in another file")
    if "EPContext" in graph.operators:
        raise BundleError("refers to compiled code in another file")
    if config.kind == "classifier":
        _check_classifier(graph, config)
    else:
        _check_generator(graph, config)


def _check_classifier(graph: Graph, config: Config) -> None:
    width = sum(config.heads.values())
    wanted_in = {name: Port(INT64, (-1, -1)) for name in ("input_ids", "attention_mask")}
    _compare("input", graph.inputs, wanted_in)
    _compare("output", graph.outputs, {"logits": Port(FLOAT, (-1, width))})


def _check_generator(graph: Graph, config: Config) -> None:
    cache = Port(FLOAT, (1, config.heads_count, -1, config.head_dim))
    names = [f"{kind}{layer}" for layer in range(config.layers) for kind in "kv"]
    _compare("input", graph.inputs, {"input_ids": Port(INT64, (1, -1)), **dict.fromkeys(names, cache)})
    wanted = {"logits": Port(FLOAT, (1, config.vocabulary)), **{f"p{name}": cache for name in names}}
    _compare("output", graph.outputs, wanted)


def _compare(what: str, found: dict[str, Port], wanted: dict[str, Port]) -> None:
    if set(found) != set(wanted):
        raise BundleError(f"has the {what}s {_some(found)}, the configuration asks for {_some(wanted)}")
    for name, port in wanted.items():
        have = found[name]
        fits = have.element == port.element and _fits(have.shape, port.shape)
        if not fits:
            raise BundleError(
                f"has an {what} {name} of shape {have.shape}, the configuration asks for {port.shape}"
            )


def _fits(have: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Open sizes fit anything; what the model leaves open, the runtime sees when it runs."""
    return not have or (
        len(have) == len(wanted)
        and all(one in {-1, other} or other == -1 for one, other in zip(have, wanted, strict=True))
    )


def _some(names: dict[str, Port]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


def _refuse_pickle(content: bytes) -> None:
    protocol = content[:1] == b"\x80" and len(content) > 1 and content[1] in _PROTOCOLS
    if protocol or content.startswith(_ZIP):
        raise BundleError("is a pickle, which is code, not data")
