"""`hauswart train bundle`: packs a trained model so that the daemon can load it.

From a trained model's folder and its ONNX file to a bundle's directory: the model, the tokenizer, the
configuration, the weights in half precision (so that a host can go on training from them), a card for people
and the manifest with every hash. The same input gives the same bytes. What was packed is verified and asked
once before it counts. `--seal` renews a manifest after an edit, `--unpack` gives the folder back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from daemon.errors import BundleError, ConfigError
from models import bundle as bundles
from models.briefs import END
from models.graph import Graph, read_graph
from models.runs import TENSOR, form_of, hash_runs
from models.taxonomy import TAXONOMY_VERSION
from training import bundle_card
from training.folder import CARD as FOLDER_CARD
from training.folder import read_card

WEIGHTS_FILE = "model.safetensors"  # of a trained model's folder
ORIGIN = "hauswart"  # the weights' one metadata entry: a map of several has no order that one could rely on
ONNX_NAMES = ("model.int8.onnx", "model.onnx")
PASSING = ("curves", "_runtime", "_per_second")  # the report's, and what no second run would repeat
LIST_MAX = 64  # longer lists are curves, which belong into the report
Figures = Mapping[str, Any]


def make_bundle(
    model: Path,
    out: Path,
    *,
    onnx: Path | None = None,
    version: str = "1",
    licence: str = "MIT",
    sources: Sequence[Mapping[str, Any]] = (),
    origins: Sequence[Mapping[str, Any]] = (),
    recipe: str = "",
    created: str = "",
    decisions: Path | None = None,
    thresholds: Mapping[str, float] | None = None,
    calibration: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    memory_mib: float = 0.0,
    weights: bool = True,
    texts: Sequence[str] = (),
    wording: Path | None = None,
    about: str = "",
    sign: Path | None = None,
    tell: Any = lambda _said: None,
) -> dict[str, Any]:
    """Pack the trained model in the folder `model` into the directory `out`, which is written anew.

    Raises BundleError where the result could not be loaded, ConfigError for a folder that is none. `onnx` is
    the file that serves, or the folder that holds it; by default it lies in the model's folder. `origins` is
    what else the model was made from than the recipe's files: weights, texts of our own. `decisions`
    is a JSON file with `thresholds` and `calibration`, which the arguments of these names override. `metrics`
    are figures, or names of JSON files with figures, by what they are about; curves are left out, and where
    one has a `table` (training.measure), its last row tells the memory. `texts` are the tables that
    the top tier learned from: it will write no run of tokens that they do not have (`models.runs`).
    `wording` is the table that has its say in the low tier's alerts (`models.wording`). `created`
    is by default the date of SOURCE_DATE_EPOCH, so that nothing depends on when this runs. `about` is what
    the card says first.
    """
    card = read_card(model)
    figures = _figures(card, metrics or {})
    _fresh(out)
    shutil.copyfile(_find_onnx(onnx or model), out / bundles.MODEL)
    shutil.copyfile(model / bundles.TOKENIZER, out / bundles.TOKENIZER)
    decided = _load(decisions) if decisions else {}
    config = make_config(
        card,
        architecture=str(_load(model / "config.json").get("model_type", "")),
        graph=read_graph((out / bundles.MODEL).read_bytes()),
        thresholds=decided.get("thresholds", {}) | dict(thresholds or {}),
        calibration=decided.get("calibration", {}) | dict(calibration or {}),
    )
    (out / bundles.CONFIG).write_bytes(_json(msgspec.to_builtins(config)))
    if weights:
        (out / bundles.WEIGHTS).write_bytes(_half(model, card))
    if texts:
        (out / bundles.RUNS).write_bytes(_runs(model / bundles.TOKENIZER, [Path(one) for one in texts]))
    if wording is not None:
        shutil.copyfile(wording, out / bundles.WORDING)
    manifest = bundles.Manifest(
        format=bundles.FORMAT,
        tier=card["tier"],
        version=version,
        features_version=bundles.features_version(card["tier"]),
        taxonomy_version=TAXONOMY_VERSION,
        files={},
        licence=licence,
        data=_data([*(card["data"] or sources), *origins]),
        metrics=figures,
        memory_mib=memory_mib or _shipped_row(figures).get("memory_mib", 0.0),
        created=created or _epoch(),
        recipe=recipe or str(card["recipe"]),
        parent=Path(str(card["parent"])).name,
    )
    (out / bundles.CARD).write_text(bundle_card.write_card(manifest, config, about), encoding="utf-8")
    seal(out, manifest, sign=sign)
    made = check(out, card["tier"])
    tell(f"{made.name}: {made.size_bytes / 1e6:.2f} MB, verified")
    return {
        "bundle": made.name,
        "bytes": made.size_bytes,
        "files": {name: (out / name).stat().st_size for name in sorted(made.manifest.files)},
        "digest": bundles.read_manifest(out).digest,
    }


def make_config(card: Figures, *, architecture: str, graph: Graph, **decided: Any) -> bundles.Config:
    """The configuration: heads and length from the card, the cache's sizes from the model's own ports."""
    sizes: dict[str, Any] = {}
    if card["tier"] == "top":
        cache = graph.inputs.get("k0")
        if cache is None or len(cache.shape) != 4:
            raise BundleError("the top tier's model has no key-value cache", hint="hauswart train export")
        layers = sum(name.startswith("k") and name[1:].isdigit() for name in graph.inputs)
        sizes = {
            "layers": layers,
            "heads_count": cache.shape[1],
            "head_dim": cache.shape[3],
            "vocabulary": graph.outputs["logits"].shape[-1],
        }
    return bundles.Config(
        kind="generator" if card["tier"] == "top" else "classifier",
        architecture=architecture,
        sequence=int(card["sequence"]),
        heads=dict(card["heads"]),
        **sizes,
        **decided,
    )


def seal(directory: Path, manifest: bundles.Manifest, *, sign: Path | None = None) -> None:
    """Write the manifest for the files that lie in the directory, and its signature, or none."""
    there = sorted(path for path in directory.iterdir() if path.name in bundles.ALLOWED)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}
    raw = bundles.render_manifest(msgspec.structs.replace(manifest, files=files))
    if len(raw) > bundles.MAX_MANIFEST_BYTES:
        raise BundleError(f"the manifest would have {len(raw)} bytes", hint="leave out some of the metrics")
    (directory / bundles.MANIFEST).write_bytes(raw)
    (directory / bundles.SIGNATURE).unlink(missing_ok=True)
    if sign is not None:
        from models.signature import sign as make_signature  # noqa: PLC0415 - few sign

        (directory / bundles.SIGNATURE).write_bytes(make_signature(raw, sign))


def check(directory: Path, tier: str) -> bundles.Bundle:
    """Verify a bundle and ask its model once, as the daemon would; raises BundleError or ModelError."""
    from models.runtime import probe  # noqa: PLC0415 - it loads the runtime

    made = bundles.verify(directory, tier)
    probe(made)
    return made


def unpack(directory: Path, out: Path) -> Path:
    """The trained model's folder that a bundle was made from, its weights rounded to half precision.

    Raises BundleError where the bundle is not whole, or came without weights.
    """
    from safetensors.numpy import load, save_file  # noqa: PLC0415 - packing without weights needs none

    found = bundles.verify(directory, None)
    if bundles.WEIGHTS not in found.manifest.files:
        raise BundleError(f"{directory} has no {bundles.WEIGHTS}: nothing to go on training from")
    raw = found.read(bundles.WEIGHTS)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    origin = json.loads(header["__metadata__"][ORIGIN])
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: _widened(value) for name, value in load(raw).items()}
    save_file(tensors, out / WEIGHTS_FILE, {"format": "pt"})
    (out / bundles.TOKENIZER).write_bytes(found.read(bundles.TOKENIZER))
    (out / "config.json").write_bytes(_json(origin["config"]))
    (out / FOLDER_CARD).write_bytes(_json(origin["card"] | {"parent": found.name}))
    return out


# --- parts --------------------------------------------------------------------------------------------------


def _fresh(out: Path) -> None:
    """An empty directory; what is deleted for it must have been a bundle."""
    if out.exists() and {path.name for path in out.iterdir()} - bundles.ALLOWED - {
        bundles.MANIFEST,
        bundles.SIGNATURE,
    }:
        raise ConfigError(f"{out} holds other things than a bundle", hint="choose another directory")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _find_onnx(path: Path) -> Path:
    if path.is_file():
        return path
    found = [path / name for name in ONNX_NAMES if (path / name).is_file()] or sorted(path.glob("*.onnx"))[:2]
    if not found or (len(found) > 1 and found[0].name not in ONNX_NAMES):
        raise ConfigError(f"{path} holds no ONNX model, or several", hint="make one: hauswart train quantize")
    return found[0]


def _half(model: Path, card: Figures) -> bytes:
    """The weights as float16, with what else is needed to go on training; raises BundleError on overflow."""
    import numpy as np  # noqa: PLC0415 - sealing needs none
    from safetensors.numpy import load_file, save  # noqa: PLC0415

    halves = {}
    for name, value in sorted(load_file(model / WEIGHTS_FILE).items()):
        with np.errstate(over="ignore"):  # looked at in the next line
            halves[name] = value.astype(np.float16) if value.dtype == np.float32 else value
        if not np.isfinite(halves[name]).all():
            raise BundleError(f"the weight {name} is no number in half precision")
    kept = {key: card[key] for key in ("tier", "heads", "sequence", "seed", "recipe", "data")}
    config = _load(model / "config.json")
    return bytes(save(halves, {ORIGIN: json.dumps({"card": kept, "config": config})}))


def _runs(tokenizer: Path, tables: Sequence[Path]) -> bytes:
    """Every run of tokens of the tables' training rows; raises ConfigError where they have no texts."""
    import numpy as np  # noqa: PLC0415 - as above
    from safetensors.numpy import save  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from training.rows import read_parquet  # noqa: PLC0415 - pyarrow

    rows = [row for table in tables for row in read_parquet(table) if row.get("completion")]
    pieces = Tokenizer.from_file(str(tokenizer))
    end = pieces.token_to_id(END)
    if not rows:
        raise ConfigError("texts: no row to learn from has a completion")
    if end is None:
        raise ConfigError(f"the model's tokenizer does not know {END}, by which its texts end")
    found: set[int] = set()
    for row in rows:
        if row.get("split", "train") == "train":
            prompt, text = pieces.encode(row["prompt"]).ids, pieces.encode(row["completion"]).ids
            found.update(hash_runs(prompt, [token for token in text if token != end], end).tolist())
    return bytes(save({TENSOR: np.array(sorted(found), np.uint32)}, form_of()))


def _widened(value: Any) -> Any:
    return value.astype("float32") if value.dtype == "float16" else value


def _data(found: Iterable[Any]) -> list[Any]:
    """What the model learnt from; raises ConfigError where something was only lent for evaluation."""
    listed = list(found)
    for one in listed:
        if isinstance(one, Mapping) and one.get("mark", "ship") != "ship":
            raise ConfigError(f"{one.get('path', one)} may not train a bundle", hint="its mark says so")
    return listed


def _load(value: Any) -> Any:
    """The content of a JSON file where the value names one, else the value itself."""
    if isinstance(value, Path) or (isinstance(value, str) and value.endswith(".json")):
        try:
            return json.loads(Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{value} holds no figures: {error}") from error
    return value


def _figures(card: Figures, metrics: Mapping[str, Any]) -> dict[str, Any]:
    every = {"training": card["metrics"]} | {key: _load(value) for key, value in metrics.items()}
    return {key: slim for key, value in every.items() if (slim := _slim(value)) not in ({}, [], None)}


def _slim(value: Any) -> Any:
    """Figures without curves: what a manifest has room for."""
    if isinstance(value, Mapping):
        kept = {str(key): _slim(one) for key, one in value.items() if not str(key).endswith(PASSING)}
        return {key: one for key, one in kept.items() if one is not None}
    if isinstance(value, list):
        return [_slim(one) for one in value] if len(value) <= LIST_MAX else None
    if isinstance(value, float):
        return round(value, 6) if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN
    return value


def _shipped_row(figures: Figures) -> Mapping[str, Any]:
    tables = [one["table"] for one in figures.values() if isinstance(one, Mapping) and one.get("table")]
    return next((row for table in reversed(tables) for row in reversed(table) if "memory_mib" in row), {})


def _epoch() -> str:
    """The date of a reproducible build (reproducible-builds.org), or ""."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds))) if seconds.isdigit() else ""


def _json(value: Any) -> bytes:
    """JSON; maps keep their order, since that of the heads is that of the logits."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


# --- command ------------------------------------------------------------------------------------------------


def command(
    model: Annotated[Path, typer.Argument(help="A trained model's folder; with --seal, --unpack a bundle.")],
    *,
    out: Annotated[Path | None, typer.Option(help="The bundle's directory, written anew.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="The ONNX file that serves, or its folder.")] = None,
    version: Annotated[str, typer.Option(help="Becomes a directory's name when it is installed.")] = "1",
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "MIT",
    decisions: Annotated[Path | None, typer.Option(help="JSON with thresholds and calibration.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE.json, figures for the manifest; may be repeated.")
    ] = None,
    weights: Annotated[bool, typer.Option(help="Pack the weights to go on training from.")] = True,
    texts: Annotated[
        list[str] | None, typer.Option(help="A table of texts the top tier learned from; may be repeated.")
    ] = None,
    wording: Annotated[
        Path | None, typer.Option(help="Low tier: a table of `hauswart train wording`.")
    ] = None,
    sign: Annotated[Path | None, typer.Option(help="A private SSH key to sign the manifest with.")] = None,
    renew: Annotated[bool, typer.Option("--seal", help="Only renew the manifest (and signature).")] = False,
    unpacked: Annotated[bool, typer.Option("--unpack", help="Only give the folder back, to --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was made as one JSON object.")] = False,
) -> None:
    """The same input gives the same bytes; set SOURCE_DATE_EPOCH to have a date in the manifest."""
    if renew:
        manifest = bundles.read_manifest(model)
        seal(model, manifest, sign=sign)
        made: dict[str, Any] = {"bundle": check(model, manifest.tier).name}
    elif out is None:
        raise ConfigError("where to?", hint="--out DIR")
    elif unpacked:
        made = {"folder": str(unpack(model, out))}
    else:
        pairs = dict(_pair(text) for text in metrics or [])
        made = make_bundle(
            model,
            out,
            onnx=onnx,
            version=version,
            licence=licence,
            decisions=decisions,
            metrics=pairs,
            weights=weights,
            texts=texts or (),
            wording=wording,
            sign=sign,
            tell=lambda said: sys.stderr.write(f"hauswart: {said}\n"),
        )
    sys.stdout.write((json.dumps(made) if as_json else str(next(iter(made.values())))) + "\n")


def _pair(text: str) -> tuple[str, Path]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--metrics {text}: no file", hint="NAME=FILE.json")
    return name, Path(value)
