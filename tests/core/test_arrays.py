import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketprior.core import arrays
from pocketprior.core.arrays import Image, to_batch, to_image
from pocketprior.core.errors import UsageError
from pocketprior.core.native import library

DTYPES = [np.uint8, np.uint16]
SHAPES = [(1, 1), (1, 7), (5, 1), (3, 17), (129, 65), (2, 4097)]


def all_levels(dtype: type) -> Image:
    """Every level in every channel, in another order each: (L / 256, 256, 3)."""
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    return np.stack([levels, levels[::-1], np.roll(levels, 77)], axis=-1).reshape(-1, 256, 3)


def random_image(dtype: type, height: int, width: int) -> Image:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes(), f"{np.count_nonzero(a != b)} of {a.size} values differ"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_level_is_rounded_once(dtype: type) -> None:
    image = all_levels(dtype)
    expected = (image.astype(np.float64) / np.iinfo(dtype).max).astype(np.float32)
    assert_same_bits(to_batch(image), np.ascontiguousarray(expected.transpose(2, 0, 1)[np.newaxis]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_level_comes_back(dtype: type) -> None:
    image = all_levels(dtype)
    assert_same_bits(to_image(to_batch(image), dtype), image)


@pytest.mark.parametrize("dtype", DTYPES)
def test_twins_agree_on_every_level(dtype: type) -> None:
    image = all_levels(dtype)
    batch = arrays._to_batch_numpy(image)
    assert_same_bits(arrays._to_batch_native(library(), image), batch)
    assert_same_bits(arrays._to_image_native(library(), batch, dtype), arrays._to_image_numpy(batch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_twins_agree_on_odd_shapes(dtype: type, height: int, width: int) -> None:
    image = random_image(dtype, height, width)
    assert_same_bits(arrays._to_batch_native(library(), image), arrays._to_batch_numpy(image))
    batch = np.random.default_rng(4).normal(0.5, 0.5, (1, 3, height, width)).astype(np.float32)
    assert_same_bits(arrays._to_image_native(library(), batch, dtype), arrays._to_image_numpy(batch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_twins_agree_on_slices(dtype: type) -> None:
    image = random_image(dtype, 40, 50)[::2, 5:30:3]
    assert_same_bits(arrays._to_batch_native(library(), image), arrays._to_batch_numpy(image))
    batch = to_batch(image)[:, :, 1:9, ::-1]
    assert_same_bits(arrays._to_image_native(library(), batch, dtype), arrays._to_image_numpy(batch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("convert", ["numpy", "native"])
def test_out_of_range_is_clipped(dtype: type, convert: str) -> None:
    values = np.array([-np.inf, -1, -0.0, np.nan, 1, 1.0000001, 7, np.inf] + [0] * 4, np.float32).reshape(1, 3, 2, 2)
    top = np.iinfo(dtype).max
    expected = [0, 0, 0, 0, top, top, top, top, 0, 0, 0, 0]
    image = (
        arrays._to_image_numpy(values, dtype)
        if convert == "numpy"
        else arrays._to_image_native(library(), values, dtype)
    )
    assert image.transpose(2, 0, 1).ravel().tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_is_rounded_up(dtype: type) -> None:
    top = np.iinfo(dtype).max
    halves = ((np.arange(top, dtype=np.float64) + 0.5) / top).astype(np.float32)
    values = np.stack([np.nextafter(halves, np.float32(0)), halves, np.nextafter(halves, np.float32(1))])
    expected = np.floor(values.astype(np.float64) * top + 0.5).astype(dtype)
    assert_same_bits(to_image(values[np.newaxis, :, :, np.newaxis], dtype)[:, 0].T, expected)


@given(st.floats(0, 1, width=32), st.sampled_from(DTYPES))
def test_error_of_one_rounding_is_half_a_level(value: float, dtype: type) -> None:
    level = to_image(np.full((1, 3, 1, 1), value, np.float32), dtype)[0, 0, 0]
    assert abs(float(level) - value * np.iinfo(dtype).max) <= 0.5


def test_no_pixels_are_allowed() -> None:
    assert to_batch(np.empty((0, 5, 3), np.uint8)).shape == (1, 3, 0, 5)
    assert to_image(np.empty((1, 3, 4, 0), np.float32), np.uint8).shape == (4, 0, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "dtype uint8 or uint16, got float32"),
        (np.zeros((4, 4, 3), ">u2"), "got >u2"),
        (np.zeros((4, 4), np.uint8), r"shape \(height, width, 3\), got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\)"),
    ],
)
def test_wrong_image_is_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_batch(image)


@pytest.mark.parametrize(
    "batch", [np.zeros((1, 3, 4, 4)), np.zeros((2, 3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32)]
)
def test_wrong_batch_is_refused(batch: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"expected a batch float32 \(1, 3, height, width\), got"):
        to_image(batch, np.uint8)


def test_wrong_level_type_is_refused() -> None:
    with pytest.raises(UsageError, match="got int32"):
        to_image(np.zeros((1, 3, 4, 4), np.float32), np.int32)
