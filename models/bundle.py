"""A tier's installable model: what its manifest says, and the check that every byte is as it says.

A bundle is a directory: `manifest.json`, `model.onnx`, `tokenizer.json`, `config.json`, and where there is
use for them `weights.safetensors` (to go on training from), `runs.safetensors` (`models.runs`),
`wording.safetensors` (`models.wording`), `card.md`, `LICENSE` and `manifest.sig`. It may come from anywhere,
so nothing in it is parsed before its hash was compared, nothing in it can be code, and nothing outside it is
read. Knows nothing of where bundles lie (`models.shelf`) or how they run (`models.runtime`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from models import contents
from models.errors import BundleError
from models.taxonomy import TAXONOMY_VERSION

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MODEL, TOKENIZER, CONFIG, CARD = "model.onnx", "tokenizer.json", "config.json", "card.md"
WEIGHTS, RUNS, WORDING = "weights.safetensors", "runs.safetensors", "wording.safetensors"
REQUIRED = frozenset({MODEL, TOKENIZER, CONFIG})
ALLOWED = REQUIRED | {WEIGHTS, RUNS, WORDING, CARD, "LICENSE"}
MAX_MANIFEST_BYTES = 256 << 10
MAX_FILE_BYTES = {MODEL: 1 << 30, WEIGHTS: 1 << 30, TOKENIZER: 64 << 20, RUNS: 64 << 20, WORDING: 16 << 20}
MAX_SMALL_BYTES = 1 << 20  # every other file
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # it becomes a directory's name

Tier = Literal["low", "middle", "top"]
TIERS: tuple[Tier, ...] = get_args(Tier)
_ENCODERS = {"low": "models.lines", "middle": "models.situations", "top": "models.briefs"}
_PICKLES = (".bin", ".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a bundle says of itself; `digest` is the SHA-256 of the manifest without it.

    `metrics` is free: quality figures and the rows of the table before and after shrinking.
    """

    format: int
    tier: Tier
    version: str
    features_version: int
    taxonomy_version: int
    files: dict[str, str]
    licence: str
    data: list[Any]
    metrics: dict[str, Any]
    memory_mib: float = 0.0
    created: str = ""
    recipe: str = ""
    parent: str = ""
    digest: str = ""


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the model is asked: `sequence` tokens at most; a classifier's `heads` in the order of its logits.

    `layers`, `heads_count`, `head_dim` and `vocabulary` are a generator's, for its key-value cache.
    `thresholds` and `calibration` belong to the tier's `decode`; `calibration.temperature` of a head divides
    its logits.
    """

    kind: Literal["classifier", "generator"]
    architecture: str
    sequence: int
    heads: dict[str, int] = {}
    layers: int = 0
    heads_count: int = 0
    head_dim: int = 0
    vocabulary: int = 0
    thresholds: dict[str, float] = {}
    calibration: dict[str, Any] = {}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `signer` is who signed it, "" where nobody's signature was checked."""

    directory: Path
    manifest: Manifest
    config: Config
    signer: str = ""

    @property
    def name(self) -> str:
        """Tier, version and the beginning of the model's hash, as verdicts record it."""
        return f"{self.manifest.tier}-{self.manifest.version}-{self.manifest.files[MODEL][:8]}"

    def read(self, name: str) -> bytes:
        """A file's bytes, compared with the manifest again: what is parsed is what was verified."""
        content = _read(self.directory, name)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(f"{self.directory / name} was changed after it was verified")
        return content

    @property
    def size_bytes(self) -> int:
        """What all its files take."""
        return sum((self.directory / name).stat().st_size for name in (*self.manifest.files, MANIFEST))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle, not yet compared with the files; raises BundleError."""
    return _parse_manifest(_read(directory, MANIFEST), directory / MANIFEST)


def verify(
    directory: Path, tier: str | None, *, key: Path | None = None, signature_required: bool = False
) -> Bundle:
    """Check every byte of a bundle; raises BundleError with one line that says what is wrong with which file.

    Args:
        directory: the bundle; may be a symbolic link, but nothing in it may be one.
        tier: the tier it is to serve; None takes the manifest's word.
        key: a file of allowed signers (ssh-keygen(1)); a signature that is there must then be one of theirs.
        signature_required: refuse a bundle that nobody signed.
    """
    directory = directory.resolve()
    raw = _read(directory, MANIFEST)
    manifest = _parse_manifest(raw, directory / MANIFEST)
    _check_versions(manifest, directory, tier)
    _check_digest(manifest, raw, directory)
    signer = _check_signature(directory, raw, key, required=signature_required)
    _check_listing(manifest, directory)
    for name, expected in sorted(manifest.files.items()):
        with _opened(directory, name) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise BundleError(
                f"{directory / name} is damaged: its SHA-256 is {found[:12]}..., "
                f"the manifest says {expected[:12]}...",
                hint="copy the bundle again",
            )
    bundle = Bundle(directory, manifest, _read_config(directory, manifest), signer)
    _check_contents(bundle)
    return bundle


def render_manifest(manifest: Manifest) -> bytes:
    """The only bytes that say this manifest, with its digest."""
    plain = msgspec.to_builtins(manifest) | {"digest": ""}
    del plain["digest"]
    plain["digest"] = hashlib.sha256(_canonical(plain)).hexdigest()
    return _canonical(plain)


def features_version(tier: str) -> int:
    """The version of the encoder that runs here: a model fits only the features it was trained on."""
    return int(importlib.import_module(_ENCODERS[tier]).FEATURES_VERSION)


# --- the steps, in the order in which they are taken --------------------------------------------------------


def _read(directory: Path, name: str) -> bytes:
    """The bytes of a regular file of the directory itself, bounded; raises BundleError."""
    with _opened(directory, name) as file:
        # read(limit) would set aside all of that memory first
        return file.read(os.fstat(file.fileno()).st_size)


def _opened(directory: Path, name: str) -> BufferedReader:
    limit = MAX_MANIFEST_BYTES if name == MANIFEST else MAX_FILE_BYTES.get(name, MAX_SMALL_BYTES)
    path = directory / name
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        missing = directory if not directory.is_dir() else path
        raise BundleError(f"{missing} does not exist", hint="a bundle is a directory") from error
    except OSError as error:
        link = path.is_symlink()
        raise BundleError(
            f"{path} {'is a symbolic link' if link else f'cannot be read: {error.strerror}'}"
        ) from error
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return file
    file.close()
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a regular file")
    raise BundleError(f"{path} has {status.st_size} bytes, more than {limit}")


def _parse_manifest(raw: bytes, path: Path) -> Manifest:
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise BundleError(
            f"{path}: format {version} is newer than this version reads ({FORMAT})", hint="update hauswart"
        )
    try:
        manifest = msgspec.convert(plain, Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from error
    if manifest.format != FORMAT or not VERSION.fullmatch(manifest.version):
        raise BundleError(f"{path}: format {manifest.format}, version {manifest.version!r} is no version")
    return manifest


def _check_versions(manifest: Manifest, directory: Path, tier: str | None) -> None:
    if tier is not None and manifest.tier != tier:
        raise BundleError(f"{directory} is a bundle of the {manifest.tier} tier, not of the {tier} tier")
    here = {"features": features_version(manifest.tier), "taxonomy": TAXONOMY_VERSION}
    says = {"features": manifest.features_version, "taxonomy": manifest.taxonomy_version}
    for what, version in here.items():
        if says[what] != version:
            raise BundleError(
                f"{directory} was made for version {says[what]} of the {what}, here it is {version}",
                hint="install a bundle that was made for this version, or retrain",
            )


def _check_digest(manifest: Manifest, raw: bytes, directory: Path) -> None:
    if raw != render_manifest(manifest):
        raise BundleError(
            f"{directory / MANIFEST} is damaged: it is not what its digest says",
            hint="copy the bundle again; after an edit, `hauswart train bundle --seal`",
        )


def _check_signature(directory: Path, raw: bytes, key: Path | None, *, required: bool) -> str:
    path = directory / SIGNATURE
    if not os.path.lexists(path):
        if required:
            raise BundleError(f"{directory} is not signed, and [models] signature_required is set")
        return ""
    if key is None:
        if required:
            raise BundleError(f"{directory}: nobody may sign", hint="set [models] allowed_signers")
        return ""
    from models.signature import check_signature  # noqa: PLC0415  # most hosts check none

    return check_signature(raw, _read(directory, SIGNATURE), key, str(path))


def _check_listing(manifest: Manifest, directory: Path) -> None:
    there = {path.name for path in directory.iterdir()} - {MANIFEST, SIGNATURE}
    for name in sorted(there | set(manifest.files)):
        if name.endswith(_PICKLES):
            raise BundleError(f"{directory / name} is a pickle by its name, which is code, not data")
        if name not in ALLOWED:
            raise BundleError(f"{directory / name} is no file that a bundle has")
        if name not in manifest.files:
            raise BundleError(f"{directory / name} is not in the manifest")
    if missing := REQUIRED - set(manifest.files):
        raise BundleError(f"{directory}: the manifest lists no {', '.join(sorted(missing))}")


def _read_config(directory: Path, manifest: Manifest) -> Config:
    path = directory / CONFIG
    try:
        config = msgspec.json.decode(_read(directory, CONFIG), type=Config)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from error
    kind = "generator" if manifest.tier == "top" else "classifier"
    sizes = [config.layers, config.heads_count, config.head_dim, config.vocabulary]
    sound = (
        all(1 <= size <= 1 << 20 for size in sizes)
        if kind == "generator"
        else 1 <= sum(config.heads.values()) <= 4096 and min(config.heads.values()) >= 1
    )
    if config.kind != kind or not sound or not 2 <= config.sequence <= 8192:
        raise BundleError(f"{path} does not describe a {kind} of the {manifest.tier} tier")
    return config


def _check_contents(bundle: Bundle) -> None:
    checks = {
        MODEL: lambda content: contents.check_model(content, bundle.config),
        TOKENIZER: contents.check_json,
        CONFIG: contents.check_json,
    }
    for name in bundle.manifest.files:
        try:
            if name in {WEIGHTS, RUNS, WORDING}:  # not read whole here: the runtime has no use for weights
                with _opened(bundle.directory, name) as file:
                    contents.check_safetensors(file)
            else:
                checks.get(name, contents.check_text)(bundle.read(name))
        except BundleError as error:
            raise BundleError(f"{bundle.directory / name} {error}", hint=error.hint) from error


def _canonical(plain: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="replace")
