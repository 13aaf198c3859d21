"""restore, info and verify, run as the command line runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.arguments import size_in_bytes
from pocketprior.core.cli import main
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.store import default_pack
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo
from pocketprior.core.photo.resize import _GAP
from pocketprior.core.restore import batch
from pocketprior.core.restore.restorer import Restorer
from support import packs

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(packs.photo(40, 52)).save(path)
    return path


class TestRestore:
    def test_does_what_the_library_does(self, photo: Path, built_pack: Path, fused: Restorer, capsys: Captured) -> None:
        options = ["--strength", "0.7", "--seed", "9", "--task", "cleanup"]
        assert main(["restore", str(photo), "--pack", str(built_pack), *options]) == 0
        restored = read(photo.with_name("a.restored.png")).pixels
        expected = fused(read(photo).pixels, strength=0.7, seed=9)
        assert np.abs(restored.astype(int) - expected.astype(int)).max() <= 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"pocketprior: '{photo.with_name('a.restored.png')}' is done: 52 x 40 pixels, 1 tile")

    def test_twice_gives_the_same_bytes(self, photo: Path, built_pack: Path, tmp_path: Path) -> None:
        for name in ("x.png", "y.png"):
            assert main(["restore", str(photo), "--pack", str(built_pack), "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()

    def test_overwrite_replaces_the_result_alone(self, photo: Path, built_pack: Path) -> None:
        before = photo.read_bytes()
        result = photo.with_name("a.restored.png")
        result.write_bytes(b"old")
        assert main(["restore", str(photo), "--pack", str(built_pack), "--overwrite"]) == 0
        assert read(result).size == (40, 52)
        assert photo.read_bytes() == before

    def test_compare(self, photo: Path, built_pack: Path) -> None:
        assert main(["restore", str(photo), "--pack", str(built_pack), "--compare"]) == 0
        image = read(photo.with_name("a.compare.png")).pixels
        assert image.shape == (40, 2 * 52 + _GAP, 3)
        np.testing.assert_array_equal(image[:, :52], read(photo).pixels)
        np.testing.assert_array_equal(image[:, -52:], read(photo.with_name("a.restored.png")).pixels)

    def test_json_is_all_of_stdout(self, photo: Path, built_pack: Path, capsys: Captured) -> None:
        assert main(["restore", str(photo), "--pack", str(built_pack), "--json", "--tile", "96"]) == 0
        report = json.loads(capsys.readouterr().out)
        (one,) = report.pop("photos")
        assert report == {
            "pack": "tiny-cleanup",
            "task": "cleanup",
            "runtime": "onnxruntime",
            "strength": 1.0,
            "amount": 1.0,
            "noise": None,
            "seed": 0,
        }
        assert one.pop("seconds") > 0
        assert one == {
            "photo": str(photo),
            "state": "restored",
            "output": str(photo.with_name("a.restored.png")),
            "compare": None,
            "height": 40,
            "width": 52,
            "tiles": 1,
            "notices": [],
            "error": "",
            "code": 0,
        }

    def test_a_folder_to_a_folder(self, photo: Path, built_pack: Path, tmp_path: Path) -> None:
        (photo.parent / "in/deep").mkdir(parents=True)
        Image.fromarray(packs.photo(8, 8)).save(photo.parent / "in/deep/b.jpg")
        arguments = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "new/out"), "--pack", str(built_pack)]
        assert main(arguments) == 0
        assert read(tmp_path / "new/out/deep/b.jpg").size == (8, 8)

    def test_earlier_results_are_left_out_aloud(self, photo: Path, built_pack: Path, capsys: Captured) -> None:
        assert main(["restore", str(photo.parent), "--pack", str(built_pack)]) == 0
        assert main(["restore", str(photo.parent), "--pack", str(built_pack), "--overwrite"]) == 0
        assert "1 earlier results, such as " in capsys.readouterr().err
        assert len(list(photo.parent.glob("*.png"))) == 2

    def test_resume_keeps_what_is_there(self, photo: Path, built_pack: Path, capsys: Captured) -> None:
        photo.with_name("a.restored.png").write_bytes(b"finished before")
        assert main(["restore", str(photo), "--pack", str(built_pack), "--resume", "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["photos"][0]["state"] == "kept"
        assert "exists and is kept" in err
        assert photo.with_name("a.restored.png").read_bytes() == b"finished before"

    def test_notices_are_told(self, tmp_path: Path, built_pack: Path, capsys: Captured) -> None:
        write(Photo(packs.photo(8, 8, np.uint16)), tmp_path / "deep.png")
        arguments = ["restore", str(tmp_path / "deep.png"), "-o", str(tmp_path / "shallow.jpg")]
        assert main([*arguments, "--pack", str(built_pack), "--json"]) == 0
        out, err = capsys.readouterr()
        (notice,) = json.loads(out)["photos"][0]["notices"]
        assert f"note: '{tmp_path / 'deep.png'}': {notice}" in err

    def test_the_bar_is_for_terminals(
        self, photo: Path, built_pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert main(["restore", str(photo), "--pack", str(built_pack)]) == 0
        assert "1/1 a.png:   0%" in capsys.readouterr().err

    def test_ctrl_c_between_photos(
        self, photo: Path, built_pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        Image.fromarray(packs.photo(8, 8)).save(photo.with_name("b.png"))

        def interrupted(photo: Photo, path: Path, *, overwrite: bool, quality: int | None) -> tuple[str, ...]:
            if path.name == "b.restored.png":
                raise KeyboardInterrupt
            return write(photo, path, overwrite=overwrite, quality=quality)

        monkeypatch.setattr(batch, "write", interrupted)
        assert main(["restore", str(photo.parent), "--pack", str(built_pack), "--json"]) == 130
        out, err = capsys.readouterr()
        assert "interrupted: 1 of 2 photos are done; --resume continues" in err
        assert [one["state"] for one in json.loads(out)["photos"]] == ["restored"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("700MB", 700_000_000),
        ("700mb", 700_000_000),
        ("1GiB", 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("4096", 4096),
        ("2KB", 2000),
        ("3KiB", 3072),
        ("1GB", 10**9),
        ("17MiB", 17 * 2**20),
        ("5B", 5),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


class TestInfo:
    def test_for_people(self, built_pack: Path, capsys: Captured) -> None:
        assert main(["info", str(built_pack)]) == 0
        out = capsys.readouterr().out
        for words in (str(built_pack), "tiny-cleanup", "cleanup", "2 (ddim)", "multiples of 4", "fp32", "made by"):
            assert words in out

    def test_for_programs(self, built_pack: Path, manifest: Manifest, capsys: Captured) -> None:
        assert main(["info", str(built_pack), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["path"] == str(built_pack)
        assert facts["steps"] == 2
        assert facts["levels"] == list(manifest.levels)
        assert facts["bytes"] == sum(packed.bytes for packed in manifest.files())

    def test_of_the_embedded_pack(self, capsys: Captured) -> None:
        assert main(["info", "--default"]) == 0
        assert str(default_pack()) in capsys.readouterr().out


class TestVerify:
    def test_for_people(self, built_pack: Path, capsys: Captured) -> None:
        assert main(["verify", str(built_pack)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6 + 2 + 1
        assert lines[-1] == f"{built_pack} is what was packed"
        assert all(line.startswith("ok  ") for line in lines[:-1])

    def test_for_programs(self, built_pack: Path, capsys: Captured) -> None:
        assert main(["verify", str(built_pack), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is True
        assert report["runtime"] == "onnxruntime"
        assert [golden["form"] for golden in report["goldens"]] == ["fused", "split"]
