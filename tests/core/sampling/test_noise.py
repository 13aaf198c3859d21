import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pocketprior.core.errors import UsageError
from pocketprior.core.native import library
from pocketprior.core.sampling import noise
from pocketprior.core.sampling.noise import NOISE_SPEC, normal, normal_of_bits, normal_vector, philox4x32

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/noise.json").read_text())
KNOWN_ANSWERS = [  # counter, key, words: Random123's kat_vectors
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def floats(bits: list[str]) -> np.ndarray:
    return words(" ".join(bits)).view(np.float32)


def native_philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    out = np.empty(4, np.uint32)
    library().pp_philox4x32(counter, key, out)
    return out


def native_normal_of_bits(bits: np.ndarray) -> np.ndarray:
    out = np.empty(bits.shape, np.float32)
    library().pp_normal_of_bits(bits, bits.size, out)
    return out


def filled(
    fill: Callable[..., None],
    seed: int,
    step: int,
    rows: tuple[int, int],
    cols: tuple[int, int],
    channels: int = 3,
) -> np.ndarray:
    """The field by one of the twins, in memory that was NaN before."""
    out = np.full((channels, rows[1] - rows[0], cols[1] - cols[0]), np.nan, np.float32)
    fill(seed, step, rows[0], cols[0], out)
    return out


def native_fill(*args: object) -> None:
    noise._fill_native(library(), *args)


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    different = a.view(np.uint32) != b.view(np.uint32)
    assert not different.any(), f"{different.sum()} of {a.size} values differ, first at {np.argwhere(different)[0]}"


FILLS = pytest.mark.parametrize("fill", [noise._fill_numpy, native_fill], ids=["numpy", "native"])


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    assert philox4x32(words(counter)[np.newaxis], words(key))[0].tolist() == words(expected).tolist()
    assert native_philox(words(counter), words(key)).tolist() == words(expected).tolist()


def test_golden_transform() -> None:
    bits = words(" ".join(GOLDEN["transform"]))
    expected = floats(list(GOLDEN["transform"].values()))
    assert len(bits) >= 64
    assert_same_bits(normal_of_bits(bits), expected)
    assert_same_bits(native_normal_of_bits(bits), expected)


@FILLS
def test_golden_fields(fill: Callable[..., None]) -> None:
    assert GOLDEN["spec"] == NOISE_SPEC
    for case in GOLDEN["fields"]:
        seed, step = int(case["seed"], 16), int(case["step"], 16)
        found = filled(fill, seed, step, case["rows"], case["cols"], case["channels"])
        assert_same_bits(found.ravel(), floats(case["normals"]))


@FILLS
def test_golden_digest(fill: Callable[..., None]) -> None:
    case = GOLDEN["digest"]
    seed, step = int(case["seed"], 16), int(case["step"], 16)
    found = filled(fill, seed, step, case["rows"], case["cols"], case["channels"])
    digest = hashlib.sha256(found.astype("<f4").tobytes()).hexdigest()
    assert digest == case["sha256_of_little_endian_float32"]


def test_golden_vectors() -> None:
    for case in GOLDEN["vectors"]:
        found = normal_vector(int(case["seed"], 16), int(case["step"], 16), case["size"])
        assert found.shape == (1, case["size"])
        assert_same_bits(found[0], floats(case["normals"]))


def test_twins_agree_on_a_million_values() -> None:
    args = (987654321987654321, 5, (100, 700), (33, 633))
    assert_same_bits(filled(native_fill, *args), filled(noise._fill_numpy, *args))


def test_twins_agree_where_the_polynomials_change() -> None:
    ends = [np.arange(65536), np.arange(2**32 - 65536, 2**32), np.arange(2**31 - 65536, 2**31 + 65536)]
    seams = [np.arange(int(p * 2**32) - 65536, int(p * 2**32) + 65536) for p in (0.075, 0.925)]
    powers = [2**i + np.arange(-2, 3) for i in range(2, 32)]
    bits = np.concatenate(ends + seams + powers).astype(np.uint32)
    assert_same_bits(native_normal_of_bits(bits), normal_of_bits(bits))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    y0=st.integers(0, 2**32 - 20),
    x0=st.integers(0, 2**32 - 600),
    height=st.integers(0, 20),
    width=st.integers(0, 600),
    channels=st.integers(0, 5),
)
def test_twins_agree_anywhere(seed: int, step: int, y0: int, x0: int, height: int, width: int, channels: int) -> None:
    args = (seed, step, (y0, y0 + height), (x0, x0 + width), channels)
    assert_same_bits(filled(native_fill, *args), filled(noise._fill_numpy, *args))


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 1000])
def test_thread_count_changes_nothing(threads: int) -> None:
    out = np.full((3, 251, 601), np.nan, np.float32)
    library().pp_normal(11, 2, 7, 5, *out.shape, out, threads)
    assert_same_bits(out[np.newaxis], normal(11, 2, (7, 258), (5, 606)))


FIELD = normal(17, 1, (0, 96), (0, 200))


@FILLS
@settings(deadline=None)  # a busy machine is slow, not wrong
@given(data=st.data())
def test_a_tile_is_the_crop_of_the_field(fill: Callable[..., None], data: st.DataObject) -> None:
    y0, x0 = data.draw(st.integers(0, 96)), data.draw(st.integers(0, 200))
    y1, x1 = data.draw(st.integers(y0, 96)), data.draw(st.integers(x0, 200))
    assert_same_bits(filled(fill, 17, 1, (y0, y1), (x0, x1)), FIELD[0, :, y0:y1, x0:x1])


def test_wide_rows_are_made_in_parts() -> None:
    wide = (0, 5 * noise._NUMPY_CALLS + 3)
    assert_same_bits(filled(noise._fill_numpy, 1, 0, (8, 10), wide), filled(native_fill, 1, 0, (8, 10), wide))


def test_inverse_distribution_is_accurate() -> None:
    """Before rounding to float32; both branches, down to the ends."""
    q = np.concatenate([np.linspace(-0.5 + 2**-33, 0.5 - 2**-33, 200001), 0.5 - 2.0 ** -np.arange(2, 33)])
    central = np.abs(q) <= 0.425
    found = np.where(central, noise._central(q), noise._tail(q))
    exact = np.where(q < 0, stats.norm.ppf(0.5 + q), -stats.norm.ppf(0.5 - q))
    assert np.max(np.abs(found - exact) / np.maximum(np.abs(exact), 1e-300)) < 1e-9


def test_logarithm_is_accurate() -> None:
    r = np.concatenate([2.0 ** -np.linspace(2, 33, 100001), 2.0 ** -np.arange(2, 34)])
    assert np.max(np.abs(noise._log(r) / np.log(r) - 1)) < 4e-16


MILLION = normal(2024, 0, (0, 600), (0, 600)).astype(np.float64).ravel()


def test_moments() -> None:
    count = MILLION.size
    assert count >= 1e6
    for power, expected, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(np.mean(MILLION**power) - expected) < 4 * np.sqrt(variance / count)


def test_distribution() -> None:
    assert stats.kstest(MILLION, "norm").pvalue > 0.01


def test_neighbours_are_uncorrelated() -> None:
    field = normal(5, 0, (0, 512), (0, 512))[0].astype(np.float64)
    shifts = [(field[:, :, i:], field[:, :, :-i]) for i in (1, 2, 3, 4, 5)]
    shifts += [(field[:, i:], field[:, :-i]) for i in (1, 2)]
    for a, b in shifts:
        assert abs(np.mean(a * b)) < 4.5 / np.sqrt(a.size)


def test_seeds_steps_and_channels_are_uncorrelated() -> None:
    box = ((0, 256), (0, 256))
    draws = [(0, 0), (1, 0), (2**32, 0), (2**63, 0), (0, 1), (0, 2**31)]
    planes = np.concatenate([normal(seed, step, *box)[0] for seed, step in draws]).reshape(3 * len(draws), -1)
    correlation = np.corrcoef(np.vstack([planes, normal_vector(0, 0, 256 * 256)]).astype(np.float64))
    assert np.max(np.abs(correlation - np.eye(len(correlation)))) < 4.5 / 256


def test_normal_is_a_batch_of_one() -> None:
    field = normal(0, 0, (2, 7), (1, 4), channels=2)
    assert field.dtype == np.float32
    assert field.shape == (1, 2, 5, 3)


def test_12_megapixels_take_half_a_second_on_two_cores() -> None:
    """In processor time, which other work on the machine does not change: 2 x 0.5 s for 3 x 4000 x 3000 normals."""
    start = time.process_time()
    normal(1, 0, (0, 3000), (0, 4000))
    assert time.process_time() - start < 1.0


def test_without_the_library_numpy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = normal(3, 1, (0, 9), (0, 11))
    monkeypatch.setattr(noise, "library", lambda: None)
    monkeypatch.setattr(noise, "_fill_native", None)
    assert_same_bits(normal(3, 1, (0, 9), (0, 11)), expected)


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**70)])
def test_wrong_seed_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=f"got seed {seed}; choose a whole number from 0"):
        normal(seed, 0, (0, 1), (0, 1))


@pytest.mark.parametrize("step", [-1, 2**32])
def test_wrong_step_is_refused(step: int) -> None:
    with pytest.raises(UsageError, match=f"got step {step}"):
        normal_vector(0, step, 4)


@pytest.mark.parametrize("interval", [(-1, 4), (4, 3), (0, 2**32 + 1)])
def test_wrong_box_is_refused(interval: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="noise for rows"):
        normal(0, 0, interval, (0, 1))
    with pytest.raises(UsageError, match="noise for columns"):
        normal(0, 0, (0, 1), interval)
