from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from pocketprior.core.degradations.fixed import DAMAGES
from pocketprior.core.errors import UsageError
from pocketprior.runtimes.bench.trials import (
    REAL_NOISE,
    bench_set,
    centres,
    evenly,
    has_real,
    in_folder,
    load,
    real_trial,
    trials,
    validation_set,
)
from support import packs

PHOTO = packs.photo(100, 200)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(path)
    return path


def test_evenly():
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 7) == evenly(range(3), None) == [0, 1, 2]
    assert evenly(range(3), 0) == []


def test_photos_of_a_data_folder(tmp_path):
    rows = ["file,split,set,role,use"]
    rows += [f"test/bsd100/{i:03}.png,test,B,clean,any" for i in range(48)]
    rows += ["test/mcmaster/1.png,test,M,clean,any", "test/other/1.png,test,O,clean,any"]
    rows += ["hq/cid22_val/1.png,val,C,clean,any", "test/bsd100/x.png,val,B,clean,any"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    names = [path.relative_to(tmp_path / "test").as_posix() for path in bench_set(tmp_path)]
    assert names == [*(f"bsd100/{i:03}.png" for i in range(0, 48, 2)), "mcmaster/1.png"]
    assert validation_set(tmp_path) == [tmp_path / "hq/cid22_val/1.png"]


def test_photos_of_any_folder(tmp_path):
    save(tmp_path / "b/2.png", PHOTO)
    save(tmp_path / "1.png", PHOTO)
    (tmp_path / "notes.txt").write_text("no photo")
    assert [path.name for path in in_folder(tmp_path)] == ["1.png", "2.png"]
    with pytest.raises(UsageError, match="there are no photos in"):
        in_folder(tmp_path / "none")


def test_load(tmp_path):
    photo = load(save(tmp_path / "set/a.png", PHOTO))
    assert photo.name == "set/a"
    assert np.array_equal(photo.pixels, PHOTO)
    with pytest.raises(UsageError, match="191 x 100"):
        load(save(tmp_path / "small.png", PHOTO[:, :191]))


def test_trials_damage_all_photos_alike(tmp_path):
    photos = [load(save(tmp_path / "set/a.png", PHOTO)), load(save(tmp_path / "set/b.png", PHOTO[::-1]))]
    first, second = trials(photos, photos[:1], DAMAGES[1:3])
    assert [(t.damage, t.sigma, len(t.pairs), len(t.tuning)) for t in (first, second)] == [
        ("noise 25", 25, 2, 1),
        ("noise 50", 50, 2, 1),
    ]
    assert first.pairs[1].name == "set/b"
    assert np.array_equal(first.pairs[1].damaged, DAMAGES[1](PHOTO[::-1]))


def test_real_pairs_are_measured_on_one_split_and_tuned_on_another(tmp_path):
    rows = ["file,split,set,role,use,pair_gt"]
    for i in range(20):
        folder, split = tmp_path / "paired/denoise_polyu", "val" if i < 12 else "train"
        save(folder / f"lq/{i:02}.png", PHOTO // 2 + i)
        save(folder / f"gt/{i:02}.png", PHOTO)
        rows.append(f"paired/denoise_polyu/lq/{i:02}.png,{split},P,lq,any,paired/denoise_polyu/gt/{i:02}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    assert has_real(tmp_path)
    trial = real_trial(tmp_path)
    assert (trial.damage, trial.sigma) == (REAL_NOISE, None)
    assert [pair.name for pair in trial.pairs] == [f"gt/{i:02}" for i in (0, 1, 3, 4, 6, 7, 9, 10)]
    assert [pair.name for pair in trial.tuning] == [f"gt/{i:02}" for i in range(12, 20)]
    assert np.array_equal(trial.pairs[2].true, PHOTO)
    assert np.array_equal(trial.pairs[2].damaged, PHOTO // 2 + 3)
    assert len(real_trial(tmp_path, 2).pairs) == 2


def test_data_without_real_pairs(tmp_path):
    (tmp_path / "manifest.csv").write_text("file,split,set,role,use\na.png,val,A,lq,any\n")
    assert not has_real(tmp_path)


def test_centres_are_cut_after_the_damage(tmp_path):
    photos = [load(save(tmp_path / "set/a.png", PHOTO))]
    (trial,) = trials(photos, photos, DAMAGES[:1])
    ((_, true, damaged),) = centres(trial.tuning, 50)
    assert np.array_equal(true, PHOTO[25:75, 75:125])
    assert np.array_equal(damaged, DAMAGES[0](PHOTO)[25:75, 75:125])
    ((_, whole, _),) = centres(trial.tuning, 500)
    assert whole.shape == PHOTO.shape
