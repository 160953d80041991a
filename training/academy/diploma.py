"""What a specialist's adapter says of itself: every file's hash, base, licence, data, figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from daemon.errors import IntegrityError
from training.academy import library

MANIFEST = "manifest.json"
FORMAT = 1


def write(folder: Path, *, base: str, judge: str, metrics: dict[str, Any]) -> None:
    """Write the manifest of the folder's adapter. The documents' licence is the operator's to know."""
    adapter = folder / library.ADAPTER
    with library.opened(folder) as opened:
        data = [
            {"name": one["name"], "sha256": one["sha256"], "pages": one["pages"], "passages": one["passages"]}
            for one in library.documents(opened)
        ]
    manifest = {
        "format": FORMAT,
        "kind": "specialist",
        "name": folder.name,
        "base": base,
        "judge": judge,
        "files": {
            path.name: _hash(path)
            for path in sorted(adapter.iterdir())
            if path.is_file() and path.name != MANIFEST
        },
        "licence": "that of the base and of the documents; stays on this host",
        "data": data,
        "metrics": metrics,
    }
    body = json.dumps(manifest, ensure_ascii=False, sort_keys=True)
    manifest["digest"] = hashlib.sha256(body.encode()).hexdigest()
    (adapter / MANIFEST).write_text(
        json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, compared with every file. Raises IntegrityError."""
    adapter = folder / library.ADAPTER
    try:
        manifest = json.loads((adapter / MANIFEST).read_text(encoding="utf-8"))
        digest = manifest.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{adapter / MANIFEST} is missing or damaged: {error}", hint="train --resume"
        ) from error
    body = json.dumps(manifest, ensure_ascii=False, sort_keys=True)
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise IntegrityError(f"{adapter / MANIFEST} was changed after training", hint="train --resume")
    for name, expected in manifest["files"].items():
        path = adapter / Path(name).name
        if not path.is_file() or _hash(path) != expected:
            raise IntegrityError(f"{path} is not what training wrote", hint="train --resume")
    return dict(manifest)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
