"""The loop on a toy stage: it learns, logs, averages, stops in time and resumes exactly."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.training.loop.loop import SavedStep, train
from pocketprior.core.training.loop.optimizers import TrainedWeights
from pocketprior.core.training.loop.recipe import Recipe
from support.toy_training import RECIPE, Toy, ToyConfig, ToyStage, record, toy_data, train_toy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train_toy(run)
    return run


def assert_same(run: Path, whole: Path) -> None:
    ours, theirs = record(run), record(whole)
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    assert sorted(p.name for p in (run / "pictures").iterdir()) == sorted(
        p.name for p in (whole / "pictures").iterdir()
    )


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """kill -9 at two moments after the first save; then to the end. Batches come from worker processes."""
    settings = ("steps=60", "save_every=3")
    program = [sys.executable, str(Path(__file__).parents[3] / "support" / "toy_training.py")]
    for delay in (0.05, 0.2):
        before = len(rows(tmp_path / "killed")) if (tmp_path / "killed" / "log.csv").exists() else 0
        run = subprocess.Popen(
            [*program, str(tmp_path / "killed"), *settings, "pause=0.02"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert run.stdout is not None
        run.stdout.readline()  # the first save of this process is done
        time.sleep(delay)
        run.kill()
        run.wait()
        run.stdout.close()
        assert run.returncode == -signal.SIGKILL
        assert before < len(rows(tmp_path / "killed")) <= 20
    recipe = RECIPE.with_settings(settings)
    train_toy(tmp_path / "killed", recipe)
    train_toy(tmp_path / "whole", recipe)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("stop", [0, 4, 6, 11])
def test_ctrl_c_saves_at_once_and_the_rest_is_the_same(stop: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, stop=stop)
    assert int(safetensors.torch.load_file(tmp_path / "resume.safetensors")["done"]) == stop + 1
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


def test_signal_handlers_are_put_back(whole: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train_toy(whole)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_sigterm_saves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, _: kill(pid, signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, stop=1)
    assert (tmp_path / "resume.safetensors").exists()


def test_finished_run_has_nothing_left_to_do(whole: Path) -> None:
    before = (whole / "model.safetensors").read_bytes()
    assert train_toy(whole) == []
    assert (whole / "model.safetensors").read_bytes() == before


def test_only_the_trained_parts_move_each_at_its_rate(whole: Path) -> None:
    before = ToyStage(toy_data()).model.state_dict()
    state = safetensors.torch.load_file(whole / "resume.safetensors")
    after = checkpoints.load(whole / "model.safetensors", "toy").tensors
    assert {name.removeprefix("weight.") for name in state if name.startswith("weight.")} == {
        "first.0.weight",
        "first.0.bias",
        "second.weight",
        "second.bias",
    }
    assert all(before[name].equal(after[name]) for name in ("fixed.weight", "fixed.bias", "scale"))
    # One step of Adam moves every weight by its learning rate.
    train_toy(whole.parent / "one", replace(RECIPE, steps=1, decay=0.0))
    first = safetensors.torch.load_file(whole.parent / "one" / "resume.safetensors")
    for name, share in (("first.0.weight", 1.0), ("second.weight", 0.5)):
        moved = (first[f"weight.{name}"] - before[name]).abs().max()
        assert float(moved) == pytest.approx(share * RECIPE.rate * RECIPE.share_of_rate(0), rel=1e-3)


def test_checkpoint_is_the_running_average(tmp_path: Path) -> None:
    """a <- d a + (1 - d) w after every step, d = min(ema, (1 + step) / (10 + step))."""
    recipe = replace(RECIPE, steps=3, save_every=1)
    data = toy_data()
    stage = ToyStage(data)
    average = stage.toy.second.weight.detach().clone()
    for step, _ in enumerate(train(stage, data, recipe, tmp_path, workers=0)):
        decay = (1 + step) / (10 + step)
        average = decay * average + (1 - decay) * stage.toy.second.weight.detach()
        saved = checkpoints.load(tmp_path / "model.safetensors", "toy").tensors["second.weight"]
        torch.testing.assert_close(saved, average)


def test_checkpoint_builds_the_model_it_says(whole: Path) -> None:
    checkpoint = checkpoints.load(whole / "model.safetensors", "toy")
    Toy(checkpoints.from_dict(ToyConfig, checkpoint.config)).load_state_dict(checkpoint.tensors)
    assert checkpoint.facts == {"colour": "red", "step": 12}


def test_log_holds_the_means_between_saves(whole: Path, tmp_path: Path) -> None:
    each = train_toy(tmp_path, replace(RECIPE, save_every=1))
    assert [row["step"] for row in rows(whole)] == ["4", "8", "12"]
    for name in ("loss", "content", "gradient"):
        mean = sum(step.figures[name] for step in each[4:8]) / 4
        assert float(rows(whole)[1][name]) == pytest.approx(mean, rel=1e-5)
    assert float(rows(whole)[2]["val_error"]) == pytest.approx(each[11].figures["val_error"], rel=1e-5)


def test_loss_falls(tmp_path: Path) -> None:
    steps = train_toy(tmp_path, replace(RECIPE, steps=80, save_every=20, rate=1e-2))
    assert steps[-1].figures["loss"] < 0.8 * steps[0].figures["loss"]


def test_pictures_and_tensorboard_are_written(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from pocketprior.core.photo.io import read

    names = [f"restored-{step:07d}.png" for step in (4, 8, 12)]
    assert sorted(p.name for p in (whole / "pictures").iterdir()) == names
    assert read(whole / "pictures" / names[0]).pixels.shape == (16, 16, 3)
    board = EventAccumulator(str(whole / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("val_error")] == [4, 8, 12]
    assert board.Tags()["images"] == ["restored"]


def test_progress_says_speed_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_toy(tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    first, saved, *_ = captured.err.splitlines()
    assert first == (
        "toy: 0.333 k parameters, adamw, fp32 on cpu, 8 crops of 16 x 16, from step 0 to 12, "
        f"threads: {torch.get_num_threads()}"
    )
    assert saved.startswith("4/12  mpx 0.008192  hours ")
    assert "Mpx/s" in saved
    assert saved.endswith("left")


def test_accumulated_parts_are_one_batch(whole: Path, tmp_path: Path) -> None:
    train_toy(tmp_path, replace(RECIPE, accumulate=4))
    ours, theirs = (safetensors.torch.load_file(run / "resume.safetensors") for run in (tmp_path, whole))
    for name in ours:
        atol = 1e9 if name == "seconds" else 2e-6
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def test_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="multiple of 3"):
        train_toy(tmp_path, replace(RECIPE, accumulate=3))
    assert not (tmp_path / "recipe.toml").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_fails_in_a_worker_is_told_in_its_own_words(workers: int, tmp_path: Path) -> None:
    class Broken:
        def at(self, sample: int, group: int) -> object:
            raise TrainingError(f"no photos for sample {sample} of group {group}; look for some")

    data = toy_data()
    with pytest.raises(TrainingError, match=r"^no photos for sample 0 of group 0; look for some$"):
        list(train(ToyStage(data), replace(data, train=Broken()), RECIPE, tmp_path, workers=workers))


def test_bf16_is_what_the_loss_runs_in(tmp_path: Path) -> None:
    seen = []
    data = toy_data()
    stage = ToyStage(data)
    stage.toy.second.register_forward_hook(lambda *hooked: seen.append(hooked[2].dtype))
    list(train(stage, data, replace(RECIPE, precision="bf16", steps=1), tmp_path, workers=0))
    assert seen[0] == torch.bfloat16
    assert stage.toy.second.weight.dtype == torch.float32


@pytest.mark.parametrize("broken", ["7,0.1", "7,0.1,0.2,0.3,0.4,0.5\n", ""])
def test_lines_after_the_last_state_are_dropped(broken: str, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, stop=5)
    with (tmp_path / "log.csv").open("a") as file:
        file.write(broken)
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


def test_other_recipe_is_refused(whole: Path) -> None:
    with pytest.raises(TrainingError, match=r"another recipe .*recipe.toml differs in: rate\)"):
        train_toy(whole, replace(RECIPE, rate=2e-3))


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    data = toy_data()
    list(train(ToyStage(data), data, replace(RECIPE, steps=1), tmp_path, inputs={"data": "a", "prior": "b"}, workers=0))
    with pytest.raises(TrainingError, match=r"other inputs \(prior changed"):
        next(train(ToyStage(data), data, replace(RECIPE, steps=1), tmp_path, inputs={"data": "a"}, workers=0))


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path, replace(RECIPE, steps=1))
    state = safetensors.torch.load_file(tmp_path / "resume.safetensors")
    del state["weight.first.0.weight"]
    safetensors.torch.save_file(state, tmp_path / "resume.safetensors")
    with pytest.raises(TrainingError, match=r"first\.0\.weight.*another model"):
        train_toy(tmp_path, replace(RECIPE, steps=1))


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path, replace(RECIPE, steps=1))
    (tmp_path / "resume.safetensors").write_bytes(b"\x10\0\0\0")
    with pytest.raises(TrainingError, match="damaged"):
        train_toy(tmp_path, replace(RECIPE, steps=1))


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_keeps_the_last_state(broken: str, whole: Path, tmp_path: Path) -> None:
    data = toy_data()
    stage = ToyStage(data)
    original = stage.loss

    def poisoned(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        figures = original(batch)
        if stage.losses == 6:
            zero = stage.toy.second.weight.sum() * 0
            figures["loss"] = figures["loss"] + (zero * torch.nan if broken == "loss" else zero.abs().sqrt())
        return figures

    stage.loss = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=rf"{broken} is nan at step 5.*lower rate"):
        list(train(stage, data, RECIPE, tmp_path, workers=0))
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """Even when no loss or gradient shows them."""
    data = toy_data()
    stage = ToyStage(data)
    stage.loss = lambda batch: {"loss": stage.toy.second.weight.square().mean() + 0 * batch["clean"].mean()}  # type: ignore[method-assign]
    run = train(stage, data, RECIPE, tmp_path, workers=0)
    next(run)
    saved = record(tmp_path)
    with torch.no_grad():
        stage.toy.first.get_parameter("0.weight")[0, 0, 0, 0] = torch.inf
    with pytest.raises(TrainingError, match="not finite"):
        next(run)
    assert saved == record(tmp_path)


def test_moments_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """With an infinite second moment a weight stands still, and is finite."""
    data = toy_data()
    stage = ToyStage(data)
    run = train(stage, data, RECIPE, tmp_path, workers=0)
    weights: list[TrainedWeights] = []
    state = TrainedWeights.state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedWeights, "state", lambda self: weights.append(self) or state(self))
        next(run)
    moments = weights[0].moments(next(stage.toy.first.parameters()))
    moments["exp_avg_sq"].fill_(torch.inf)
    with pytest.raises(TrainingError, match="weights are not finite"):
        next(run)


def test_inputs_are_not_written_again_on_resume(whole: Path) -> None:
    """A disk that is full then would leave half of them."""
    noted = whole / "inputs.json"
    before = noted.read_bytes()
    changed = noted.stat().st_mtime_ns
    train_toy(whole)
    assert (noted.read_bytes(), noted.stat().st_mtime_ns) == (before, changed)


def test_log_that_cannot_be_written_is_told(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, stop=5)
    (tmp_path / ".log.csv.part").mkdir()  # a resumed run first drops the lines after its state
    with pytest.raises(TrainingError, match=r"cannot write .*last saved state is kept"):
        train_toy(tmp_path)
    (tmp_path / ".log.csv.part").rmdir()
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_said_and_keeps_the_last_state(whole: Path, tmp_path: Path) -> None:
    data = toy_data()
    run = train(ToyStage(data), data, RECIPE, tmp_path, workers=0)
    next(run)
    saved = (tmp_path / "resume.safetensors").read_bytes()
    (tmp_path / ".resume.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"disk is full.*last saved state is kept"):
        next(run)
    assert (tmp_path / "resume.safetensors").read_bytes() == saved
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


CONSTANT = replace(RECIPE, cooldown=0.0, optimizer="muon")


def test_constant_run_can_be_extended(tmp_path: Path) -> None:
    """To the weights of a run that was as long from the start."""
    train_toy(tmp_path / "long", CONSTANT)
    for steps in (5, 12):
        train_toy(tmp_path / "run", replace(CONSTANT, steps=steps))
        assert Recipe.load(tmp_path / "run" / "recipe.toml").steps == steps
    ours, theirs = (weights_of(tmp_path / name) for name in ("run", "long"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    with pytest.raises(TrainingError, match="another recipe"):
        train_toy(tmp_path / "run", replace(CONSTANT, steps=20, rate=2e-3))


def test_run_that_cools_down_cannot_be_extended(whole: Path) -> None:
    with pytest.raises(TrainingError, match=r"differs in: steps\)"):
        train_toy(whole, replace(RECIPE, steps=20))


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """TrainedWeights, averages and moments."""
    state = safetensors.torch.load_file(run / "resume.safetensors")
    return {name: tensor for name, tensor in state.items() if "." in name and not name.startswith("total.")}


def test_stopped_after_its_minutes_it_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toy_data()
    stage = ToyStage(data, pause=0.2)
    assert list(train(stage, data, RECIPE, tmp_path, workers=0, minutes=0.1 / 60)) == []
    assert "time is up at step 1; run the same command to resume" in capsys.readouterr().err
    train_toy(tmp_path)
    assert_same(tmp_path, whole)


def test_hours_add_up_over_the_processes_of_a_run(tmp_path: Path) -> None:
    data = toy_data()
    for steps in (4, 8):
        list(train(ToyStage(data, pause=0.05), data, replace(CONSTANT, steps=steps), tmp_path, workers=0))
    first, second = (3600 * float(row["hours"]) for row in rows(tmp_path))
    assert 0.2 <= first <= second - 0.2
    assert [float(row["mpx"]) for row in rows(tmp_path)] == pytest.approx([4 * 8 * 256e-6, 8 * 8 * 256e-6])


def test_resume_in_another_precision_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = replace(CONSTANT, precision="auto", steps=1)
    train_toy(tmp_path, recipe)
    state = safetensors.torch.load_file(tmp_path / "resume.safetensors")
    before, now = ("fp32", "bf16") if state["bf16"] else ("bf16", "fp32")  # once the state is changed
    state["bf16"] = ~state["bf16"]
    safetensors.torch.save_file(state, tmp_path / "resume.safetensors")
    capsys.readouterr()
    train_toy(tmp_path, replace(recipe, steps=2))
    assert f"was trained in {before} so far; this machine continues in {now}" in capsys.readouterr().err


def test_new_run_starts_from_given_weights_and_counts_on(tmp_path: Path) -> None:
    """Steps, samples and hours go on; the average starts at the weights, the rate rises anew; and it resumes."""
    train_toy(tmp_path / "first", replace(CONSTANT, steps=6))
    given = checkpoints.load(tmp_path / "first" / "model.safetensors", "toy")
    given.facts["hours"] = 2.0
    recipe = replace(CONSTANT, steps=10, save_every=2)

    def train_on(run: Path, stop: int | None = None) -> list[SavedStep]:
        data = toy_data()
        return list(train(ToyStage(data, stop), data, recipe, run, start=given, workers=0))

    found = train_on(tmp_path / "whole")
    assert [step.step for step in found] == [8, 10]
    assert [step.figures["rate"] / RECIPE.rate for step in found] == pytest.approx([2 / 3, 1])
    assert found[0].figures["hours"] == pytest.approx(2.0, abs=0.1)
    state = safetensors.torch.load_file(tmp_path / "whole" / "resume.safetensors")
    assert (int(state["first"]), int(state["step.first.0.bias"])) == (6, 4)
    with pytest.raises(KeyboardInterrupt):
        train_on(tmp_path / "stopped", stop=1)
    train_on(tmp_path / "stopped")
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_new_run_is_at_first_what_it_was_given(tmp_path: Path) -> None:
    train_toy(tmp_path / "first", replace(CONSTANT, steps=6))
    given = checkpoints.load(tmp_path / "first" / "model.safetensors", "toy")
    data = toy_data()
    recipe = replace(CONSTANT, steps=7, rate=1e-12, muon_rate=1e-12)
    list(train(ToyStage(data), data, recipe, tmp_path / "second", start=given, workers=0))
    again = checkpoints.load(tmp_path / "second" / "model.safetensors", "toy").tensors
    for name, tensor in given.tensors.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)
