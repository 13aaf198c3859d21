"""Graphs whose weights lie beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pocketprior.core.errors import PackTamperedError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.io import read
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.export.targets import onnx_file
from pocketprior.export.writer.pack import PackOptions, write_pack
from support.small_models import PHOTOS, source_of


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model, its weights in the files and beside them."""
    folder = tmp_path_factory.mktemp("packs")
    for name, least in (("within", onnx_file.LARGE_GRAPH), ("beside", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx_file, "LARGE_GRAPH", least)
            source = source_of("gen2res", folder)
            write_pack(source, folder / name, PHOTOS[:1], PackOptions(name="x", precisions=("fp32", "w8")))
    return folder / "within", folder / "beside"


def test_weights_lie_beside(packs: tuple[Path, Path]) -> None:
    manifest = Manifest.load(packs[1])
    for label, parts in manifest.graphs["denoise"].parts["onnx"].items():
        file = manifest.graphs["denoise"].files["onnx"][label].file
        assert [part.file for part in parts] == [f"{file}.data"]
        alone = onnx.load(packs[1] / file, load_external_data=False)
        assert (packs[1] / file).stat().st_size < (packs[0] / file).stat().st_size
        places = {entry.value for t in alone.graph.initializer for entry in t.external_data if entry.key == "location"}
        assert places == {f"{file}.data"}
    assert not Manifest.load(packs[0]).graphs["denoise"].parts


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_does_the_same(packs: tuple[Path, Path], runtime: str) -> None:
    photo = np.ascontiguousarray(read(PHOTOS[0]).pixels[:64, :64])
    within, beside = (Restorer.from_pack(pack, runtime=runtime, threads=1)(photo) for pack in packs)
    assert np.array_equal(within, beside)
    assert verify(packs[1], runtime).ok


def test_weights_that_were_changed(packs: tuple[Path, Path]) -> None:
    path = packs[1] / "denoise.onnx.data"
    weights = path.read_bytes()
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    try:
        with pytest.raises(PackTamperedError, match=r"denoise\.onnx\.data"):
            Restorer.from_pack(packs[1])
    finally:
        path.write_bytes(weights)
