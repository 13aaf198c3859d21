"""Files of a pack: hashed, compared, found."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import PackError, PackTamperedError
from pocketprior.core.pack import store as pack_module
from pocketprior.core.pack.manifest import Manifest, PackedFile
from pocketprior.core.pack.store import check_file, default_pack, packed_file, read_arrays, write_arrays


def test_entry_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/x.bin").write_bytes(b"abc" * 1000)
    digest = hashlib.sha256(b"abc" * 1000).hexdigest()
    assert packed_file(tmp_path, "deep/x.bin") == PackedFile("deep/x.bin", digest, 3000)


def test_the_files_of_a_pack_are_what_was_packed(pack: Path, manifest: Manifest) -> None:
    for packed in manifest.files():
        check_file(pack, packed)


@pytest.mark.parametrize("flip", [0, 100, -1])
def test_one_bit_is_enough(pack: Path, manifest: Manifest, flip: int) -> None:
    packed = manifest.graph_file("denoise", "onnx")
    content = bytearray((pack / packed.file).read_bytes())
    content[flip] ^= 1
    (pack / packed.file).write_bytes(content)
    with pytest.raises(PackTamperedError, match=r"denoise.onnx was changed after packing.*copy the pack again"):
        check_file(pack, packed)


def test_another_length_is_said(pack: Path, manifest: Manifest) -> None:
    packed = manifest.graph_file("denoise", "onnx")
    (pack / packed.file).write_bytes((pack / packed.file).read_bytes()[:500])
    with pytest.raises(PackTamperedError, match=f"it has 500 bytes .* the manifest says {packed.bytes} bytes"):
        check_file(pack, packed)


def test_a_file_that_is_gone(pack: Path, manifest: Manifest) -> None:
    (pack / "denoise.onnx").unlink()
    with pytest.raises(PackError, match=r"denoise.onnx of the pack cannot be read"):
        check_file(pack, manifest.graph_file("denoise", "onnx"))


def test_the_embedded_pack_is_beside_the_code() -> None:
    expected = Path(pack_module.__file__).parents[1] / "packs" / "cleanup"
    assert default_pack() == expected


def test_without_an_embedded_pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pack_module, "_DEFAULT", tmp_path / "cleanup")
    with pytest.raises(PackError, match=r"no embedded pack.*give the folder of a pack"):
        default_pack()


ARRAYS = {
    "photo": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "deep/name": np.float32([[1.5, -2.0]]),
    "number": np.array(7, np.uint64),
}


def test_there_and_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    found = read_arrays(tmp_path / "a.npz")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    write_arrays(tmp_path / "b.npz", dict(reversed(ARRAYS.items())))
    os.utime(tmp_path / "a.npz", (1, 1))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    flipped = ARRAYS["photo"][::-1, ::2]
    write_arrays(tmp_path / "a.npz", {"x": flipped})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["x"], flipped)


def test_numpy_reads_it_without_us(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz") as archive:
        assert sorted(archive.files) == sorted(ARRAYS)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text"])
def test_what_is_no_recording(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PackError, match="copy the pack again"):
        read_arrays(tmp_path / "a.npz")


def test_a_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")


def test_a_single_array_is_no_recording(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, ARRAYS["photo"])
    with pytest.raises(PackError, match="cannot be read"):
        read_arrays(tmp_path / "a.npz")
