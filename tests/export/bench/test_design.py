from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.ndimage import uniform_filter

from pocketprior.core import cli
from pocketprior.core.models import checkpoints
from pocketprior.core.models.dtpm import DtpmConfig, Predictor, PredictorConfig
from pocketprior.export.bench.candidates import DESIGN_RUNTIMES, DesignCosts, FirstEstimate, TileSpeed, overlap_needed
from pocketprior.export.bench.design import _PHOTO_SIDE, DECISION_MARKS, MeasuredDesigns, kept_decision, plot
from pocketprior.export.limits import GREY_LEVEL
from support import packs

Array = NDArray[np.float32]


def trained(path: Path, widths: tuple[int, ...]) -> Path:
    """A checkpoint as training leaves it, of a predictor that does next to nothing."""
    torch.manual_seed(0)
    config = DtpmConfig(PredictorConfig("rep", widths, (1,) * len(widths)))
    model = Predictor(config.predictor)
    checkpoints.save(path, "predictor", config, model.state_dict(), {"task": "cleanup", "step": 3})
    return path


def denoiser(path: Path) -> Path:
    """A baseline: image + a convolution of 12 channels, that ignores its sigma but for adding a thousandth of it."""
    rng = np.random.default_rng(0)
    shapes = {"first": (12, 3, 3, 3), "last": (3, 12, 3, 3)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.05, s).astype(np.float32), n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.float32(1e-3), "thousandth"))
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["wide"], pads=[1] * 4),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("Conv", ["active", "last"], ["narrow"], pads=[1] * 4),
        helper.make_node("Mul", ["sigma", "thousandth"], ["little"]),
        helper.make_node("Add", ["narrow", "little"], ["change"]),
        helper.make_node("Add", ["image", "change"], ["restored"]),
    ]
    shapes = {"image": [1, 3, "h", "w"], "sigma": [1, 1, 1, 1]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("restored", TensorProto.FLOAT, shapes["image"])
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [output], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(packs.photo(_PHOTO_SIDE, _PHOTO_SIDE)).save(folder / "0.png")
    Image.fromarray(packs.photo(_PHOTO_SIDE - 1, _PHOTO_SIDE)).save(folder / "1.png")
    (folder / "manifest.csv").write_text("file,split,set,role,use\n0.png,val,s,clean,any\n1.png,val,s,clean,any\n")
    return folder


def test_the_page_shows_every_network_and_keeps_the_decision(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    small, large = (trained(tmp_path / f"{n}.safetensors", w) for n, w in (("s", (16,)), ("l", (16, 16))))
    page = tmp_path / "choice.md"
    page.write_text(f"# Old\n\n{DECISION_MARKS[0]}\nWe chose `small`:\nit is enough.\n{DECISION_MARKS[1]}\n")
    call = [
        "bench",
        "design",
        f"small={small}",
        f"large={large}",
        "--baseline",
        f"net={denoiser(tmp_path / 'net.onnx')}",
    ]
    options = ["--data", str(data), "--rounds", "1", "--tile", "160", "--keep", str(tmp_path / "kept"), "-o", str(page)]
    assert cli.main([*call, *options]) == 0
    text = page.read_text()
    assert "\nWe chose `small`:\nit is enough.\n" in text
    assert "mean over 1 validation photos" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    costs = {row[0]: row for row in rows[2:5]}
    assert list(costs) == ["small", "large", "net"]
    assert costs["net"][1:3] == ["0.6", "0.00"]  # 2 x 12 x 3 x 9 multiply-adds and weights
    assert float(costs["small"][1]) < float(costs["large"][1])
    assert float(costs["small"][3]) > float(costs["small"][4])
    assert all(row[7].count(" x)") == (name != "net") for name, row in costs.items())
    quality = {(row[0], row[1]): [float(cell) for cell in row[2:]] for row in rows[7:]}
    assert list(quality) == [(name, precision) for name in ("small", "large") for precision in ("fp32", "int8")]
    assert rows[5][2:] == [
        *(f"noise {s}" for s in (15, 25, 50)),
        "correlated 15",
        "JPEG 10",
        "JPEG 20",
        "JPEG 40",
        "mixed",
        "mean",
    ]
    assert np.allclose(quality["small", "fp32"], quality["small", "int8"], atol=0.5)
    assert min(quality["large", "fp32"]) > 10
    assert str(tmp_path) not in text
    assert "](choice.svg)" in text
    assert {path.name for path in (tmp_path / "kept/net").iterdir()} == {"int8.onnx", "int8.xml", "int8.bin"}
    assert b"QuantizeLinear" in (tmp_path / "kept/net/int8.onnx").read_bytes()


def blur(radius: int) -> Callable[[list[Array]], Array]:
    """A network of exactly this receptive field: the mean of a square, with zeros around the image."""
    size = (1, 1, 2 * radius + 1, 2 * radius + 1)
    return lambda feed: uniform_filter(feed[0].astype(np.float64), size, mode="constant").astype(np.float32)


@pytest.mark.parametrize(("radius", "multiple", "overlap"), [(3, 4, 8), (20, 4, 24), (20, 16, 32), (60, 1, 64)])
def test_the_overlap_is_the_least_that_the_receptive_field_needs(radius: int, multiple: int, overlap: int) -> None:
    found, error = overlap_needed(blur(radius), [packs.photo(288, 320, seed=i) for i in range(2)], multiple)
    assert found == overlap
    assert error <= GREY_LEVEL


def test_what_no_overlap_can_hold_says_how_far_off_it_is() -> None:
    """A network that adds the mean of all it sees, on an image with a dark border."""
    image = packs.photo(288, 320)
    image[:40] = 0
    found, error = overlap_needed(lambda feed: feed[0] + feed[0].mean(), [image], 4)
    top, left = (288 - 128) // 2 // 4 * 4 - 64, (320 - 128) // 2 // 4 * 4 - 64
    expected = abs(image[top : top + 256, left : left + 256].mean() - image.mean())
    assert found == 64
    assert error == pytest.approx(expected, abs=0.01)


def test_the_base_is_the_first_of_several_results() -> None:
    class Two(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image + 1, image + 2

    image = torch.zeros(1, 3, 4, 4)
    assert torch.equal(FirstEstimate(Two())(image), image + 1)
    assert torch.equal(FirstEstimate(torch.nn.Identity())(image), image)


def test_the_plot_has_a_panel_per_runtime_and_the_speed_of_baselines() -> None:
    speeds = {(name, runtime): TileSpeed(2.0, 1.0) for name in ("A", "net") for runtime in DESIGN_RUNTIMES}
    quality = {("A", precision): {"noise 25": 30.0} for precision in ("fp32", "int8")}
    svg = plot(
        MeasuredDesigns(
            {name: DesignCosts(20, 1000, 10, 5) for name in ("A", "net")},
            {"A": (8, 0.0), "net": (16, 0.0)},
            speeds,
            quality,
        )
    )
    words = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    for word in (*DESIGN_RUNTIMES, "candidates"):
        assert words.count(word) == 1
    assert [words.count(word) for word in ("A", "net", "2.5 x net")] == [4, 4, 4]


def test_a_page_without_marks_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes")
    assert cli.main(["bench", "design", "a=b", "--data", str(tmp_path), "-o", str(tmp_path / "notes.md")]) == 2
    assert kept_decision(tmp_path / "new.md") == "Not made yet."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a"], "such as A=runs/a/model.safetensors"),
        (["a=b", "a=c"], "each network needs a name of its own, got a, a"),
        (["a=b", "--tile", "100"], "a multiple of 16 from 160"),
    ],
)
def test_wrong_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert cli.main(["bench", "design", *options, "--data", str(tmp_path), "-o", str(tmp_path / "p.md")]) == 2
    assert message in capsys.readouterr().err


def test_data_without_large_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(packs.photo(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text("file,split,set,role,use\na.png,val,s,clean,any\n")
    assert cli.main(["bench", "design", "a=b", "--data", str(tmp_path), "-o", str(tmp_path / "p.md")]) == 2
    assert "no released validation photo of 512 x 512 pixels" in capsys.readouterr().err
