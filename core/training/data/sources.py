"""What `--data` names (a folder of photos, one with a list, pairs or shards), and a hash that tells when it changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ...errors import UsageError
from ...photo.listing import LIST_NAME, released_photos
from .pairs import PairUse, find_pairs, is_paired
from .photos import PhotoSource, TrainingData, load
from .shards import Shards, expand, is_shards
from .stream import GROUP_PHOTOS, GROUPS, Folder, Stream

__all__ = ["file_hash", "open_data"]

VAL_SIDE = 256  # held-back photos are judged on centre crops of this size, at least
VAL_PHOTOS = 64  # held-back photos that are used, evenly spaced, where there are more: every process holds them


def open_data(
    data: str, val: str | None, *, use: PairUse, seed: int, crop: int, side: int, structures: bool
) -> tuple[TrainingData, dict[str, str]]:
    """Training and held-back photos, and a hash of each listing.

    val: where the held-back photos are, None for the `val` split of `data`; of a folder of pairs beside `data` all are
    held back, and none of `data`. use: of pairs, as in `find_pairs`. crop: smallest side of a training photo. side: of
    the context thumbnails. Raises UsageError when there is nothing usable, or when `val` is missing (with shards) or
    names shards.
    """
    held_back = val or data
    listed = partial(_listed, use=use, whole=held_back != data)
    load_in = partial(load, side=side, structures=structures)
    if is_shards(held_back):
        raise UsageError(f"held-back photos cannot come from shards ({held_back}); give a folder of them with --val")
    if is_shards(data):
        urls = expand(data)
        train: PhotoSource = Stream(Shards(urls, seed, minimum=crop, side=side, structures=structures))
        hashes = {"data": _hash(f"{url} {_size(url)}" for url in urls)}
    else:
        clean, damaged, digest = listed(data, "train")
        hashes = {"data": digest}
        if len(clean) > GROUPS * GROUP_PHOTOS:
            train = Stream(Folder(clean, damaged, seed, minimum=crop, side=side, structures=structures))
        else:
            train = load_in(clean, damaged=damaged, minimum=crop)
    clean, damaged, hashes["val"] = listed(held_back, "val")
    clean, damaged = _some(clean, VAL_PHOTOS), _some(damaged, VAL_PHOTOS)
    return TrainingData(train, load_in(clean, damaged=damaged, minimum=max(crop, VAL_SIDE))), hashes


def _listed(place: str, split: str, *, use: PairUse, whole: bool) -> tuple[list[Path], list[Path], str]:
    """The photos of a split, or the clean and damaged ones of its pairs, and the hash of their names and sizes.

    The hash is the same wherever the folder lies.
    """
    root = Path(place)
    paired = not (root / LIST_NAME).exists() and is_paired(root)
    pairs = find_pairs(root, split, use=use, whole=whole) if paired else []
    clean, damaged = [p.clean for p in pairs], [p.damaged for p in pairs]
    clean = clean or released_photos(root, split=split)
    return clean, damaged, _hash(f"{os.path.relpath(path, root)} {path.stat().st_size}" for path in (*clean, *damaged))


def _some(paths: list[Path], count: int) -> list[Path]:
    return [paths[i * len(paths) // count] for i in range(count)] if len(paths) > count else paths


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _size(url: str) -> int | str:
    return Path(url).stat().st_size if Path(url).is_file() else "remote"
