"""An Ollama Modelfile: the file, how a conversation is written, what ends an answer, how to begin.

Ollama writes conversations by a template of its own kind (Go's): the base's own is recognised by its marks.
For one that is not recognised none is written: Ollama then reads the one in the GGUF file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Dialect(NamedTuple):
    """A way to mark turns: what recognises it, Ollama's template, what ends an answer."""

    mark: str
    template: str
    stops: tuple[str, ...]


DIALECTS = {
    "chatml": Dialect(
        "<|im_start|>",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n",
        ("<|im_end|>", "<|im_start|>"),
    ),
    "llama3": Dialect(
        "<|start_header_id|>",
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|eot_id|>", "<|start_header_id|>"),
    ),
    "zephyr": Dialect(
        "<|user|>",
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        ("</s>", "<|user|>"),
    ),
    "mistral": Dialect(
        "[INST]",
        '{{- range .Messages }}{{ if eq .Role "assistant" }} {{ .Content }}</s>'
        "{{ else }}[INST] {{ .Content }} [/INST]{{ end }}{{ end }}",
        ("</s>", "[INST]"),
    ),
}
DEFAULTS = {"temperature": "0.7", "top_p": "0.9"}


def dialect_of(chat_template: str) -> Dialect | None:
    """The dialect of a tokenizer's chat template."""
    return next((one for one in DIALECTS.values() if one.mark in chat_template), None)


def write(
    file: str,
    chat_template: str,
    *,
    system: str = "",
    context: int = 4096,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """The text; `file` is the GGUF file's name beside it."""
    lines = [f"FROM ./{file}"]
    dialect = dialect_of(chat_template)
    if dialect:
        lines.append(f"TEMPLATE {_quoted(dialect.template)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    chosen = {**DEFAULTS, "num_ctx": str(context), **(parameters or {})}
    lines += [f"PARAMETER {name} {value}" for name, value in chosen.items()]
    lines += [f'PARAMETER stop "{stop}"' for stop in (dialect.stops if dialect else ())]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Three quotes end Ollama's long strings, and nothing escapes them."""
    return '"""' + text.replace('"""', "'''") + '"""'
