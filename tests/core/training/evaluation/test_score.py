from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketprior.core.degradations import TASKS
from pocketprior.core.errors import UsageError
from pocketprior.core.training.evaluation.score import METRICS, MethodFigures, ResultTable, cases, measure, square


def photo(height: int = 200, width: int = 210) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.random((height // 10 + 1, width // 10 + 1, 3)).repeat(10, axis=0).repeat(10, axis=1)
    return (smooth[:height, :width] * 255).astype(np.uint8)


def test_square_is_the_centre() -> None:
    pixels = photo(5, 8)
    assert np.array_equal(square(pixels, 4), pixels[0:4, 2:6])
    with pytest.raises(UsageError, match="at least 9 x 9 pixels, got 8 x 5"):
        square(pixels, 9)


def test_damage_depends_on_the_place_in_the_list_alone() -> None:
    first, second = cases([photo(), photo()], "noise")
    again = cases([photo()], "noise")[0]
    assert np.array_equal(first.damaged, again.damaged)
    assert not np.array_equal(first.damaged, second.damaged)


def test_figures_are_means_over_the_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "one", lambda restored, _: float(restored.mean()))
    found = cases([photo(), photo()[::-1]], "noise")
    row = measure("input", lambda case: case.image, found)
    single = [measure("input", lambda case: case.image, [case]) for case in found]
    assert set(row.values) == {*METRICS}
    assert row.values["PSNR"] == pytest.approx((single[0].values["PSNR"] + single[1].values["PSNR"]) / 2)
    assert row.values["one"] == pytest.approx(np.mean([case.damaged.mean() for case in found]))


def test_result_out_of_range_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = cases([photo()], "noise")
    seen = []
    monkeypatch.setitem(METRICS, "range", lambda restored, _: float(seen.append(restored) or 0))
    measure("wild", lambda c: c.image * 5 - 2, [case])
    expected = torch.from_numpy(case.damaged.astype(np.float32) / 255 * 5 - 2).clamp(0, 1).numpy()
    assert np.abs(seen[0] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_change_is_of_one_method_over_another() -> None:
    table = ResultTable("t", [MethodFigures("a", {"PSNR": 20.0}), MethodFigures("b", {"PSNR": 23.0})], ())
    assert table.change("PSNR", "b", "a") == 3.0


def test_undamaged_input_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    damages = iter([lambda x, _: x, lambda x, _: 1 - x])
    monkeypatch.setitem(TASKS, "noise", lambda x, rng: next(damages)(x, rng))
    assert np.array_equal(cases([photo()], "noise")[0].damaged, 255 - photo())


def test_photo_that_a_task_never_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "noise", lambda x, _: x)
    with pytest.raises(UsageError, match="photo 1 as it is"):
        cases([photo()], "noise")


def test_differences_are_paired() -> None:
    """Photos differ by 30 dB, the methods by 0.1 dB on each: the interval is as narrow as the methods' difference."""
    first = tuple(20.0 + 5 * i for i in range(7))
    second = tuple(value + 0.1 + 0.01 * (i % 2) for i, value in enumerate(first))
    rows = [
        MethodFigures(name, {"PSNR": sum(each) / 7}, {"PSNR": each}) for name, each in (("a", first), ("b", second))
    ]
    table = ResultTable("t", rows, ())
    found = table.difference("PSNR", "b", "a")
    assert found.mean == pytest.approx(table.change("PSNR", "b", "a"))
    assert 0.1 < found.low < found.mean < found.high < 0.11
    assert table.compared("PSNR", "b", "a") == "PSNR, b minus a: +0.10 (95 % interval +0.10 to +0.11, 7 photos)."


def test_row_holds_the_figure_of_each_photo() -> None:
    found = cases([photo(), photo()[::-1]], "noise")
    row = measure("input", lambda case: case.image, found)
    single = [measure("input", lambda case: case.image, [case]).values["PSNR"] for case in found]
    assert list(row.each["PSNR"]) == single
