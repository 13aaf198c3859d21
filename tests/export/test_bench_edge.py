from __future__ import annotations

from pathlib import Path

import packs
import pytest
import torch
from PIL import Image

from pocketprior.core import cli
from pocketprior.core.models import checkpoints
from pocketprior.core.models.dtpm import DtpmConfig, Predictor, PredictorConfig
from pocketprior.export.bench_edge import METRICS, RUNTIMES, SIDE

LIST = "file,split,set,role,use\n"


def trained(folder: Path, body: str, task: str = "cleanup") -> Path:
    """A run folder as training leaves it, of a predictor that does next to nothing."""
    folder.mkdir()
    torch.manual_seed(0)
    config = DtpmConfig(PredictorConfig(body, (16, 16), (1, 1)))
    model = Predictor(config.predictor)
    facts = {"task": task, "step": 3}
    checkpoints.save(folder / "model.safetensors", "predictor", config, model.state_dict(), facts)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for seed, split in enumerate(("train", "val")):
        Image.fromarray(packs.photo(SIDE, SIDE, seed=seed)).save(folder / f"{seed}.png")
        rows.append(f"{seed}.png,{split},s,clean,any\n")
    (folder / "manifest.csv").write_text(LIST + "".join(rows))
    return folder


def test_page_compares_the_blocks_in_every_runtime(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    runs = [str(trained(tmp_path / body, body)) for body in ("rep", "naf-edge")]
    page = tmp_path / "page.md"
    assert cli.main(["bench-edge", *runs, "--data", str(data), "-o", str(page)]) == 0
    text = page.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0]] == ["block", "runtime", "ms", "over fp32", *METRICS]
    measured = {(block.strip(), runtime.strip()): float(psnr) for block, runtime, _, _, psnr, *_ in rows[2:]}
    assert set(measured) == {(body, runtime) for body in ("rep", "naf-edge") for runtime in RUNTIMES}
    assert min(measured.values()) > 15
    assert "kMAC per pixel" in text
    assert str(tmp_path) not in text


def test_predictors_of_two_tasks_are_not_compared(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(trained(tmp_path / task, "rep", task)) for task in ("cleanup", "rain")]
    assert cli.main(["bench-edge", *runs, "--data", str(data), "-o", str(tmp_path / "page.md")]) == 2
    assert "one task" in capsys.readouterr().err
