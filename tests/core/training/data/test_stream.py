"""Large collections: what is decoded when, by which process, and that the batches do not depend on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketprior.core.training.data import sources
from pocketprior.core.training.data.photos import PhotoSource, Pool, TrainingData, load
from pocketprior.core.training.data.sources import GROUPS, Stream, batches, group_of, open_data, read_files, shuffled
from support.toy_training import RECIPE, ToyStage

COUNT, EACH, SAMPLES = 40, 3, 16  # photos of the folder, of a group, and samples of a window


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "GROUP_PHOTOS", EACH)
    monkeypatch.setattr(sources, "WINDOW_SAMPLES", SAMPLES)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of 24 x 20 pixels, each of one grey of its own."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        Image.new("RGB", (24, 20), (i, i, i)).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


def folder(paths: list[Path], seed: int = 0) -> Callable[[int], Pool]:
    load_in = partial(load, minimum=16, side=0, structures=False, quiet=True)
    return partial(read_files, paths, (), seed, load_in)


def greys(pool: Pool) -> list[int]:
    return [int(photo[0, 0, 0]) for photo in pool.photos]


class Counted:
    """A reader that notes which places it was asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.read, self.places = folder(paths), Counter[int]()

    def __call__(self, place: int) -> Pool:
        self.places[place] += 1
        return self.read(place)


def drawn(source: PhotoSource, rank: int, processes: int, *, start: int = 0, workers: int = 0) -> list[torch.Tensor]:
    """The clean crops of each part of a run of 12 steps of 8 samples, by one of several processes."""
    stage = ToyStage(
        TrainingData(source, Pool([np.zeros((16, 16, 3), np.uint8)], [], np.empty((8, 3, 0, 0), np.uint8)))
    )
    parts = batches(stage, source, RECIPE, start=start, rank=rank, processes=processes, workers=workers)
    return [part["clean"] for part in parts]


def test_every_item_comes_once_a_round() -> None:
    row = [shuffled(place, 7, seed=3) for place in range(21)]
    rounds = [row[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(round_) == list(range(7)) for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) == 3


@pytest.mark.parametrize("batch", [1, 4, 8, 12, 32])
def test_groups_are_dealt_in_order_and_evenly(batch: int) -> None:
    groups = [group_of(position, batch) for position in range(batch)]
    assert groups == sorted(groups)
    assert set(groups) <= set(range(GROUPS))
    assert len(set(groups)) == min(batch, GROUPS)


def test_window_depends_on_the_number_of_the_sample_alone(paths: list[Path]) -> None:
    straight = Stream(folder(paths))
    first, again, other = (greys(straight.at(sample, 5)) for sample in (0, SAMPLES - 1, SAMPLES))
    assert first == again != other
    assert greys(Stream(folder(paths)).at(SAMPLES, 5)) == other
    assert greys(Stream(folder(paths, seed=1)).at(0, 5)) != first


def test_every_photo_comes_once_a_round(paths: list[Path]) -> None:
    source = Stream(folder(paths))
    windows = [greys(source.at(window * SAMPLES, group)) for window in range(5) for group in range(GROUPS)]
    seen = Counter(grey for window in windows for grey in window)
    assert seen == Counter(dict.fromkeys(range(COUNT), EACH))  # 5 * GROUPS * EACH = EACH * COUNT


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_see_what_one_would(processes: int, paths: list[Path]) -> None:
    whole = drawn(Stream(folder(paths)), 0, 1)
    shares = [drawn(Stream(folder(paths)), rank, processes) for rank in range(processes)]
    for step, together in enumerate(whole):
        assert torch.equal(torch.cat([share[step] for share in shares]), together)


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_a_process_reads_its_own_groups_once_each(processes: int, paths: list[Path]) -> None:
    for rank in range(processes):
        read = Counted(paths)
        drawn(Stream(read), rank, processes)
        own = [group for group in range(GROUPS) if group * processes // GROUPS == rank]
        windows = RECIPE.steps * RECIPE.batch // SAMPLES
        assert read.places == Counter(window * GROUPS + group for window in range(windows) for group in own)


def test_a_run_goes_on_in_the_middle_of_a_window(paths: list[Path]) -> None:
    whole, rest = drawn(Stream(folder(paths)), 0, 1), drawn(Stream(folder(paths)), 0, 1, start=5)
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_workers_draw_the_same(paths: list[Path]) -> None:
    whole, ahead = drawn(Stream(folder(paths)), 0, 1), drawn(Stream(folder(paths)), 0, 1, workers=2)
    assert all(torch.equal(a, b) for a, b in zip(whole, ahead, strict=True))


def test_memory_holds_two_windows_at_most(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in use and, in a worker, the next."""
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    read = Counted(paths)
    source = Stream(read)
    for sample in range(0, 4 * SAMPLES, 8):
        for group in range(GROUPS):
            source.at(sample, group)
            pools = [pool for _, pool in source._held.values()]
            pools += [future.result() for _, future in source._ahead.values()]
            assert sum(len(pool.photos) for pool in pools) <= 2 * GROUPS * EACH
    assert set(read.places.values()) == {1}


def test_one_of_eight_processes_holds_64_of_55_000_photos(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # windows of the real size
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    read = Counted([paths[i % COUNT] for i in range(55_000)])
    source = Stream(read)
    assert len(source.at(0, group_of(9, 64)).photos) == 32
    assert [len(future.result().photos) for _, future in source._ahead.values()] == [32]
    assert set(read.places) == {1, 1 + GROUPS}


def test_a_few_held_back_photos_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(7):
        Image.new("RGB", (256, 256), (i, i, i)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(sources, "VAL_PHOTOS", 3)
    data, _ = open_data(str(tmp_path), None, use="any", seed=0, crop=32, side=0, structures=False)
    assert greys(data.val) == [0, 2, 4]


def test_a_large_folder_streams_and_a_small_one_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(9):
        Image.new("RGB", (256, 256), (i, i, i)).save(tmp_path / f"{i}.png")
    options = {"use": "any", "seed": 0, "crop": 32, "side": 0, "structures": False}
    assert isinstance(open_data(str(tmp_path), None, **options)[0].train, Pool)
    monkeypatch.setattr(sources, "GROUP_PHOTOS", 1)
    assert isinstance(open_data(str(tmp_path), None, **options)[0].train, Stream)
