from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from pocketprior.core.metrics import NiqeModel, niqe

ROOT = Path(__file__).parents[2]
main = runpy.run_path(str(ROOT / "scripts/fit_niqe.py"))["main"]


@pytest.fixture
def data(tmp_path):
    """Three crops of an example, one of them not free for any use."""
    dog = PilImage.open(ROOT / "examples/dog.jpg")
    rows = ["file,split,set,role,use"]
    for i, use in enumerate(("any", "any", "non-commercial")):
        dog.crop((300 + 96 * i, 300, 492 + 96 * i, 492)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,train,made,clean,{use}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_fits_the_free_photos_and_names_them(data, capsys):
    out = data / "model.npz"
    assert main(["--data", str(data), "--out", str(out)]) == 0
    model = NiqeModel.load(out)
    lines = sorted(hashlib.sha256((data / f"{i}.png").read_bytes()).hexdigest() + "\n" for i in (0, 1))
    assert model.photos_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert 2 <= model.patches <= 8
    image = np.asarray(PilImage.open(data / "0.png"))
    assert niqe(image, model) < niqe(image[::-1] // 2 + np.uint8(60) * (image % 2), model)
    assert str(model.patches) in capsys.readouterr().err


def test_same_photos_give_the_same_bytes(data):
    for name in ("a.npz", "b.npz"):
        main(["--data", str(data), "--out", str(data / name)])
    assert (data / "a.npz").read_bytes() == (data / "b.npz").read_bytes()


def test_no_photos_is_a_usage_error(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "model.npz")]) == 2
    assert "manifest.csv" in capsys.readouterr().err
    assert not (tmp_path / "model.npz").exists()
