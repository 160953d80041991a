"""`hauswart workshop export`: merge the adapter, write a GGUF file and an Ollama Modelfile, and try them.

Files appear under their names when they are whole; what is there already, of the same adapter, stays. A file
is named after what it holds: where q4_k_m cannot be written here, q4_0 is, and is called that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from daemon.errors import ConfigError, HauswartError
from training import converter, quantizer
from training.causal import quieten
from training.course import CARD
from training.engine import find_engine
from training.memory import GIB, available_bytes, shape_of
from training.workshop import folders, modelfile

DEFAULT_KIND, INSTEAD = "q4_k_m", "q4_0"
MERGED_MARK, RECORD = "merged.json", "export.json"
Tell = Callable[[str], None]


class Exported(NamedTuple):
    """What was written."""

    file: str
    kind: str
    asked: str
    file_bytes: int
    types: dict[str, int]
    verified: dict[str, Any]
    modelfile: str


class Order(NamedTuple):
    """What holds for one export; `identity` is of the adapter and its base."""

    adapter: Path
    base: str
    out: Path
    name: str
    kind: str
    identity: str
    tell: Tell

    @property
    def merged(self) -> Path:
        """Where the merged model lies."""
        return self.out.parent / folders.MERGED.name

    def file(self, kind: str) -> Path:
        """The file of a kind."""
        return self.out / f"{self.name}-{kind}.gguf"

    def has(self, file: Path) -> bool:
        """Whether a file is there already, of this adapter."""
        return file.is_file() and _record(self.out).get(file.name) == self.identity


def export(
    adapter: Path,
    out: Path,
    name: str,
    kind: str = DEFAULT_KIND,
    *,
    base: str = "",
    converter_script: Path | None = None,
    system: str = "",
    parameters: Sequence[str] = (),
    verify: bool = True,
    tell: Tell = lambda _said: None,
) -> Exported:
    """Write `out`/NAME-KIND.gguf and a Modelfile. Raises ConfigError, and HauswartError without space."""
    written = _possible(kind.lower(), tell)
    order = Order(adapter, base, out, name, written, _identity(adapter, base), tell)
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = _merge(order)
    target = order.file(written)
    if order.has(target):
        tell(f"{target} is there already, of this adapter")
    else:
        _write_file(order, converter_script)
    checked = _verified(target, model, tokenizer, tell) if verify else {}
    text = modelfile.write(
        target.name,
        tokenizer.chat_template or "",
        system=system or _system_of(adapter),
        context=min(4096, int(getattr(model.config, "max_position_embeddings", 4096))),
        parameters=_parameters(parameters),
    )
    if modelfile.dialect_of(tokenizer.chat_template or "") is None:
        tell("the chat template is of no known dialect: the Modelfile leaves it to the GGUF file")
    (out / "Modelfile").write_text(text, encoding="utf-8")
    size = target.stat().st_size
    types = quantizer.types_of(target)
    return Exported(str(target), written, kind, size, types, checked, str(out / "Modelfile"))


def _possible(kind: str, tell: Tell) -> str:
    """What can be written here for what is asked."""
    if kind in converter.KINDS:
        return kind
    if kind not in quantizer.TYPES:
        raise ConfigError(
            f"no quantization {kind!r}", hint=f"one of {', '.join([*converter.KINDS, *quantizer.TYPES])}"
        )
    if quantizer.find_quantizer():
        return kind
    tell(
        f"{kind} is written by llama.cpp alone, and neither llama-quantize nor llama-cpp-python is here: "
        f"{INSTEAD} is written instead, under its own name"
    )
    return INSTEAD


def _merge(order: Order) -> tuple[Any, Any]:
    """The merged model, from its folder if that is of this adapter already."""
    from training.causal import base_of, load_adapted, load_causal  # noqa: PLC0415  # seconds

    mark = order.merged / MERGED_MARK
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("identity") == order.identity:
        order.tell(f"{order.merged} is there already, of this adapter")
        return load_causal(order.merged)
    base = order.base or base_of(order.adapter)
    count = shape_of(base).parameters
    whole = 4 * count < 0.8 * available_bytes()
    _check_space(order.out, (4 if whole else 2) * count + _needed(count, order.kind))
    order.tell(f"merging {order.adapter} into {base}" + ("" if whole else " in 16 bits"))
    model, tokenizer = load_adapted(order.adapter, base, dtype="float32" if whole else "bfloat16")
    part = order.merged.with_name(order.merged.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(str(part))
    tokenizer.save_pretrained(str(part))
    (part / MERGED_MARK).write_text(json.dumps({"identity": order.identity}), encoding="utf-8")
    shutil.rmtree(order.merged, ignore_errors=True)
    part.replace(order.merged)
    return model, tokenizer


def _needed(parameters: int, kind: str) -> int:
    """Bytes of the file, and of the one in 16 bits that llama.cpp starts from."""
    between = 0 if kind in converter.KINDS else converter.size_of(parameters, "f16")
    return converter.size_of(parameters, kind) + between


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HauswartError(
            f"{folder} has {free / GIB:.1f} GiB free, the export needs {needed / GIB:.1f}",
            hint="make room, or another --output-dir; nothing was written",
        )


def _write_file(order: Order, script: Path | None) -> None:
    """The file itself; that in 16 bits on the way to a K-quant goes again."""
    count = sum(file.stat().st_size for file in order.merged.glob("*.safetensors")) // 4
    _check_space(order.out, _needed(count, order.kind))
    first = order.kind if order.kind in converter.KINDS else "f16"
    source, target = order.file(first), order.file(order.kind)
    was_there = order.has(source)
    if not was_there:
        order.tell(f"writing {source.name}")
        if script:
            _convert_by(script, order.merged, source, first)
        else:
            converter.convert(order.merged, source, first, name=order.name, tell=order.tell)
        _remember(order.out, source.name, order.identity)
    if source != target:
        order.tell(f"quantizing to {order.kind} by {quantizer.quantize(source, target, order.kind)}")
        _remember(order.out, target.name, order.identity)
        if not was_there:
            source.unlink()


def _convert_by(script: Path, merged: Path, out: Path, kind: str) -> None:
    """llama.cpp's own converter, which knows more families. Raises ConfigError, HauswartError."""
    if not script.is_file():
        raise ConfigError(f"there is no converter {script}")
    if kind == "q4_0":
        raise ConfigError("llama.cpp's converter writes f16 and q8_0, not q4_0", hint="--quantization q4_k_m")
    part = out.with_name(out.name + ".part")
    command = [sys.executable, str(script), str(merged), "--outfile", str(part), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise HauswartError(f"{script} fails: {said[-1][:300]}")
    part.replace(out)


def _verified(target: Path, model: Any, tokenizer: Any, tell: Tell) -> dict[str, Any]:
    from training.verification import verify  # noqa: PLC0415  # seconds

    if not find_engine():
        tell(f"{target.name} was not tried: neither llama-server nor xllamacpp is here")
        return {}
    found = verify(target, model, tokenizer, tell=tell)
    tell(
        f"{found.engine} serves it: {found.probes} prompts have the model's own tokens, {found.agreeing} of "
        f"{found.steps} next tokens are torch's, probabilities differ by {found.difference:g} at most"
    )
    return found._asdict()


def _identity(adapter: Path, base: str) -> str:
    """A digest of what the export is made of."""
    digest = hashlib.sha256(base.encode())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        file = adapter / name
        if not file.is_file():
            raise ConfigError(
                f"{adapter} holds no adapter (no {name})", hint="first: hauswart workshop train"
            )
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _record(out: Path) -> dict[str, str]:
    """Which file is of which adapter; empty where it cannot be read, so that all is written again."""
    try:
        return dict(json.loads((out / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remember(out: Path, name: str, identity: str) -> None:
    (out / RECORD).write_text(json.dumps(_record(out) | {name: identity}, indent=1) + "\n", encoding="utf-8")


def _system_of(adapter: Path) -> str:
    """The system prompt that most of the training data had."""
    try:
        return str(json.loads((adapter / CARD).read_text(encoding="utf-8"))["sources"].get("system", ""))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""


def _parameters(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.strip() or not value.strip() or "\n" in one:
            raise ConfigError(f"{one!r} is no parameter", hint="like temperature=0.3")
        found[name.strip()] = value.strip()
    return found


def create_in_ollama(name: str, folder: Path, tell: Tell) -> str:
    """Register the model and ask it something. Raises HauswartError."""
    if shutil.which("ollama") is None:
        raise HauswartError("ollama is not installed", hint=f"elsewhere: ollama create {name} -f Modelfile")
    for command in (["ollama", "create", name, "-f", "Modelfile"], ["ollama", "run", name, "Say hello."]):
        tell(" ".join(command))
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode:
            raise HauswartError(f"{' '.join(command[:2])} fails: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def find_parameters(found: Exported, wanted: Path, tell: Tell) -> dict[str, Any]:
    """Serve the file, search sampling parameters, and set them in its Modelfile.

    `wanted` has the cases (JSONL), or with them all else that a search is told (TOML, YAML; as `workshop
    tune --config`). Raises ConfigError for what is neither, HauswartError without an engine.
    """
    from training.engine import open_engine  # noqa: PLC0415
    from training.workshop.tune import gather_cases, tune_served  # noqa: PLC0415  # seconds
    from training.workshop.tuning.output import write_modelfile  # noqa: PLC0415
    from training.workshop.tuning.settings import read_settings  # noqa: PLC0415

    file, rows = Path(found.file), wanted.suffix == ".jsonl"
    with open_engine(file) as engine:
        settings = read_settings(None if rows else wanted, {"url": engine.url})
        cases = gather_cases(settings, wanted if rows else None)
        result = tune_served(cases, file.with_name(f"tune-{file.stem}"), settings, tell=tell)
    write_modelfile(Path(found.modelfile), result["params"], model=file.name)
    return result


def command(
    *,
    workdir: folders.Workdir = Path(),
    adapter_dir: Annotated[
        Path | None, typer.Option("--adapter-dir", help="Default: output/lora_adapter.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", help="Default: output/gguf.")] = None,
    model_name: Annotated[str, typer.Option("--model-name", help="What the file is called.")] = "hauswart",
    quantization: Annotated[
        str, typer.Option("--quantization", help=f"{', '.join([*converter.KINDS, *quantizer.TYPES])}.")
    ] = DEFAULT_KIND,
    base: Annotated[str, typer.Option("--base", help="Instead of the one that the adapter names.")] = "",
    converter_script: Annotated[
        Path | None,
        typer.Option("--converter", help="llama.cpp's convert_hf_to_gguf.py, for other families."),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", help="System prompt; default: the training data's.")
    ] = "",
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", help="For the Modelfile: NAME=VALUE.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Serve the file and compare.")] = True,
    tune: Annotated[
        Path | None,
        typer.Option("--tune", help="At last, find sampling parameters with these cases."),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Register it in Ollama and ask it.")] = False,
    as_json: folders.AsJson = False,
) -> None:
    """Reads output/lora_adapter, writes output/merged and output/gguf."""
    if not model_name or "/" in model_name or model_name.startswith("."):
        raise ConfigError(f"{model_name!r} is no model's name", hint="like social-media-marketer")
    quieten()
    out = output_dir or workdir / folders.FILES

    def tell(said: str) -> None:
        print(f"hauswart: {said}", file=sys.stderr, flush=True)  # noqa: T201

    found = export(
        adapter_dir or workdir / folders.ADAPTER,
        out,
        model_name,
        quantization,
        base=base,
        converter_script=converter_script,
        system=system,
        parameters=parameter or (),
        verify=verify,
        tell=tell,
    )
    tuned = find_parameters(found, tune, tell) if tune else {}
    if create:
        tell(f"it says: {create_in_ollama(model_name, out, tell)[:200]}")
    if as_json:
        sys.stdout.write(
            json.dumps(found._asdict() | ({"tuned": tuned} if tune else {}), ensure_ascii=False) + "\n"
        )
        return
    from training.workshop.tune import closing_lines  # noqa: PLC0415

    types = ", ".join(f"{count} {name}" for name, count in found.types.items())
    sys.stdout.write(
        f"{found.file}: {found.kind}, {found.file_bytes / 1e6:.1f} MB ({types})\n"
        + (f"it answers: {found.verified['answer'][:200]!r}\n" if found.verified else "")
        + (f"{closing_lines(tuned)}\n" if tuned else "")
        + f"next: cd {out} && ollama create {model_name} -f Modelfile\n"
    )
