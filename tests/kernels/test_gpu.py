"""`scripts/gpu/run` is ready for a CUDA machine: the whole command is rehearsed on a CPU, without the packages that it
promises to do without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu import command
from gpu.record import REFERENCES
from PIL import Image

from pocketprior.core.pack.systems import SYSTEMS
from pocketprior.core.restore.reference import load
from pocketprior.kernels import OPS
from pocketprior.runtimes.parity.call_replay import sites

ROOT = Path(__file__).resolve().parents[2]
# Installed here, but the command runs without: the parts that need one of these say so.
ABSENT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args, **options):
        return (found for found in super().find_distributions(*args, **options) if found.name != "pocketprior")

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
""".format(names={*command.TRAINING, "PIL", "onnx", "onnxruntime", "openvino", "scipy"})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a dry run of the whole command leaves with nothing but torch, triton, numpy and safetensors."""
    absent = tmp_path_factory.mktemp("absent")
    (absent / "sitecustomize.py").write_text(ABSENT)
    folder = tmp_path_factory.mktemp("there") / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(absent)}
    command = [sys.executable, ROOT / "scripts/gpu/run", "--dry-run", "--out", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return folder


def results(folder: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the parts that need more packages leave."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "photos").mkdir()
    for i in range(2):
        Image.effect_noise((260 + 10 * i, 270), 40 + i).convert("RGB").save(folder / f"photos/{i}.png")
    arguments = ["record", "train", "--dry-run", "--photos", folder / "photos", "--out", folder / "out"]
    assert command.main(ROOT, [*map(str, arguments)]) == 0, (folder / "out/results.md").read_text()
    return folder / "out"


def test_every_part_is_rehearsed(out: Path) -> None:
    found = results(out)
    assert {"device", "torch", "triton", "python", "commit", "date"} == set(found.pop("environment"))
    assert list(found) == list(command.PARTS)
    for name in ("verify", "bench"):
        assert found[name]["rows"]
        assert not found[name]["errors"]


@pytest.mark.parametrize(
    ("part", "packages"), [("record", "pillow"), ("train", "pillow accelerate tensorboard tomli-w tqdm webdataset")]
)
def test_a_part_says_which_packages_it_needs(out: Path, part: str, packages: str) -> None:
    (error,) = results(out)[part]["errors"].values()
    assert error.endswith(f"'{part}' needs more packages; install them: pip install {packages}\n")


def test_every_op_is_rehearsed(out: Path) -> None:
    found = results(out)
    for name in ("verify", "bench"):
        assert {row["op"] for row in found[name]["rows"]} == set(OPS)
    compared = [row for row in found["verify"]["rows"] if "error" in row]
    assert {row["op"] for row in compared} == set(OPS)
    assert all(row["error"] <= row["bound"] for row in compared)


def test_the_page_shows_all_results(out: Path) -> None:
    page = (out / "results.md").read_text()
    rows = [row for name in ("verify", "bench") for row in results(out)[name]["rows"]]
    assert sum(line.startswith("| ") for line in page.splitlines()) == len(rows) + 2 * 2  # head and rule of each table
    assert "\n## train\n\nNo results.\n\nfailed: train: " in page


def test_the_references_are_recorded_again(trained: Path) -> None:
    """The same photos, seeds and strengths; on the same kind of device, the same numbers but for the order of sums."""
    rows = {row["system"]: row for row in results(trained)["record"]["rows"]}
    assert set(rows) == set(SYSTEMS)
    for system, row in rows.items():
        known, again = load(ROOT / REFERENCES / f"{system}.npz"), load(trained / f"references/{system}.npz")
        assert again.about.facts == known.about.facts
        assert again.about.checkpoint == known.about.checkpoint
        assert row["checkpoint"] == known.about.checkpoint[:16]
        for before, now in zip(known.about.cases, again.about.cases, strict=True):
            assert (now.name, now.seed, now.strength) == (before.name, before.seed, before.strength)
            assert (now.photo, now.clean) == (before.photo, before.clean)
        for before, now in zip(sites(known), sites(again), strict=True):
            for name, values in known.named(before.call.outputs).items():
                found = again.named(now.call.outputs)[name]
                np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-3 * np.abs(values).max())
        assert row["difference"] == 0, "a CPU was compared with itself"


def test_a_stage_is_trained(trained: Path) -> None:
    (row,) = results(trained)["train"]["rows"]
    assert (row["stage"], row["step"]) == ("gen2res:base", 2)
    assert row["mpx/s"] > 0
    assert (trained / "run/model.safetensors").exists()


def test_a_failing_item_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()  # has no references
    arguments = ["record", "bench", "--ops", "modulated_norm", "--dry-run", "--out", tmp_path / "out"]
    assert command.main(tmp_path / "clone", [*map(str, arguments)]) == 1
    found = results(tmp_path / "out")
    assert set(found["record"]["errors"]) == set(SYSTEMS)
    assert all("Traceback" in error for error in found["record"]["errors"].values())
    assert found["bench"]["rows"]
    assert not found["bench"]["errors"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dry-run", "--out", "FOLDER"), "is not empty"),
        (("all", "--dry-run"), "unknown part 'all'"),
        (("--dry-run", "--ops", "convolution"), "unknown op 'convolution'"),
    ],
)
def test_wrong_calls_are_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stranger").touch()
    assert command.main(ROOT, [str(tmp_path) if a == "FOLDER" else a for a in arguments]) == 2
    assert words in capsys.readouterr().err


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if command.torch.cuda.is_available():
        pytest.skip("there is one")
    assert command.main(ROOT, ["bench", "--out", str(tmp_path / "out")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
