"""The training queue: its order, its slices, what it cools and keeps; and a real one, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pocketprior.core.cli import main
from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.training.loop.run_folder import is_finished
from support.toy_training import RECIPE, ToyConfig, record
from zoo_queue import command
from zoo_queue import queue as zoo_queue
from zoo_queue.queue import Place, ZooModel, ZooStage, read_models, status, work

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SPEED = 100.0  # steps an hour of the pretended training


class Pretended:
    """What `pocketprior train` leaves in a run folder, without the training."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail = 0
        self.width = 4

    def __call__(self, words: list[str]) -> int:
        options = dict(pairwise(words))
        settings = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "--set")
        run, wanted = Path(options["--out"]), int(settings.get("steps", 7))
        done, hours = zoo_queue._progress(run)
        if "--from" in options:
            facts = checkpoints.load(Path(options["--from"])).facts
            done, hours = facts["step"], facts["hours"]
        if "--cool" in options:
            run, done, wanted = run / f"cooled-{done:08d}", done, done + int(options["--cool"])
        elif "--minutes" in options:
            wanted = min(wanted, done + round(float(options["--minutes"]) / 60 * SPEED))
        run.mkdir(parents=True, exist_ok=True)
        self.calls.append(f"{run.parent.name}/{run.name} {done}-{wanted}{' from' if '--from' in options else ''}")
        if self.fail:
            return self.fail
        hours += (wanted - done) / SPEED
        RECIPE.with_settings([f"steps={wanted}"]).save(run / "recipe.toml")
        state = {"done": torch.tensor(wanted), "seconds": torch.tensor(3600 * hours, dtype=torch.float64)}
        safetensors.torch.save_file(state, run / "resume.safetensors")
        (run / "log.csv").write_text(f"step,mpx,hours,val_psnr\n{wanted},{wanted / 10},{hours},{20 + wanted / 100}\n")
        weight = {"weight": torch.full((self.width,), float(len(self.calls))), "count": torch.tensor(3)}
        checkpoints.save(run / "model.safetensors", "toy", ToyConfig(), weight, {"step": wanted})
        return 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    monkeypatch.setattr(zoo_queue, "pocketprior", pretended)
    return pretended


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state", tmp_path / "kept", "photos")


CLEANUP = ZooModel(
    "cleanup",
    (
        ZooStage("predictor", "train dtpm predictor", (0.5, 1.0)),
        ZooStage("adapters", "train dtpm adapters --predictor {predictor}", (0.2,)),
        ZooStage("student", "distill {adapters}"),
    ),
    first=20,
)


def test_stages_come_in_order_in_slices_and_are_cooled_at_every_doubling(trained: Pretended, place: Place) -> None:
    assert list(work([CLEANUP, ZooModel("other", (ZooStage("base", "train gen2res base"),))], place)) == [
        *("cleanup/predictor", "cleanup/adapters", "cleanup/student", "other/base"),
        *("cleanup/predictor", "cleanup/adapters", "cleanup/student", "other/base"),
    ]
    assert trained.calls == [
        *("cleanup/predictor 0-20", "predictor/cooled-00000020 20-22", "cleanup/predictor 20-40"),
        *("predictor/cooled-00000040 40-45", "cleanup/predictor 40-50", "predictor/cooled-00000050 50-56"),
        *("cleanup/adapters 0-20", "adapters/cooled-00000020 20-22"),
        *("cleanup/student 0-7", "other/base 0-7"),
        *("cleanup/predictor 50-80", "predictor/cooled-00000080 80-90"),
        *("cleanup/predictor 80-100", "predictor/cooled-00000100 100-112"),
        *("cleanup/adapters 0-20", "adapters/cooled-00000020 20-22"),  # anew, from the longer trained predictor
        "cleanup/student 0-7",
    ]
    assert sorted(p.name for p in (place.state / "cleanup").iterdir()) == [
        *("adapters", "adapters.1", "predictor", "student", "student.1"),
    ]
    before = list(trained.calls)
    assert list(work([CLEANUP], place)) == []
    assert trained.calls == before


def test_slice_that_was_interrupted_is_not_taken_for_an_earlier_one(trained: Pretended, place: Place) -> None:
    """In the middle of the second pass the first one stays as it is: nothing is cooled or begins anew for it."""
    queue = work([CLEANUP], place)
    while next(queue) != "cleanup/student":
        pass
    next(queue)
    trained.calls.clear()
    assert next(work([CLEANUP], place)) == "cleanup/predictor"
    assert trained.calls == []


def test_cooling_takes_twenty_minutes_at_most(trained: Pretended, place: Place) -> None:
    list(work([ZooModel("long", (ZooStage("predictor", "train dtpm predictor", (8.0,)),), first=640)], place))
    assert trained.calls[1::2] == [f"predictor/cooled-00000{n} {n}-{n + 33}" for n in (640, 800)]


def test_interrupted_command_ends_the_queue_and_comes_again(trained: Pretended, place: Place) -> None:
    trained.fail = 130
    with pytest.raises(SystemExit) as left:
        list(work([CLEANUP], place))
    assert left.value.code == 130
    trained.fail = 0
    next(iter(work([CLEANUP], place)))
    assert trained.calls == ["cleanup/predictor 0-20"]


def test_lost_state_goes_on_from_the_weights_that_are_kept(trained: Pretended, place: Place) -> None:
    model = ZooModel("cleanup", CLEANUP.stage[:1], first=20)
    list(work([model], place))
    (place.state / "cleanup").rename(place.state / "lost")
    trained.calls.clear()
    assert list(work([model], place)) == ["cleanup/predictor"] * 2
    assert trained.calls == []  # the hours are over
    longer = ZooModel("cleanup", (ZooStage("predictor", "train dtpm predictor", (0.5, 2.0)),), first=20)
    next(queue := work([longer], place))
    next(queue)
    with pytest.raises(StopIteration):
        next(queue)
    assert trained.calls[0] == "cleanup/predictor 112-160 from"
    assert not any("from" in call for call in trained.calls[1:])


@pytest.mark.usefixtures("trained")
def test_what_is_kept_is_small_and_says_what_it_is(place: Place) -> None:
    model = ZooModel("cleanup", CLEANUP.stage[:1], first=20)
    list(work([model], place))
    kept = checkpoints.load(place.kept / "cleanup-predictor.safetensors")
    assert (kept.kind, kept.config, kept.facts["step"]) == ("toy", {"width": 6}, 112)
    assert kept.facts["hours"] == pytest.approx(1.12)
    assert {name: tensor.dtype for name, tensor in kept.tensors.items()} == {
        "weight": torch.float16,
        "count": torch.int64,
    }
    facts = json.loads((place.kept / "cleanup-predictor.json").read_text())
    assert facts == {"step": 112, "mpx": 11.2, "hours": 1.12, "val_psnr": 21.12, "used": {}}


def test_weights_that_are_too_large_are_not_kept(trained: Pretended, place: Place) -> None:
    trained.width = 10_000_001
    with pytest.raises(TrainingError, match=r"20 MB of weights in 16 bits; 20 MB can be kept"):
        list(work([ZooModel("large", (ZooStage("base", "train gen2res base"),))], place))


@pytest.mark.usefixtures("trained")
def test_status_of_every_run(place: Place) -> None:
    list(work([ZooModel("cleanup", CLEANUP.stage[:1], first=20)], place))
    first, second, _ = status([CLEANUP], place)
    assert (first.run, first.mpx, first.hours) == ("cleanup/predictor", pytest.approx(100 * 8 * 256e-6), 1.0)
    assert first.validation == "val_psnr 21.12 cooled"
    assert (second.run, second.mpx, second.validation, second.image) == ("cleanup/adapters", 0.0, "", "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "'stage' is missing"),
        ("[[stage]]\nname = 'a'", "command"),
        ("[[stage]]\nname = 'a'\ncommand = 'train'\nhour = 3", "hour"),
        ("[[stage]]\nname = 'a'\ncommand = 'train'\nhours = 3", "hours: given 3, expected a list"),
        ("budget = 3\n[[stage]]\nname = 'a'\ncommand = 'train'", "unknown field 'budget'"),
        ("[[stage", "not valid TOML"),
    ],
)
def test_bad_file_is_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError, match=named):
        read_models(tmp_path)


@pytest.mark.usefixtures("trained")
def test_unknown_stage_in_a_command_is_refused(place: Place) -> None:
    with pytest.raises(UsageError, match="'teacher' is not a stage of its model"):
        list(work([ZooModel("a", (ZooStage("student", "distill {teacher}"),))], place))


def test_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        read_models(tmp_path)


def test_models_of_the_clone_name_stages_that_there_are() -> None:
    for model in read_models(ROOT / "zoo"):
        earlier = {stage.name: Path(stage.name) for stage in model.stage}
        for stage in model.stage:
            words = zoo_queue._words(stage, earlier)
            assert main([*words, "--help"]) == 0, stage.command


TINY = """
first = 4

[[stage]]
name = "predictor"
command = '''train dtpm predictor --workers 0 --set batch=2 --set crop=32 --set save_every=3 --set warmup=1
    --set optimizer=muon --set precision=fp32 --set model.predictor.widths=8,8,8 --set model.predictor.blocks=1,1,1
    --set model.predictor.damage=8'''
hours = [10]
"""


def until(what: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


class Queue:
    """The queue of a small model, worked on in the background."""

    def __init__(self, folder: Path) -> None:
        (folder / "models").mkdir()
        (folder / "models" / "tiny.toml").write_text(TINY)
        self.folder = folder
        self.options = [f"--{name}={folder / name}" for name in ("state", "models", "weights")]
        self.options += [f"--data={EXAMPLES}", "--threads=1", "--nice=0"]

    def __call__(self, action: str) -> int:
        return command.main(ROOT, [action, *self.options])

    def kill(self) -> None:
        if process := self.process():
            os.kill(process, signal.SIGKILL)
            until(lambda: self.process() is None)

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for something that the queue is to do."""
        log = self.folder / "state" / "log.txt"
        until(lambda: what() or "error" in log.read_text())
        assert what(), log.read_text()

    def process(self) -> int | None:
        held = command._Lock(self.folder / "state").running()
        return held[0] if held else None


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("POCKETPRIOR_DATA", raising=False)
    made = Queue(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(900)
def test_killed_queue_goes_on_to_the_same_bits(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL while the first copy is cooled, `start` again, `stop` after a later one; against a run without a stop."""

    def said(action: str) -> str:
        assert queue(action) == 0
        return capsys.readouterr().out

    run = queue.folder / "state" / "tiny" / "predictor"
    assert "started" in said("start")
    queue.until((run / "cooled-00000004" / "recipe.toml").exists)
    assert "the queue is running" in said("start")
    queue.kill()
    assert "not running" in said("stop")
    said("start")
    queue.until(lambda: is_finished(run / "cooled-00000032"))
    assert "tiny/predictor *" in said("table")
    assert "stopped at tiny/predictor" in said("stop")
    assert "the queue is not running" in said("table")
    assert (queue.folder / "weights" / "tiny-predictor.safetensors").exists()

    before = torch.get_num_threads()
    words = zoo_queue._words(read_models(queue.folder / "models")[0].stage[0], {})
    words += ["--data", str(EXAMPLES), "--out", str(queue.folder / "whole"), "--threads", "1", "--set", "cooldown=0"]
    assert main([*words, "--set", "steps=32"]) == 0
    assert main([*words, "--set", "steps=32", "--cool", "4"]) == 0
    torch.set_num_threads(before)
    ours, theirs = (record(folder / "cooled-00000032") for folder in (run, queue.folder / "whole"))
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_queue_needs_photos_and_models(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.options = [option for option in queue.options if not option.startswith("--data")]
    assert queue("start") == queue("work") == 2
    assert capsys.readouterr().err.count("POCKETPRIOR_DATA") == 2
    (queue.folder / "models" / "tiny.toml").unlink()
    assert queue("start") == 2
    assert "no model" in capsys.readouterr().err
