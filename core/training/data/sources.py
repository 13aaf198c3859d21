"""The sources of `--data`: a folder of photos, one with a list, pairs or shards; and a hash that changes with them.

A shard (WebDataset) is a .tar file, local or behind a URL, with one entry per photo: `NAME.jpg` (or another photo
format), or `NAME.clean.png` and `NAME.damaged.png` for a pair. A process reads only the shards of its own groups.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from ...errors import MissingExtraError, PhotoError, TrainingError, UsageError
from ...photo.io import is_photo, read
from ...photo.listing import LIST_NAME, released_photos
from .pairs import PairUse, find_pairs, is_paired
from .photos import PhotoSource, Pixels, Pool, TrainingData, gather, load, to_8_bits
from .stream import GROUP_PHOTOS, GROUPS, Folder, Stream, shuffled

__all__ = ["Shards", "expand", "file_hash", "is_shards", "open_data"]

VAL_SIDE = 256  # held-back photos are judged on centre crops of this size, at least
VAL_PHOTOS = 64  # held-back photos that are used, evenly spaced if there are more: every process holds them

Entry = dict[str, bytes]  # the files of one photo by suffix, without the dot


def open_data(
    data: str, val: str | None, *, use: PairUse, seed: int, crop: int, side: int, structures: bool
) -> tuple[TrainingData, dict[str, str]]:
    """Training and held-back photos, and a hash of each listing.

    Args:
        data: What `--data` names.
        val: The held-back photos; None for the `val` split of `data`. If it is another folder of pairs than `data`, all
            of its pairs are held back, and none of those in `data`.
        use: Of pairs; see `find_pairs`.
        seed: For the order of a large collection.
        crop: Smallest side of a training photo, pixels.
        side: Of the context thumbnails, pixels.
        structures: Whether to compute structure layers.

    Raises:
        UsageError: If no photo is usable, or `val` names shards or is missing where `data` names shards.
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

    The hash does not depend on the place of the folder.
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


def is_shards(place: str) -> bool:
    """Whether `place` names shards: a .tar file, a pattern or URL of some, or a folder that holds some."""
    folder = Path(place)
    return any(folder.glob("*.tar")) if folder.is_dir() else ".tar" in place


def expand(place: str) -> list[str]:
    """The shards that `place` names: `shards-{000..009}.tar`, URLs likewise (`::` between several), or a folder.

    Raises UsageError if a local one does not exist.
    """
    if Path(place).is_dir():
        return [str(path) for path in sorted(Path(place).glob("*.tar"))]
    urls = _webdataset().shardlists.expand_urls(place)
    missing = [url for url in urls if ":" not in url and not Path(url).is_file()]
    if missing:
        raise UsageError(f"no shard at {missing[0]} (of {len(urls)} that '{place}' names); check the pattern")
    return urls


class Shards:
    """Reads the photos of a place from the next shard of the endless shuffled sequence: a random part of it."""

    def __init__(self, urls: list[str], seed: int, *, minimum: int, side: int, structures: bool) -> None:
        self.urls, self.seed = urls, seed
        self.minimum, self.side, self.structures = minimum, side, structures

    def __call__(self, place: int) -> Pool:
        """The pool of a place. Raises TrainingError when the shard cannot be read or has no usable photo."""
        rng = Generator(Philox(key=[self.seed, 2**61 + place]))
        entries = _read_entries(self.urls[shuffled(place, len(self.urls), self.seed)])
        chosen = _sample(entries, GROUP_PHOTOS, rng)
        return _pool_of(chosen, minimum=self.minimum, side=self.side, structures=self.structures)


def _read_entries(url: str) -> Iterator[Entry]:
    """Stream the entries of a shard, in its order. Raises TrainingError when it cannot be read."""
    library = _webdataset()
    try:
        with library.gopen(url) as stream:
            files = library.tariterators.tar_file_expander([{"url": url, "stream": stream}])
            for entry in library.tariterators.group_by_keys(files):
                yield {name: data for name, data in entry.items() if not name.startswith("__")}
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise TrainingError(f"cannot read the shard {url}: {error}; copy or upload it again") from error


def _pool_of(entries: list[Entry], *, minimum: int, side: int, structures: bool) -> Pool:
    """Decode entries into a pool; either all are pairs or none is."""
    photos, damaged = [], []
    for entry in entries:
        named = {name.rpartition(".")[0]: name for name in entry if is_photo(f"photo.{name}")}
        paired = set(named) == {"clean", "damaged"}
        if not paired and set(named) != {""}:
            raise TrainingError(
                f"a shard has an entry with {sorted(entry)}; expected one photo (jpg, png, ...), or clean.png and "
                "damaged.png"
            )
        photos.append(_decoded(named["clean" if paired else ""], entry, halve=not paired))
        if paired:
            damaged.append(_decoded(named["damaged"], entry, halve=False))
    if damaged and (
        len(damaged) != len(photos) or any(a.shape != b.shape for a, b in zip(photos, damaged, strict=True))
    ):
        raise TrainingError("the shards mix pairs with single photos, or the photos of a pair differ in size")
    return gather(photos, damaged, minimum=minimum, side=side, structures=structures)


def _decoded(name: str, entry: Entry, *, halve: bool) -> Pixels:
    with tempfile.NamedTemporaryFile(suffix=f".{name}") as file:
        file.write(entry[name])
        file.flush()
        try:
            return to_8_bits(read(file.name).pixels, halve=halve)
        except PhotoError as error:
            raise TrainingError(f"a shard has a photo ({name}) that cannot be decoded: {error}") from error


def _sample(entries: Iterator[Entry], count: int, rng: np.random.Generator) -> list[Entry]:
    """`count` of the entries (all, if there are fewer), each as likely as any other (Vitter's algorithm R)."""
    kept: list[Entry] = []
    for i, entry in enumerate(entries):
        if i < count:
            kept.append(entry)
        elif (j := int(rng.integers(i + 1))) < count:
            kept[j] = entry
    return kept


def _webdataset() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise MissingExtraError("webdataset", "train", "training from shards") from error
    return webdataset
