"""`pocketprior personalize`: from an album to a pack that restores."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core import cli
from pocketprior.core.arrays import to_batch, to_image
from pocketprior.core.errors import CheckpointError, TrainingError
from pocketprior.core.models import checkpoints, gen2res
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo
from pocketprior.core.restore.noise_sigma import noise_sigma
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.training.gen2res.base import CONSTRAIN_STAGE
from pocketprior.export.commands import personalize
from pocketprior.export.personal import PersonalizeOptions, constrain

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = replace(gen2res.CONFIGS["mobile"], widths=(8, 16, 16), embedding=16, groups=4)
SHORT = ["batch=2", "crop=32", "precision=fp32"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    denoiser = gen2res.Denoiser(TINY)
    for parameter in denoiser.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp("base") / "model.safetensors"
    checkpoints.save(path, "gen2res", TINY, denoiser.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for i, path in enumerate(sorted(EXAMPLES.glob("*.jpg"))[:2]):
        write(Photo(np.ascontiguousarray(read(path).pixels[:150, :130])), folder / f"{i}.png")
    return folder


def noisy(photo: np.ndarray) -> np.ndarray:
    noise = 15 * np.random.default_rng(0).standard_normal(photo.shape)
    return np.clip(np.round(photo + noise), 0, 255).astype(np.uint8)


def call(album: Path, pack: Path, base: Path, *more: str) -> int:
    settings = [word for setting in SHORT for word in ("--set", setting)]
    options = ["--base", str(base), "--steps", "2", "--sampling-steps", "2", "--workers", "0", *settings]
    return cli.main(["personalize", str(album), "-o", str(pack), *options, *more])


@pytest.fixture(scope="module")
def pack(album: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "grandma"
    assert call(album, folder, base) == 0
    return folder


def test_an_album_becomes_a_pack_that_restores(pack: Path, album: Path) -> None:
    manifest = Manifest.load(pack)
    assert (manifest.name, manifest.model, manifest.start) == ("grandma", "gen2res", "image")
    assert (manifest.sampler, manifest.times, manifest.start_level) == ("ddim", (0.3, 0.075), 1.0)
    photo = noisy(read(album / "0.png").pixels)
    restored = Restorer.from_pack(pack, threads=1)(photo, seed=1)
    assert restored.shape == photo.shape
    assert not np.array_equal(restored, photo)


def test_the_pack_does_what_the_constrained_checkpoint_does(pack: Path) -> None:
    """The graph against the denoiser with its factors multiplied in."""
    checkpoint = checkpoints.load(pack.with_name("grandma.run") / "model.safetensors", "gen2res")
    assert checkpoint.config["lora"] == CONSTRAIN_STAGE.recipe.rank
    denoiser = gen2res.build(checkpoint)
    x, t = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2])
    graph = Restorer.from_pack(pack, graphs="split", threads=1).graphs["denoise"]
    (eps,) = graph(x=x.numpy(), t=t.numpy()).values()
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(eps), denoiser(x, t)[:, :3], rtol=1e-3, atol=1e-4)


def test_the_pipeline_restores_as_the_reference_in_torch_does(pack: Path) -> None:
    """The same photo and levels: within a grey level."""
    manifest = Manifest.load(pack)
    denoiser = gen2res.build(checkpoints.load(pack.with_name("grandma.run") / "model.safetensors", "gen2res"))
    photo = noisy(np.ascontiguousarray(read(sorted(EXAMPLES.glob("*.jpg"))[0]).pixels[:256, :256]))

    def noise(number: int) -> torch.Tensor:
        raise AssertionError(f"noise {number} was added")

    with torch.no_grad():
        image = torch.from_numpy(to_batch(photo))
        expected = gen2res.restore(
            denoiser,
            image,
            noise,
            manifest.levels,
            manifest.times,
            manifest.sampler,
            start_level=manifest.start_level,
            sigma=noise_sigma(photo) / 255,
        )
    found = Restorer.from_pack(pack, threads=1)(photo, seed=7)
    assert int(np.abs(found.astype(int) - to_image(expected.numpy(), np.uint8)).max()) <= 1


def test_an_existing_pack_is_refused_before_any_training(
    pack: Path, album: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(album, pack, base, "--steps", "100000") == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--level", "5000"), 2, "choose a level from 1 to 1000"),
        (("--sampling-steps", "301"), 2, "no more steps than that"),
        (("-o", "file/pack", "--run", "run"), 1, "the folder file cannot be made"),
    ],
)
def test_what_the_pack_cannot_be_is_said_before_any_training(
    options: tuple[str, ...],
    code: int,
    words: str,
    album: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert call(album, Path("pack"), base, "--steps", "100000", *options) == code
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_card_claims_photos_for_the_base_that_comes_along_alone(pack: Path) -> None:
    assert "does not say which photos" in (pack / "CARD.md").read_text(encoding="utf-8")
    assert "CID22" in gen2res.SHIPPED_BASE.with_name("PHOTOS.md").read_text(encoding="utf-8")


def test_a_finished_training_is_not_done_again(album: Path, base: Path, tmp_path: Path) -> None:
    recipe = replace(CONSTRAIN_STAGE.recipe, steps=2).with_settings(SHORT)
    photos = sorted(album.glob("*.png"))
    first = constrain(photos, base, recipe, tmp_path / "run", workers=0)
    made = first.stat().st_mtime_ns
    assert constrain(photos, base, recipe, tmp_path / "run", workers=0) == first
    assert first.stat().st_mtime_ns == made
    with pytest.raises(TrainingError):
        constrain(photos[:1], base, recipe, tmp_path / "run", workers=0)


def test_generated_albums_are_mirrored(
    album: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: the command knows which albums were generated."""
    seen = []

    def stop(_photos: object, _base: object, recipe: object, *_: object, **__: object) -> None:
        seen.append(recipe.mirror)
        raise KeyboardInterrupt

    monkeypatch.setattr("pocketprior.export.personal.constrain", stop)
    generated = Path(shutil.copytree(album, tmp_path / "generated"))
    (generated / "album.json").write_text("{}")
    assert [call(folder, tmp_path / "pack", base) for folder in (album, generated)] == [130, 130]
    assert seen == [False, True]


def test_an_album_is_generated_around_a_photo_first(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the training; the same command goes on to it with the album that is there."""
    write(Photo(np.random.default_rng(0).integers(0, 256, (80, 72, 3), np.uint8)), tmp_path / "old.png")
    seen = []

    def stop(photos: list[Path], _base: object, recipe: object, *_: object, **__: object) -> None:
        seen.append((len(photos), recipe.mirror))
        raise KeyboardInterrupt

    monkeypatch.setattr("pocketprior.export.personal.constrain", stop)
    options = ["--around", str(tmp_path / "old.png"), "--base", str(base), "--album-count", "2", "--album-steps", "1"]
    for _ in range(2):
        assert cli.main(["personalize", "-o", str(tmp_path / "pack"), *options]) == 130
    assert seen == [(2, True)] * 2
    assert sorted(p.name for p in (tmp_path / "pack.album").iterdir()) == ["00.png", "01.png", "album.json"]


def test_without_album_and_photo_it_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["personalize", "-o", str(tmp_path / "pack")]) == 2
    assert "with --around" in capsys.readouterr().err


def test_the_options_of_the_album_are_those_of_its_class() -> None:
    parser = argparse.ArgumentParser()
    personalize.add_arguments(parser)
    args = parser.parse_args(["album", "-o", "pack"])
    assert personalize._options(args) == PersonalizeOptions()  # the same defaults, declared without torch


def test_bad_albums_are_refused(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "album").mkdir()
    assert call(tmp_path / "album", tmp_path / "pack", base) == 2
    assert "photos under" in capsys.readouterr().err
    write(Photo(np.zeros((40, 500, 3), np.uint8)), tmp_path / "album/small.png")
    assert call(tmp_path / "album", tmp_path / "pack", base) == 1
    assert "smaller than the crop" in capsys.readouterr().err
    (tmp_path / "album/broken.jpg").write_bytes(b"no photo")
    assert call(tmp_path / "album", tmp_path / "pack", base) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


def test_photos_that_are_too_small_are_counted(
    album: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.png"
    write(Photo(np.zeros((40, 500, 3), np.uint8)), small)
    recipe = replace(CONSTRAIN_STAGE.recipe, steps=1).with_settings(SHORT)
    constrain([*sorted(album.glob("*.png")), small], base, recipe, tmp_path / "run", workers=0)
    assert "left out 1 of 3 photos" in capsys.readouterr().err


def test_without_a_base_it_says_how_to_get_one(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gen2res, "SHIPPED_BASE", tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="train gen2res base"):
        constrain(sorted(album.glob("*.png")), None, CONSTRAIN_STAGE.recipe, tmp_path / "run")
