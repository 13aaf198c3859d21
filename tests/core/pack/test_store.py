"""Files of a pack: hashed, compared, found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pocketprior.core.errors import PackError, PackTamperedError
from pocketprior.core.pack import store as pack_module
from pocketprior.core.pack.manifest import Manifest, PackedFile
from pocketprior.core.pack.store import check_file, default_pack, packed_file


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
    with pytest.raises(PackError, match=r"no embedded pack.*name the folder of a pack"):
        default_pack()
