"""Packs of several tasks: each does what it does alone, weights are stored once, and what does not fit is refused."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.cli import main
from pocketprior.core.errors import PackError, PackTamperedError, UnknownNameError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.models.dtpm import MOBILE, Dtpm, DtpmConfig
from pocketprior.core.models.semantic_code import NoEncoder
from pocketprior.core.pack.manifest import FILE, Manifest
from pocketprior.core.pack.store import default_pack
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.core.sampling.steps import GAIN
from pocketprior.export.systems.dtpm import DtpmSource, Sampling, dtpm_graphs
from pocketprior.export.targets.calibration import open_float
from pocketprior.export.targets.coreml.coreml_package import coremltools
from pocketprior.export.writer.multitask import check_prior, join, write_tasks
from pocketprior.export.writer.pack import PackOptions, write_pack
from support.small_models import CONFIG, PHOTOS, TASKS, save_diffir, save_gen2res, save_tasks

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml"}
FIRST = {"onnx": "encode.onnx", "openvino": "encode.fp32.xml"}  # the first task's file
MOST = 1.35  # times the size of a pack of one task
PHOTO = np.random.default_rng(0).integers(0, 256, (44, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack of each task alone, and "all"; of the real size, with random weights."""
    folder = tmp_path_factory.mktemp("mobile")
    models, _ = save_tasks(folder, MOBILE, 0.05)
    for task, model in zip(TASKS, models, strict=True):
        source = DtpmSource(model)
        options = PackOptions(name=task, targets=tuple(RUNTIMES), fused=False, deployment_target="iOS18")
        write_pack(source, folder / task, PHOTOS[:1], options)
    join([folder / task for task in TASKS], folder / "all", name="all")
    return folder


def size_for(folder: Path, target: str) -> int:
    """Bytes of all that a program needs of a pack that runs it for one target."""
    manifest = Manifest.load(folder)
    files = {manifest.card, *(golden.file for task in manifest.per_task() for golden in task.golden.values())}
    for task in manifest.per_task():
        for name in task.graphs:
            files |= {task.graph_file(name, target), *task.graph_parts(name, target)}
    return (folder / FILE).stat().st_size + sum(file.bytes for file in files)


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNTIMES)
def test_three_tasks_are_hardly_larger_than_one(target: str, mobile: Path) -> None:
    one, three = (size_for(mobile / pack, target) for pack in (TASKS[0], "all"))
    print(f"{target}: three tasks have {three / 1e6:.2f} MB, one has {one / 1e6:.2f} MB: {three / one:.3f} x")
    assert three <= MOST * one


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES.values())
def test_every_task_does_what_it_does_alone(runtime: str, mobile: Path) -> None:
    restored = {}
    for task in TASKS:
        together, alone = (
            Restorer.from_pack(mobile / pack, runtime, task=task if pack == "all" else None, threads=threads(runtime))
            for pack in ("all", task)
        )
        assert together.manifest.tasks == (task,)
        restored[task] = together(PHOTO, seed=3)
        np.testing.assert_array_equal(restored[task], alone(PHOTO, seed=3))
    assert len({array.tobytes() for array in restored.values()}) == len(TASKS)


def threads(runtime: str) -> int | None:
    return None if runtime == "coreml" else 1


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES.values())
def test_every_task_does_what_its_checkpoint_does(runtime: str, mobile: Path) -> None:
    levels, times = trailing(4, cosine())
    for task in TASKS:
        checkpoint = checkpoints.load(mobile / f"{task}.safetensors", "dtpm")
        model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))
        checkpoint.fill(model)
        graphs = dtpm_graphs(model.eval(), NoEncoder(), Sampling(tuple(levels), tuple(times), GAIN))
        restorer = Restorer.from_pack(mobile / "all", runtime, task=task)
        names = restorer.manifest.graphs
        plain = {n: eager(graphs[n].module, list(graphs[n].inputs), *graphs[n].outputs) for n in names}
        for amount in (1.0, 1.5):
            truth = Restorer(restorer.manifest, plain)(PHOTO, seed=5, amount=amount).astype(int)
            assert np.abs(restorer(PHOTO, seed=5, amount=amount) - truth).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES.values())
def test_every_task_is_verified(runtime: str, mobile: Path) -> None:
    report = verify(mobile / "all", runtime)
    assert report.ok
    assert {check.name for check in report.goldens} == {f"{t}/{n}" for t in TASKS for n in ("photo", "less", "more")}


@pytest.fixture(scope="module")
def recording(mobile: Path) -> Path:
    """What the checkpoint of the last task makes of a photo."""
    model, photo = str(mobile / "haze.safetensors"), str(PHOTOS[0])
    argv = ["parity", "record", model, "--photos", photo, "--side", "48", "--device", "cpu"]
    assert main([*argv, "-o", str(mobile / "haze.npz")]) == 0
    return mobile / "haze.npz"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES.values())
def test_parity_holds_for_a_further_task(
    runtime: str, mobile: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["parity", "run", str(mobile / "all"), "--runtime", runtime, "--against", str(recording), "--layers"]
    assert main([*argv, "--task", "haze"]) == 0
    assert main([*argv, "--task", "rain"]) == 1
    assert "tasks" in capsys.readouterr().out


@pytest.mark.slow
def test_core_ml_tools_read_every_function(mobile: Path) -> None:
    """The ops of all functions fit the version of Core ML that several functions need."""
    tools = coremltools()
    path = mobile / "all" / "fp32.mlpackage"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = tools.utils.load_spec(str(path))
        program = load(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
    graphs = ("denoise", "predict")
    assert set(program.functions) == {*graphs, *(f"{task}__{graph}" for task in TASKS[1:] for graph in graphs)}


@pytest.mark.slow
def test_no_weight_is_stored_twice(mobile: Path) -> None:
    """One predictor and denoiser; adapters and factors of each task."""
    models = [Manifest.load(mobile / task) for task in TASKS]
    first = sum(models[0].parameters[name] for name in ("predict", "denoise"))
    others = sum(own_parameters(mobile / f"{task}.safetensors") for task in TASKS[1:])
    for file in ("onnx.bin", "openvino.bin", "fp32.mlpackage/Data/com.apple.CoreML/weights/weight.bin"):
        stored = (mobile / "all" / file).stat().st_size / 4
        assert 0.98 * (first + others) < stored < 1.02 * (first + others)


def own_parameters(path: Path) -> int:
    tensors = checkpoints.load(path, "dtpm").tensors
    return sum(tensors[name].numel() for name in tensors if "factors" in name or name.startswith("adapters"))


@pytest.mark.slow
def test_joining_twice_gives_equal_bytes(mobile: Path, tmp_path: Path) -> None:
    """Packs of one task are equal each time they are written (`test_targets.py`)."""
    join([mobile / task for task in TASKS], tmp_path / "all", name="all")
    files = sorted(p.relative_to(mobile / "all") for p in (mobile / "all").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "all") for p in (tmp_path / "all").rglob("*") if p.is_file())
    assert all((mobile / "all" / f).read_bytes() == (tmp_path / "all" / f).read_bytes() for f in files)


@pytest.mark.slow
def test_a_graph_that_tasks_have_in_common_is_one_file(models: tuple[list[Path], Path], tmp_path: Path) -> None:
    paths, semantic = models
    sources = [DtpmSource(path, str(semantic), steps=1) for path in paths]
    tasks = write_tasks(
        sources, tmp_path / "pack", PHOTOS[:1], PackOptions(targets=tuple(FIRST), fused=False)
    ).per_task()
    for target, file in FIRST.items():
        assert {task.graph_file("encode", target).file for task in tasks} == {file}
        assert len({task.graph_file("denoise", target) for task in tasks}) == len(TASKS)


@pytest.mark.slow
def test_a_task_that_is_not_there(mobile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"'snow'.*cleanup, rain, haze"):
        Restorer.from_pack(mobile / "all", task="snow")
    assert main(["restore", str(PHOTOS[0]), "--pack", str(mobile / "all"), "--task", "snow"]) == 2
    assert "cleanup, rain, haze" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_shared_weights_that_are_cut_off(target: str, mobile: Path, tmp_path: Path) -> None:
    pack = Path(shutil.copytree(mobile / "all", tmp_path / "pack"))
    shared = pack / f"{target}.bin"
    shared.write_bytes(shared.read_bytes()[:-64])
    for task in TASKS:
        with pytest.raises(PackTamperedError, match=f"{target}.bin was changed after packing"):
            Restorer.from_pack(pack, RUNTIMES[target], task=task)
    report = verify(pack, RUNTIMES[target])
    assert [check.file for check in report.files if check.problem] == [shared.name]
    assert not report.ok


@pytest.mark.slow
def test_the_first_task_is_run_where_none_is_named(mobile: Path) -> None:
    first, named = (Restorer.from_pack(mobile / "all", task=task) for task in (None, TASKS[0]))
    np.testing.assert_array_equal(first(PHOTO), named(PHOTO, task=TASKS[0]))


@pytest.mark.slow
def test_such_a_pack_is_not_quantized_afterwards(mobile: Path) -> None:
    with pytest.raises(UsageError, match="tasks cleanup, rain, haze of the pack 'all' share"):
        open_float(mobile / "all", [])


@pytest.fixture
def models(tmp_path: Path) -> tuple[list[Path], Path]:
    return save_tasks(tmp_path)


def changed(path: Path, weight: str) -> None:
    checkpoint = checkpoints.load(path, "dtpm")
    checkpoint.tensors[weight].flatten()[0] += 1
    config = checkpoints.from_dict(DtpmConfig, checkpoint.config)
    checkpoints.save(path, "dtpm", config, checkpoint.tensors, checkpoint.facts)


@pytest.mark.parametrize(
    ("weight", "part", "advice"),
    [
        ("denoiser.time.0.weight", "denoiser", "same --prior"),
        ("predictor.unet.encoder.0.0.first.direct.bias", "predictor", "train dtpm delta --dtpm"),
    ],
)
def test_tasks_with_other_weights_are_refused(
    weight: str, part: str, advice: str, models: tuple[list[Path], Path]
) -> None:
    (first, second, third), _ = models
    check_prior([first, second, third])
    changed(third, weight)
    name = weight.partition(".")[2]
    with pytest.raises(UsageError, match=rf"haze\S* and \S*cleanup\S* do not share their {part} .*{name}.*{advice}"):
        check_prior([first, second, third])


def test_a_predictor_of_its_own_is_refused(models: tuple[list[Path], Path]) -> None:
    """It would cost as much as the first."""
    first, *_ = models[0]
    torch.manual_seed(1)
    other = first.with_name("other.safetensors")
    fresh = Dtpm(CONFIG)
    fresh.denoiser.load_state_dict(checkpoints.load(first, "dtpm").part("denoiser"))
    checkpoints.save(other, "dtpm", CONFIG, fresh.state_dict(), {"task": "snow"})
    with pytest.raises(UsageError, match="do not share their predictor"):
        check_prior([first, other])


def test_a_task_is_given_once(models: tuple[list[Path], Path]) -> None:
    first, second, _ = models[0]
    with pytest.raises(UsageError, match="cleanup, rain, cleanup were given; give one of each"):
        check_prior([first, second, first])


@pytest.mark.slow
def test_tasks_that_are_used_in_other_ways_are_not_joined(mobile: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(mobile / "rain", tmp_path / "rain"))
    manifest = Manifest.load(other)
    replace(manifest, times=(0.9, *manifest.times[1:])).save(other)
    with pytest.raises(UsageError, match="the pack 'all' has several tasks"):
        join([mobile / "cleanup", mobile / "all"], tmp_path / "both", name="both")
    with pytest.raises(UsageError, match=r"the task 'rain' has times \(0\.9, .*, the task 'cleanup' \(1\.0, "):
        join([mobile / "cleanup", other], tmp_path / "both", name="both")
    assert not (tmp_path / "both").exists()


def test_command_exports_restores_and_verifies(
    models: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, semantic = models
    out, photo, restored = (tmp_path / name for name in ("pack", "photo.png", "restored.png"))
    named = [str(path) for path in paths[:2]]
    argv = ["export", *named, "--semantic", str(semantic), "--data", str(PHOTOS[0].parent), "-o", str(out)]
    assert main([*argv, "--steps", "1"]) == 0
    assert "cleanup, rain" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*(path.name for path in paths), semantic.name, "pack"}
    assert main(["verify", str(out)]) == 0
    told = capsys.readouterr().out
    assert all(f"golden 'rain/photo', {form}" in told for form in ("fused", "split"))
    assert main(["info", str(out)]) == 0
    assert "rain" in capsys.readouterr().out
    write(Photo(PHOTO), photo)
    assert main(["restore", str(photo), "--pack", str(out), "--task", "rain", "-o", str(restored)]) == 0
    np.testing.assert_array_equal(read(restored).pixels, Restorer.from_pack(out, task="rain")(PHOTO))


def test_only_tasks_of_a_dtpm_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diffir = save_diffir(tmp_path)
    argv = ["--data", str(PHOTOS[0].parent), "-o", str(tmp_path / "pack")]
    assert main(["export", str(diffir), str(diffir), *argv]) == 2
    assert "only checkpoints of DTPMs can share a pack" in capsys.readouterr().err
    assert main(["export", str(save_gen2res(tmp_path)), "--steps", "9", "--split", *argv]) == 2
    assert "this gen2res has no fused graph" in capsys.readouterr().err


def test_one_pack_alone_stores_what_its_graphs_share_once(tmp_path: Path) -> None:
    join([default_pack()], tmp_path / "shared", name="shared")
    assert verify(tmp_path / "shared").ok
    before, after = (
        sum(file.bytes for file in Manifest.load(folder).files()) for folder in (default_pack(), tmp_path / "shared")
    )
    assert after < 0.7 * before
    assert Manifest.load(tmp_path / "shared").further == {}


@pytest.mark.slow
def test_further_tasks_are_those_of_the_pack(mobile: Path) -> None:
    manifest = Manifest.load(mobile / "all")
    rain, haze = (manifest.further[task] for task in TASKS[1:])
    with pytest.raises(PackError, match="given \\['rain'\\], expected exactly: rain, haze"):
        replace(manifest, further={"rain": rain})
    damaged = replace(haze, residual_scale=-1.0)
    with pytest.raises(PackError, match=r"further: haze: residual_scale: given -1\.0"):
        replace(manifest, further={"rain": rain, "haze": damaged})
    with pytest.raises(PackError, match="further: haze: graphs"):
        replace(manifest, further={"rain": rain, "haze": replace(haze, graphs={})})
