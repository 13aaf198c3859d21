"""Verifying a pack: its files, then what it makes of its golden photos, fused and split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import GraphError, PackError, UnknownNameError
from pocketprior.core.pack.manifest import FILE, Golden, Manifest
from pocketprior.core.pack.store import packed_file, read_arrays, write_arrays
from pocketprior.core.restore.selftest import GoldenCheck, verify, write_golden
from support import packs


def test_a_good_pack(built_pack: Path) -> None:
    report = verify(built_pack)
    assert report.ok
    assert len(report.files) == 6
    assert report.goldens == (GoldenCheck("noisy", "fused", 0, 1), GoldenCheck("noisy", "split", 0, 1))


@pytest.mark.parametrize("file", ["denoise.onnx", "README.md", "golden/noisy.npz"])
def test_a_changed_file_is_named_and_nothing_is_run(pack: Path, file: str) -> None:
    (pack / file).write_bytes((pack / file).read_bytes() + b" ")
    report = verify(pack)
    assert not report.ok
    assert [check.file for check in report.files if check.problem] == [file]
    assert report.goldens == ()


def test_a_golden_photo_that_comes_out_otherwise(pack: Path, manifest: Manifest) -> None:
    arrays = read_arrays(pack / "golden/noisy.npz")
    restored = arrays["restored"].copy()
    restored[3, 5, 1] ^= 16
    packed = write_golden(pack, "golden/noisy.npz", photo=arrays["photo"], seed=7, strength=0.5, restored=restored)
    replace(manifest, golden={"noisy": Golden(packed, 15, "just too strict")}).save(pack)
    report = verify(pack)
    assert not report.ok
    assert {check.difference for check in report.goldens} == {16}
    replace(manifest, golden={"noisy": Golden(packed, 16, "just enough")}).save(pack)
    assert verify(pack).ok


def test_forms_that_a_pack_has_not_are_not_compared(tmp_path: Path) -> None:
    packs.build(tmp_path / "split", graphs=("encode", "predict", "denoise"))
    packs.build(tmp_path / "fused", graphs=("encode", "fused"))
    assert [check.form for check in verify(tmp_path / "split").goldens] == ["split"]
    assert [check.form for check in verify(tmp_path / "fused").goldens] == ["fused"]


def test_a_fused_graph_of_another_network_is_found(pack: Path, manifest: Manifest) -> None:
    (pack / "fused.onnx").write_bytes(packs.graph_bytes("fused", weights="other"))
    packs.rewrite(pack, manifest)
    report = verify(pack)
    assert {check.form: check.difference <= check.tolerance for check in report.goldens} == {
        "fused": False,
        "split": True,
    }


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    packs.build(tmp_path, nan="denoise", golden=False)
    golden = write_golden(tmp_path, "g.npz", **GOLDEN)
    replace(Manifest.load(tmp_path), golden={"g": Golden(golden, 255, "anything")}).save(tmp_path)
    with pytest.raises(GraphError, match=r"graph 'denoise', step 1 of 2.* not finite"):
        verify(tmp_path)


GOLDEN = {"photo": packs.photo(8, 8), "restored": packs.photo(8, 8), "seed": 2**64 - 1, "strength": 0.25}


def test_golden_files_keep_what_they_are_given(tmp_path: Path) -> None:
    packed = write_golden(tmp_path, "a/g.npz", **GOLDEN)
    assert packed == packed_file(tmp_path, "a/g.npz")
    arrays = read_arrays(tmp_path / "a/g.npz")
    assert int(arrays["seed"]) == 2**64 - 1
    assert float(arrays["strength"]) == 0.25


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"more": np.zeros(1)}, "expected .*photo.*restored"),
        ({"restored": packs.photo(9, 8)}, "differ in size or depth"),
        ({"restored": packs.photo(8, 8, np.uint16)}, "differ in size or depth"),
    ],
)
def test_a_golden_file_that_is_none(pack: Path, manifest: Manifest, change: dict[str, np.ndarray], words: str) -> None:
    arrays = {"photo": packs.photo(8, 8), "restored": packs.photo(8, 8), "seed": np.array(1), "strength": np.array(1.0)}
    write_arrays(pack / "g.npz", arrays | change)
    replace(manifest, golden={"g": Golden(packed_file(pack, "g.npz"), 255, "any")}).save(pack)
    with pytest.raises(PackError, match=words):
        verify(pack)


def test_comparing_nothing_is_a_failure(pack: Path) -> None:
    tree = json.loads((pack / FILE).read_text())
    tree["golden"] = {}
    (pack / FILE).write_text(json.dumps(tree))
    with pytest.raises(PackError, match="at least one"):
        verify(pack)


def test_an_unknown_runtime(built_pack: Path) -> None:
    with pytest.raises(UnknownNameError, match="choose one of: onnxruntime, openvino, replay"):
        verify(built_pack, "tensorrt")
