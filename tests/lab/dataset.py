"""Recordings as one file that can be given away: compressed, labelled, with a licence and a data card.

The file is a tar of what `record` keeps, so `score --runs FILE` works on it as on the folder. Recordings of
the machine itself (`system = "host"`) name its processes and users; they are left out unless asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from string import Template
from typing import IO, Any

import zstandard

from daemon.errors import ConfigError, SourceError
from tests.lab import split
from tests.lab.moments import Moments
from tests.lab.scenario import BENIGN, SCENARIOS, Run, Scenario

CARD = Path(__file__).with_name("data_card.md")
ROOT = "hauswart-lab"
SUFFIX = ".tar.zst"
LICENCE = "CC0-1.0"
LEVEL = 10  # the telemetry is compressed already; what gains is the text beside it
FILES_MAX, BYTES_MAX = 100_000, 8 << 30  # a file from elsewhere holds no more than that
_KEPT = ("run.json", "hauswart.toml")


def publish(folders: Sequence[Path], scenarios: Mapping[str, Scenario], out: Path) -> dict[str, Any]:
    """Write the data set of these runs' folders; what it holds, as in its `index.json`.

    Raises ConfigError where there is nothing to write or `out` has another suffix.
    """
    if not folders:
        raise ConfigError("there is no recording to publish", hint="`python -m tests.lab record` makes them")
    if not out.name.endswith(SUFFIX):
        raise ConfigError(f"{out} does not end in {SUFFIX}", hint=f"--out hauswart-lab{SUFFIX}")
    sides = split.load_sides()
    rows = [_label(folder, scenarios[_name(folder)], sides) for folder in folders]
    index = _index(rows)
    partial = out.with_name(f"{out.name}.partial")
    with (
        partial.open("wb") as raw,
        zstandard.ZstdCompressor(LEVEL).stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        _write(tar, "README.md", card(index))
        _write(tar, "index.json", json.dumps(index, indent=1) + "\n")
        _write(tar, "labels.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        for name in sorted({row["scenario"] for row in rows}):
            _write(tar, f"scenarios/{name}.toml", (SCENARIOS / f"{name}.toml").read_text())
        for folder in folders:
            for path in _files(folder):
                _write(tar, f"runs/{_id(folder)}/{path.relative_to(folder)}", path.read_bytes())
    partial.replace(out)
    return index


def unpack(path: Path, folder: Path) -> Path:
    """The recordings of a data set's file, below `folder`.

    Raises SourceError for a file that is none, that leaves its folder, or that is too large.
    """
    try:
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as opened:
            _extract(opened, folder)
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise SourceError(
            f"{path} is no data set of the lab: {error}", hint="`publish` makes them"
        ) from error
    if not (folder / ROOT / "index.json").is_file():
        raise SourceError(f"{path} holds no {ROOT}/index.json", hint="`publish` makes data sets")
    return folder / ROOT / "runs"


def card(index: Mapping[str, Any]) -> str:
    """The data card, Markdown."""
    classes = (f"| {name} | {n['mechanisms']} | {n['runs']} |" for name, n in index["classes"].items())
    return Template(CARD.read_text()).substitute(
        {name: index[name] for name in ("runs", "mechanisms", "hours", "faults", "benign", "licence")},
        first=index["recorded"][0][:10],
        last=index["recorded"][1][:10],
        versions=", ".join(index["versions"]),
        commits=", ".join(index["commits"]),
        classes="\n".join(classes),
    )


def _label(folder: Path, scenario: Scenario, sides: split.Sides) -> dict[str, Any]:
    run = json.loads((folder / "run.json").read_text())
    label = Run(scenario, run["seed"], run["number"], run["parameters"])
    kept = ("scenario", "class", "system", "parameters", "noise", "seed", "number", "versions", "losses")
    return {
        "id": _id(folder),
        **{name: run[name] for name in kept},
        "about": scenario.document.about,
        "side": split.side_of(scenario.name, sides),
        "right_classes": sorted(scenario.right_classes),
        "culprits": label.culprits,
        "severity": [one.value for one in scenario.document.severity],
        "times": {name: at["wall"] for name, at in run["times"].items()},
        "since_effect_s": {name: round(Moments(run["times"]).of(name), 3) for name in run["times"]},
        "sha256": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in _files(folder)
        },
    }


def _index(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mechanisms = {row["scenario"]: row["class"] for row in rows}
    by_class, runs_of = Counter(mechanisms.values()), Counter(row["class"] for row in rows)
    recorded = sorted(row["versions"]["recorded"] for row in rows)
    seconds = sum(row["since_effect_s"]["ended"] - row["since_effect_s"]["up"] for row in rows)
    return {
        "format": 1,
        "licence": LICENCE,
        "runs": len(rows),
        "faults": sum(row["class"] != BENIGN for row in rows),
        "benign": runs_of[BENIGN],
        "mechanisms": len(mechanisms),
        "hours": round(seconds / 3600.0, 2),
        "recorded": [recorded[0], recorded[-1]],
        "versions": sorted({row["versions"]["hauswart"] for row in rows}),
        "commits": sorted({row["versions"]["commit"] for row in rows}),
        "classes": {name: {"mechanisms": by_class[name], "runs": runs_of[name]} for name in sorted(by_class)},
    }


def _files(folder: Path) -> list[Path]:
    kept = [folder / name for name in _KEPT]
    return kept + sorted(path for path in (folder / "telemetry").iterdir() if path.is_file())


def _id(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def _name(folder: Path) -> str:
    return "/".join(folder.parts[-3:-1])


def _write(tar: tarfile.TarFile, name: str, content: str | bytes) -> None:
    """A file without anything of who packed it and when, so that the same runs give the same data set."""
    data = content.encode() if isinstance(content, str) else content
    entry = tarfile.TarInfo(f"{ROOT}/{name}")
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def _extract(opened: IO[bytes], folder: Path) -> None:
    files = size = 0
    with tarfile.open(fileobj=opened, mode="r|") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            if not entry.isfile() or name.is_absolute() or ".." in name.parts or name.parts[:1] != (ROOT,):
                raise SourceError(f"{entry.name!r} has no place in a data set", hint="do not trust this file")
            files, size = files + 1, size + entry.size
            if files > FILES_MAX or size > BYTES_MAX:
                raise SourceError("the data set holds too much", hint=f"more than {BYTES_MAX >> 30} GiB")
            path = folder.joinpath(*name.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(entry)
            assert source is not None
            with path.open("wb") as target:
                shutil.copyfileobj(source, target)
