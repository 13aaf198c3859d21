import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketprior.core.arrays import Batch, Image, to_batch, to_image
from pocketprior.core.errors import GraphError, UsageError
from pocketprior.core.limits import LARGEST_TILE
from pocketprior.core.native import library
from pocketprior.core.pack.manifest import FEATHER, padded_size, smallest_tile
from pocketprior.core.restore import tiles
from pocketprior.core.restore.restorer import PROCESS_BYTES, tile_edge
from pocketprior.core.restore.tiles import Box, Tile, TilePlan, blend, cut, join, plan, split
from support.padding import crop, pad_to_multiple

Model = Callable[[Batch], Batch]


@st.composite
def plans(draw: st.DrawFn, most: int = 230) -> tuple[TilePlan, int, int]:
    """(plan, overlap, multiple) with tiles small enough to be many."""
    multiple, overlap = draw(st.sampled_from([1, 2, 4, 7, 16])), draw(st.integers(0, 20))
    tile = smallest_tile(overlap, multiple) + draw(st.integers(0, 40))
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    return plan(height, width, tile, overlap, multiple), overlap, multiple


def photo(height: int, width: int, dtype: type = np.uint8) -> Image:
    return np.random.default_rng(height * 1009 + width).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def results(p: TilePlan, image: Image, model: Model) -> Iterator[Batch]:
    return (model(to_batch(cut(image, tile.read))) for tile in p.tiles)


def tiled(p: TilePlan, image: Image, model: Model) -> Batch:
    out = np.full((1, 3, *image.shape[:2]), np.nan, np.float32)
    for box, values in join(p, results(p, image, model)):
        out[:, :, *box.slices] = values
    return out


def whole(image: Image, model: Model, multiple: int) -> Batch:
    return crop(model(pad_to_multiple(to_batch(image), multiple)), *image.shape[:2])


def identity(batch: Batch) -> Batch:
    return batch


def box_blur(radius: int) -> Model:
    """Mean of (2 radius + 1)^2 neighbours, zeros outside, as a convolution pads."""

    def blur(batch: Batch) -> Batch:
        padded = np.pad(batch.astype(np.float64), ((0, 0), (0, 0), (radius, radius), (radius, radius)))
        size = 2 * radius + 1
        view = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
        return view.mean(axis=(-1, -2)).astype(np.float32)

    return blur


def mosaic(multiple: int) -> Model:
    """Each cell of the downsampling grid becomes its mean: right only where tiles start on the grid."""

    def cells(batch: Batch) -> Batch:
        n, c, height, width = batch.shape
        grid = batch.reshape(n, c, height // multiple, multiple, width // multiple, multiple)
        means = grid.mean(axis=(3, 5), keepdims=True, dtype=np.float64)
        return np.broadcast_to(means, grid.shape).reshape(batch.shape).astype(np.float32)

    return cells


def nan_at_the_rim(width: int) -> Model:
    """Poisons what is nearer than `width` to an edge of the array."""

    def poison(batch: Batch) -> Batch:
        out = np.full_like(batch, np.nan)
        inside = (..., slice(width, batch.shape[2] - width), slice(width, batch.shape[3] - width))
        out[inside] = batch[inside]
        return out

    return poison


@settings(deadline=None)
@given(plans())
def test_done_boxes_cover_each_pixel_once(case: tuple[TilePlan, int, int]) -> None:
    p, _, _ = case
    count = np.zeros((p.height, p.width), int)
    for tile in p.tiles:
        count[tile.done.slices] += 1
    assert (count == 1).all()


@settings(deadline=None)
@given(plans())
def test_read_boxes_have_one_shape_on_the_grid(case: tuple[TilePlan, int, int]) -> None:
    p, _, multiple = case
    assert len({tile.read.shape for tile in p.tiles}) == 1
    for tile in p.tiles:
        assert all(edge % multiple == 0 for edge in (*tile.read.rows, *tile.read.cols))
        assert tile.read.y0 >= 0
        assert tile.read.y1 <= padded_size(p.height, multiple)
        assert tile.read.x0 >= 0
        assert tile.read.x1 <= padded_size(p.width, multiple)


@settings(deadline=None)
@given(plans())
def test_written_pixels_keep_their_distance(case: tuple[TilePlan, int, int]) -> None:
    p, overlap, multiple = case
    height, width = padded_size(p.height, multiple), padded_size(p.width, multiple)
    for tile in p.tiles:
        read, write, done = tile.read, tile.write, tile.done
        assert read.y0 == 0 or write.y0 - read.y0 >= overlap
        assert read.x0 == 0 or write.x0 - read.x0 >= overlap
        assert read.y1 == height or read.y1 - write.y1 >= overlap
        assert read.x1 == width or read.x1 - write.x1 >= overlap
        assert (write.y0, write.x0) == (done.y0, done.x0)
        assert write.y1 - done.y1 == (0 if read.y1 == height else FEATHER)
        assert write.x1 - done.x1 == (0 if read.x1 == width else FEATHER)


@settings(deadline=None, max_examples=30)
@given(plans(most=120))
def test_weights_add_up_to_one(case: tuple[TilePlan, int, int]) -> None:
    """The weight of one tile is what comes out when it alone answers one; over the tiles they add up to one."""
    p, _, _ = case
    assume(len(p.tiles) <= 12)
    total = np.zeros((p.height, p.width))
    for chosen in range(len(p.tiles)):
        answers = (np.full((1, 3, *t.read.shape), i == chosen, np.float32) for i, t in enumerate(p.tiles))
        for box, values in join(p, answers):
            assert values.min() >= 0
            total[box.slices] += values[0, 0]
    assert np.max(np.abs(total - 1)) < 1e-6


@settings(deadline=None)
@given(plans(), st.sampled_from([np.uint8, np.uint16]))
def test_identity_gives_the_photo_back(case: tuple[TilePlan, int, int], dtype: type) -> None:
    p, _, _ = case
    image = photo(p.height, p.width, dtype)
    out = tiled(p, image, identity)
    assert np.array_equal(out, to_batch(image)), "the float values are the same, not only near"
    assert np.array_equal(to_image(out, dtype), image)


@settings(deadline=None, max_examples=40)
@given(plans(most=150), st.data())
def test_blur_in_tiles_is_the_blur_of_the_whole(case: tuple[TilePlan, int, int], data: st.DataObject) -> None:
    p, overlap, multiple = case
    blur = box_blur(data.draw(st.integers(0, min(overlap, 6))))
    image = photo(p.height, p.width)
    assert np.max(np.abs(tiled(p, image, blur) - whole(image, blur, multiple))) < 1e-6


@settings(deadline=None)
@given(plans())
def test_tiles_see_the_grid_of_the_whole(case: tuple[TilePlan, int, int]) -> None:
    p, _, multiple = case
    image = photo(p.height, p.width)
    assert np.max(np.abs(tiled(p, image, mosaic(multiple)) - whole(image, mosaic(multiple), multiple))) < 1e-6


def test_nothing_wrong_at_a_tile_edge_gets_out() -> None:
    p = plan(300, 310, 96, 13, 4)
    out = tiled(p, photo(300, 310), nan_at_the_rim(13))
    assert np.isfinite(out[:, :, 13:287, 13:295]).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3), (97, 193), (192, 96)])
def test_awkward_sizes(height: int, width: int) -> None:
    p, image = plan(height, width, 96, 12, 4), photo(height, width)
    assert np.array_equal(to_image(tiled(p, image, identity), np.uint8), image)


def test_a_photo_smaller_than_the_tile_is_one_tile() -> None:
    assert plan(50, 93, 96, 12, 4).tiles == (Tile(Box(0, 52, 0, 96), Box(0, 50, 0, 93), Box(0, 50, 0, 93)),)


def test_a_photo_of_100_megapixels_is_planned() -> None:
    for height, width in [(10000, 10000), (1, 100_000_000), (1_000_000, 100)]:
        p = plan(height, width, 2048, 48, 4)
        assert sum(tile.done.shape[0] * tile.done.shape[1] for tile in p.tiles) == 100_000_000


def test_memory_is_bounded_by_the_open_seams() -> None:
    """The photo would take 72 MB as a Batch; two tiles and FEATHER rows take 4."""
    image = np.zeros((2000, 3000, 3), np.uint8)
    out = np.empty_like(image)
    p = plan(2000, 3000, 256, 24, 4)
    tracemalloc.start()
    try:
        for box, values in join(p, results(p, image, identity)):
            out[box.slices] = to_image(values, np.uint8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tile_bytes = 256 * 256 * 3 * 4
    assert peak < FEATHER * 3000 * 3 * 4 + 4 * tile_bytes


def test_results_are_taken_one_at_a_time() -> None:
    p = plan(200, 200, 96, 12, 4)
    taken = []

    def counted() -> Iterator[Batch]:
        for result in results(p, photo(200, 200), identity):
            taken.append(result)
            yield result

    for finished, _ in enumerate(join(p, counted()), start=1):
        assert len(taken) == finished


def test_results_are_left_as_they_are() -> None:
    p = plan(200, 200, 96, 12, 4)
    given_results = list(results(p, photo(200, 200), identity))
    copies = [result.copy() for result in given_results]
    for _, values in join(p, given_results):
        values[...] = 0
    assert all(np.array_equal(a, b) for a, b in zip(given_results, copies, strict=True))


@pytest.mark.parametrize("shape", [(1, 3, 96, 92), (1, 1, 96, 96), (3, 96, 96)])
def test_a_result_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"expected a result of shape \(1, 3, 96, 96\)"):
        next(join(plan(200, 200, 96, 12, 4), iter([np.zeros(shape, np.float32)])))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [1, 7, 1000])
def test_twins_blend_alike(axis: int, length: int) -> None:
    shape = (1, 3, FEATHER, length) if axis == 0 else (1, 3, length, FEATHER)
    kept, fresh = np.random.default_rng(length).normal(size=(2, *shape)).astype(np.float32)
    expected = tiles._blend_numpy(kept, fresh, axis)
    assert tiles._blend_native(library(), kept, fresh, axis).tobytes() == expected.tobytes()
    sliced = tiles._blend_native(library(), kept[..., ::-1], fresh[..., ::-1], axis)
    assert sliced.tobytes() == tiles._blend_numpy(kept[..., ::-1], fresh[..., ::-1], axis).tobytes()


def test_the_ramp_is_linear() -> None:
    zeros, ones = np.zeros((1, 3, 5, FEATHER), np.float32), np.ones((1, 3, 5, FEATHER), np.float32)
    weights = blend(zeros, ones, axis=1)[0, 0, 0]
    assert np.allclose(weights, np.arange(1, FEATHER + 1) / (FEATHER + 1), atol=1e-7)
    assert np.allclose(weights + blend(ones, zeros, axis=1)[0, 0, 0], 1, atol=1e-7)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 32]))
def test_padding_is_reflected_then_repeated(height: int, width: int, multiple: int) -> None:
    batch = to_batch(photo(height, width))
    padded = pad_to_multiple(batch, multiple)
    extra = [(0, min(-size % multiple, size - 1)) for size in (height, width)]
    expected = np.pad(batch, [(0, 0), (0, 0), *extra], mode="reflect")
    missing = [(0, padded_size(n, multiple) - m) for n, m in zip((height, width), expected.shape[2:], strict=True)]
    assert np.array_equal(padded, np.pad(expected, [(0, 0), (0, 0), *missing], mode="edge"))
    assert np.array_equal(crop(padded, height, width), batch)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 16]), st.data())
def test_a_cut_is_part_of_the_padded_photo(height: int, width: int, multiple: int, data: st.DataObject) -> None:
    image = photo(height, width)
    padded = pad_to_multiple(to_batch(image), multiple)
    y0, x0 = (data.draw(st.integers(0, size - 1)) for size in padded.shape[2:])
    y1 = data.draw(st.integers(y0 + 1, padded.shape[2]))
    x1 = data.draw(st.integers(x0 + 1, padded.shape[3]))
    assert np.array_equal(to_batch(cut(image, Box(y0, y1, x0, x1))), padded[:, :, y0:y1, x0:x1])


def test_a_cut_inside_the_photo_copies_nothing() -> None:
    image = photo(40, 40)
    assert np.shares_memory(cut(image, Box(0, 40, 8, 40)), image)


@given(st.integers(0, 2**33), st.integers(1, 5000), st.integers(0, 64), st.sampled_from([1, 4, 16]))
def test_the_tile_is_the_largest_that_fits(memory: int, per_pixel: int, overlap: int, multiple: int) -> None:
    image = np.broadcast_to(np.uint8(0), (100_000, 100_000, 3))
    try:
        tile = tile_edge(image, PROCESS_BYTES + 2 * image.nbytes + memory, per_pixel, overlap, multiple)
    except UsageError:
        assert smallest_tile(overlap, multiple) ** 2 * per_pixel > memory
        return
    assert tile % multiple == 0
    assert tile**2 * per_pixel <= memory
    assert tile == LARGEST_TILE or memory < (tile + multiple) ** 2 * per_pixel
    assert plan(tile + 40, tile + 40, tile, overlap, multiple)


@pytest.mark.parametrize("overlap", [0, 5, 48])
@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_smallest_tile_is_enough_and_no_less(overlap: int, multiple: int) -> None:
    smallest = smallest_tile(overlap, multiple)
    assert len(plan(1, 3 * smallest, smallest, overlap, multiple).tiles) > 3
    with pytest.raises(UsageError, match=f"expected a tile of at least {smallest} pixels .*, got {smallest - 1}"):
        plan(1, 3 * smallest, smallest - 1, overlap, multiple)


@pytest.mark.parametrize("sizes", [(0, 5, 0, 1), (5, 0, 0, 1), (5, 5, -1, 1), (5, 5, 0, 0)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int, int]) -> None:
    height, width, overlap, multiple = sizes
    with pytest.raises(UsageError, match="expected sizes and a multiple of at least 1"):
        plan(height, width, 256, overlap, multiple)


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    multiple=st.sampled_from([1, 4, 16]),
    units=st.integers(20, 80),
)
def test_split_covers_each_pixel_once_in_even_parts(height: int, width: int, multiple: int, units: int) -> None:
    edge = multiple * units
    boxes = split(height, width, edge, multiple)
    rows, columns = ({(b.y0, b.y1) for b in boxes}, {(b.x0, b.x1) for b in boxes})
    assert len(boxes) == len(rows) * len(columns)
    for spans, size in ((sorted(rows), height), (sorted(columns), width)):
        assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
        assert spans[-1][1] == padded_size(size, multiple)
        lengths = [stop - start for start, stop in spans]
        assert min(lengths) > 0
        assert max(lengths) <= min(edge, min(lengths) + multiple)
        assert len(spans) == -(-padded_size(size, multiple) // edge)
        assert all(length % multiple == 0 for length in lengths)
