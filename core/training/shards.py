"""Photos that stream from WebDataset shards, a window of them in memory at a time.

A shard is a .tar file, here or behind a URL, with one entry per photo: `NAME.jpg` (or another photo format), or
`NAME.clean.png` and `NAME.damaged.png` for a pair. Training reads windows: for `WINDOW_STEPS` steps it draws from
`WINDOW_PHOTOS` photos of a few shards. Which photos these are depends on (seed, step) alone, so that a run resumes
exactly and all processes see the same; memory holds the window in use and the next one, which a thread reads.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data
from numpy.random import Generator, Philox

from ..errors import MissingExtraError, PhotoError, TrainingError, UsageError
from ..image import is_photo, read
from .photos import Levels, Pool, gather, levels

__all__ = [
    "Shards",
    "expand",
    "is_shards",
    "pool_of",
    "read_entries",
]

WINDOW_PHOTOS = 256  # that are in memory at a time
WINDOW_SHARDS = 4  # that they come from
WINDOW_STEPS = 500  # for which they are drawn from

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
    """A source of photos, window after window. Each worker process has its own copy."""

    def __init__(self, urls: list[str], seed: int, *, minimum: int, side: int, structures: bool) -> None:
        self.urls, self.seed = urls, seed
        self.minimum, self.side, self.structures = minimum, side, structures
        self._number, self._pool = -1, None
        self._next: Future[Pool] | None = None

    def at(self, step: int) -> Pool:
        """The window of `step`. Raises TrainingError when a shard cannot be read or has no usable photo."""
        number = step // WINDOW_STEPS
        if number != self._number or self._pool is None:
            ready = self._next if self._next and number == self._number + 1 else None
            self._pool = ready.result() if ready else self._window(number)
            self._number = number
            self._next = self._ahead(number + 1)
        return self._pool

    def _ahead(self, number: int) -> Future[Pool] | None:
        """Read the next window while this one is used; only in workers, which are not forked any further."""
        if torch.utils.data.get_worker_info() is None:
            return None
        reader = ThreadPoolExecutor(1)
        future = reader.submit(self._window, number)
        reader.shutdown(wait=False)
        return future

    def _window(self, number: int) -> Pool:
        """Photos of a few shards of the endless shuffled row of them."""
        shards = min(WINDOW_SHARDS, len(self.urls))
        entries: list[Entry] = []
        for place in range(number * shards, (number + 1) * shards):
            rng = Generator(Philox(key=[self.seed, 2**61 + place]))
            entries += _sample(read_entries(self._url(place)), WINDOW_PHOTOS // shards, rng)
        return pool_of(entries, minimum=self.minimum, side=self.side, structures=self.structures)

    def _url(self, place: int) -> str:
        """Shard number `place` of the endless row: every shard once, in a new order, before any comes again."""
        round_, index = divmod(place, len(self.urls))
        order = Generator(Philox(key=[self.seed, 2**62 + round_])).permutation(len(self.urls))
        return self.urls[order[index]]


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


def _decoded(name: str, entry: Entry, *, halve: bool) -> Levels:
    with tempfile.NamedTemporaryFile(suffix=f".{name}") as file:
        file.write(entry[name])
        file.flush()
        try:
            return levels(read(file.name).pixels, halve=halve)
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
