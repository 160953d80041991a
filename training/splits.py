"""Splits rows by group and keeps what could spoil a training set out of it; every row dropped is counted.

Groups, never rows, are split: lines of one service, or of one subsystem, resemble each other. Knows nothing
of where rows come from or which labels they carry.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from training.tables import DataError

Row = dict[str, Any]

SPLITS = ("train", "val", "test")
UID_SHARE = 0.05  # what one unprivileged user may supply of a split: nobody can teach a model by logging much
SYSTEM_UIDS = 1000  # below are root and the system's own services (login.defs(5), SYS_UID_MAX)
UNKNOWN_UID = -1  # a line whose writer nobody vouches for
LARGEST = 0.3  # of all rows: a larger group trains, or one service would be the whole test


def split_groups(rows: Sequence[Row], shares: Mapping[str, float], seed: int) -> None:
    """Give every row without one a `split`, whole groups at a time; raises DataError for a group in two."""
    fixed = fixed_splits(rows)
    sizes = Counter(row["group"] for row in rows if not row.get("split"))
    free = [group for group in sizes if group not in fixed and sizes[group] <= LARGEST * sum(sizes.values())]
    order = sorted(free, key=lambda group: _draw(f"{seed} {group}"))
    chosen = dict(fixed)
    for split, share in shares.items():
        left = share * sum(sizes.values())
        while order and left > 0.0:
            group = order.pop()
            chosen[group] = split
            left -= sizes[group]
    for row in rows:
        if not row.get("split"):
            row["split"] = chosen.get(row["group"], "train")


def fixed_splits(rows: Iterable[Row]) -> dict[str, str]:
    """The split of each group whose rows came with one; raises DataError for an unknown or a torn one."""
    found: dict[str, str] = {}
    for row in rows:
        split = row.get("split")
        if not split:
            continue
        if split not in SPLITS:
            raise DataError(f"source {row['source']}: {split!r} is no split", hint=", ".join(SPLITS))
        if found.setdefault(row["group"], split) != split:
            raise DataError(f"group {row['group']!r} stands in {found[row['group']]} and in {split}")
    return found


def drop_duplicates(rows: Iterable[Row], content: Callable[[Row], Any]) -> tuple[list[Row], int]:
    """Rows whose content (text and labels) was not there before, and how many were; texts become NFC."""
    kept: list[Row] = []
    seen: set[Any] = set()
    dropped = 0
    for row in rows:
        for name in ("text", "prompt", "completion"):
            if isinstance(row.get(name), str) and not row[name].isascii():
                row[name] = unicodedata.normalize("NFC", row[name])
        key = content(row)
        if key in seen:
            dropped += 1
            continue
        seen.add(key)
        kept.append(row)
    return kept, dropped


def drop_overlap(rows: Sequence[Row], text: str) -> tuple[list[Row], int]:
    """Without the training rows whose text also stands in val or test, and how many those were."""
    held = {row[text] for row in rows if row["split"] != "train"}
    kept = [row for row in rows if row["split"] != "train" or row[text] not in held]
    return kept, len(rows) - len(kept)


def cap_uids(rows: Sequence[Row], text: str, seed: int) -> tuple[list[Row], dict[str, int]]:
    """Rows such that no unprivileged uid supplies more than UID_SHARE of a split, and what each uid lost.

    Rows without `uid` come from no user. Which rows stay is drawn by their text, not by who came first.
    """
    lost: Counter[str] = Counter()
    kept_ids: set[int] = set()
    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        by_uid: dict[int, list[Row]] = defaultdict(list)
        for row in mine:
            if row.get("uid") is not None and not 0 <= row["uid"] < SYSTEM_UIDS:
                by_uid[row["uid"]].append(row)
            else:
                kept_ids.add(id(row))
        others = len(mine) - sum(map(len, by_uid.values()))
        most = _most([len(found) for found in by_uid.values()], others)
        for uid, found in by_uid.items():
            found.sort(key=lambda row: _draw(f"{seed} {row[text]}"))
            kept_ids.update(map(id, found[:most]))
            if len(found) > most:
                lost[f"uid {uid}" if uid != UNKNOWN_UID else "unknown writers"] += len(found) - most
    return [row for row in rows if id(row) in kept_ids], dict(lost)


def _most(sizes: Sequence[int], others: int) -> int:
    """The largest number of rows a uid may keep so that it stays within UID_SHARE of what is kept."""
    low, high = 0, max(sizes, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        total = others + sum(min(size, middle) for size in sizes)
        low, high = (middle, high) if middle <= UID_SHARE * total else (low, middle - 1)
    return low


def _draw(text: str) -> bytes:
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()
