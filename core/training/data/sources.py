"""The sources of `--data`: a folder of photos, one with a list, pairs or shards; and the batches drawn from them.

A shard (WebDataset) is a .tar file, local or behind a URL, with one entry per photo: `NAME.jpg` (or another photo
format), or `NAME.clean.png` and `NAME.damaged.png` for a pair. A process reads only the shards of its own groups.

Sample i of step s has the number s * batch + i, and is a function of the seed and that number, in whatever process it
is drawn. Process r of P computes the r-th of P equal shares of the batch, in `accumulate` parts; together they compute
the same samples as a single process.

Training holds a window of a large collection at a time. The samples of a step are divided in order into `GROUPS`
groups, and each group draws from `GROUP_PHOTOS` photos of its own, for `WINDOW_SAMPLES` samples of the batch (about 64
for each photo); others follow. The choice of photos depends only on the seed, the number of the sample and its place in
the batch: a run resumes exactly, with any number of processes. A process decodes only the photos of its own groups;
with eight or more processes, of one group.

Memory: the current window and, in a worker, the next one, which a thread reads: at most 2 * 32 photos for each group of
the process, of which a single process has 8.
"""

from __future__ import annotations

import hashlib
import os
import signal
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...errors import MissingExtraError, PhotoError, TrainingError, UsageError
from ...photo.io import is_photo, read
from ...photo.listing import LIST_NAME, released_photos
from ..loop.recipe import Recipe
from ..loop.stage import TrainingStage, stacked
from .pairs import PairUse, find_pairs, is_paired
from .photos import PhotoSource, Pixels, Pool, TrainingData, gather, load, to_8_bits

__all__ = [
    "GROUPS",
    "Stream",
    "batches",
    "expand",
    "file_hash",
    "group_of",
    "is_shards",
    "open_data",
    "read_files",
    "read_shard",
    "share_of",
    "shuffled",
]

VAL_SIDE = 256  # held-back photos are judged on centre crops of this size, at least
VAL_PHOTOS = 64  # held-back photos that are used, evenly spaced if there are more: every process holds them
GROUPS = 8
GROUP_PHOTOS = 32
WINDOW_SAMPLES = 64 * GROUPS * GROUP_PHOTOS
PREFETCH = 4  # parts of batches that a worker draws ahead

Entry = dict[str, bytes]  # the files of one photo by suffix, without the dot


def open_data(
    data: str, val: str | None, *, use: PairUse, seed: int, crop: int, side: int, structures: bool
) -> tuple[TrainingData, dict[str, str]]:
    """Training and held-back photos, and a hash of each listing.

    data, val: as --data and --val name them; without `val` the `val` split of `data`. If `val` is another folder of
    pairs than `data`, all of its pairs are held back, and none of those in `data`. use: of pairs; see `find_pairs`.
    seed: for the order of a large collection. crop: smallest side of a training photo, pixels. side, structures: as in
    `gather`. Raises UsageError if no photo is usable, or `val` names shards or is missing where `data` names shards.
    """
    held_back = val or data
    listed = partial(_listed, use=use, whole=held_back != data)
    load_in = partial(load, side=side, structures=structures)
    if is_shards(held_back):
        raise UsageError(f"held-back photos cannot come from shards ({held_back}); give a folder of them with --val")
    if is_shards(data):
        urls = expand(data)
        gather_in = partial(gather, minimum=crop, side=side, structures=structures)
        train: PhotoSource = Stream(partial(read_shard, urls, seed, gather_in))
        sizes = [Path(url).stat().st_size if Path(url).is_file() else "remote" for url in urls]
        hashes = {"data": _hash(f"{url} {size}" for url, size in zip(urls, sizes, strict=True))}
    else:
        clean, damaged, digest = listed(data, "train")
        hashes = {"data": digest}
        if len(clean) > GROUPS * GROUP_PHOTOS:
            train = Stream(partial(read_files, clean, damaged, seed, partial(load_in, minimum=crop, quiet=True)))
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


def group_of(position: int, batch: int) -> int:
    """The group of a sample by its position in the batch."""
    return position * GROUPS // batch


def shuffled(place: int, count: int, seed: int) -> int:
    """Item number `place` of an endless sequence of `count` items: all of them once, in a new order, and again."""
    round_, index = divmod(place, count)
    return int(np.random.Generator(np.random.Philox(key=[seed, 2**62 + round_])).permutation(count)[index])


class Stream:
    """A source of photos, window after window. Each worker process has its own copy.

    read: the photos of a place; places 0, 1, ... are the windows of all groups in turn.
    """

    def __init__(self, read: Callable[[int], Pool]) -> None:
        self._read = read
        self._held: dict[int, tuple[int, Pool]] = {}  # group -> window, photos
        self._ahead: dict[int, tuple[int, Future[Pool]]] = {}

    def at(self, sample: int, group: int = 0) -> Pool:
        """As in `PhotoSource`. Raises TrainingError when photos cannot be read, or none is large enough."""
        window = sample // WINDOW_SAMPLES
        if group not in self._held or self._held[group][0] != window:
            self._held.pop(group, None)  # before the next one is read
            number, future = self._ahead.pop(group, (None, None))
            ready = future.result() if future and number == window else None
            self._held[group] = (window, ready or self._read(window * GROUPS + group))
        if torch.utils.data.get_worker_info() is not None:  # only workers, which are not forked any further
            self._read_ahead(window)
        return self._held[group][1]

    def _read_ahead(self, window: int) -> None:
        """Read the next window of one of the groups in use, unless one is being read."""
        if all(future.done() for _, future in self._ahead.values()):
            for group in sorted(self._held.keys() - self._ahead.keys())[:1]:
                reader = ThreadPoolExecutor(1)
                self._ahead[group] = (window + 1, reader.submit(self._read, (window + 1) * GROUPS + group))
                reader.shutdown(wait=False)


def read_shard(urls: Sequence[str], seed: int, gather: Callable[..., Pool], place: int) -> Pool:
    """The photos of a place from the next shard of the endless shuffled sequence: a random part of it.

    gather: as in `photos.gather`. Raises TrainingError when the shard cannot be read or has no usable photo.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, 2**61 + place]))
    entries = _read_entries(urls[shuffled(place, len(urls), seed)])
    return _pool_of(_sample(entries, GROUP_PHOTOS, rng), gather)


def read_files(
    clean: Sequence[Path], damaged: Sequence[Path], seed: int, load: Callable[..., Pool], place: int
) -> Pool:
    """The photos of a place from files: the next `GROUP_PHOTOS` of the endless shuffled sequence.

    damaged: of pairs, or empty. load: as in `photos.load`. Raises TrainingError when no photo is large enough.
    """
    chosen = [shuffled(place * GROUP_PHOTOS + i, len(clean), seed) for i in range(GROUP_PHOTOS)]
    return load([clean[i] for i in chosen], damaged=[damaged[i] for i in chosen] if damaged else ())


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


def _pool_of(entries: list[Entry], gather: Callable[..., Pool]) -> Pool:
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
    return gather(photos, damaged)


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


def share_of(recipe: Recipe, processes: int) -> int:
    """Samples in one part of one process. Raises UsageError when the batch cannot be divided equally."""
    parts = processes * recipe.accumulate
    if recipe.batch % parts:
        raise UsageError(
            f"a batch of {recipe.batch} does not divide into {processes} processes x {recipe.accumulate} parts; "
            f"choose a multiple of {parts} (--set batch=...) or another number of parts (--set accumulate=...)"
        )
    return recipe.batch // parts


class _Parts(Dataset[dict[str, Tensor]]):
    """Part k of a process: `k // accumulate` is the step."""

    def __init__(self, stage: TrainingStage, source: PhotoSource, recipe: Recipe, rank: int, processes: int) -> None:
        self.draw, self.source, self.recipe, self.rank = stage.draw, source, recipe, rank
        self.share = share_of(recipe, processes)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        recipe = self.recipe
        step, part = divmod(k, recipe.accumulate)
        start, first = step * recipe.batch, (self.rank * recipe.accumulate + part) * self.share
        samples = []
        for position in range(first, first + self.share):
            pool = self.source.at(start, group_of(position, recipe.batch))
            rng = np.random.Generator(np.random.Philox(key=[recipe.seed, start + position]))
            samples.append(self.draw(pool, recipe.crop_at(step), rng))
        return stacked(samples)


def batches(
    stage: TrainingStage, source: PhotoSource, recipe: Recipe, *, start: int, rank: int, processes: int, workers: int
) -> Generator[dict[str, Tensor]]:
    """The parts of the steps from `start` on, in order; `workers` processes draw them ahead, until it is closed."""
    parts = recipe.accumulate
    loader = DataLoader(
        _Parts(stage, source, recipe, rank, processes),
        batch_size=None,
        sampler=range(start * parts, recipe.steps * parts),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    try:
        yield from loader
    except TrainingError as error:
        # without the traceback that torch prepends to the message of an error in a worker
        raise TrainingError(str(error).rstrip().rpartition(f"{TrainingError.__name__}: ")[2]) from error


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, but the training process needs its workers until it has saved."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
