"""Photos from WebDataset shards, for a `Stream`: a process reads the shards of its own groups only.

A shard is a .tar file, here or behind a URL, with one entry per photo: `NAME.jpg` (or another photo format), or
`NAME.clean.png` and `NAME.damaged.png` for a pair.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from ...errors import MissingExtraError, PhotoError, TrainingError, UsageError
from ...photo.io import is_photo, read
from .photos import Pixels, Pool, gather, to_8_bits
from .stream import GROUP_PHOTOS, shuffled

__all__ = [
    "Shards",
    "expand",
    "is_shards",
    "pool_of",
    "read_entries",
]

Entry = dict[str, bytes]  # the files of one photo by suffix, without the dot


def is_shards(place: str) -> bool:
    """Whether `place` names shards: a .tar file, a pattern or URL of some, or a folder that holds some."""
    folder = Path(place)
    return any(folder.glob("*.tar")) if folder.is_dir() else ".tar" in place


def expand(place: str) -> list[str]:
    """The shards that `place` names: `shards-{000..009}.tar`, URLs likewise (`::` between several), or a folder.

    Raises UsageError when one that should be on this machine is not there.
    """
    if Path(place).is_dir():
        return [str(path) for path in sorted(Path(place).glob("*.tar"))]
    urls = _webdataset().shardlists.expand_urls(place)
    missing = [url for url in urls if ":" not in url and not Path(url).is_file()]
    if missing:
        raise UsageError(f"no shard at {missing[0]} (of {len(urls)} that '{place}' names); check the pattern")
    return urls


class Shards:
    """Reads the photos of a place from the next shard of the endless shuffled row of them, some of those in it."""

    def __init__(self, urls: list[str], seed: int, *, minimum: int, side: int, structures: bool) -> None:
        self.urls, self.seed = urls, seed
        self.minimum, self.side, self.structures = minimum, side, structures

    def __call__(self, place: int) -> Pool:
        """The pool of a place. Raises TrainingError when the shard cannot be read or has no usable photo."""
        rng = Generator(Philox(key=[self.seed, 2**61 + place]))
        entries = read_entries(self.urls[shuffled(place, len(self.urls), self.seed)])
        chosen = _sample(entries, GROUP_PHOTOS, rng)
        return pool_of(chosen, minimum=self.minimum, side=self.side, structures=self.structures)


def read_entries(url: str) -> Iterator[Entry]:
    """Stream the entries of a shard, in its order. Raises TrainingError when it cannot be read."""
    library = _webdataset()
    try:
        with library.gopen(url) as stream:
            files = library.tariterators.tar_file_expander([{"url": url, "stream": stream}])
            for entry in library.tariterators.group_by_keys(files):
                yield {name: data for name, data in entry.items() if not name.startswith("__")}
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise TrainingError(f"cannot read the shard {url}: {error}; copy or upload it again") from error


def pool_of(entries: list[Entry], *, minimum: int, side: int, structures: bool) -> Pool:
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
