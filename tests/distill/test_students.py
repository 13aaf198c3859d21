from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from pocketprior.core.errors import CheckpointError
from pocketprior.core.models import checkpoints
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.core.training.evaluation.score import MethodFigures
from pocketprior.distill import students
from pocketprior.distill.distillation import open_system
from pocketprior.distill.students import StudentFigures, best, collected, cpu_seconds
from pocketprior.distill.system import DistillRecipe
from support.small_models import CONFIG, small_model

FACTS = {"task": "cleanup", "method": "trajectory", "step": 9}


def save(folder: Path, name: str, steps: int = 1, **facts: object) -> None:
    (folder / name).mkdir(parents=True)
    levels, times = trailing(steps, cosine())
    chain = {"levels": levels, "times": times, "steps": steps}
    changed = {k: v for k, v in {**FACTS, **chain, **facts}.items() if v is not None}
    checkpoints.save(folder / name / "model.safetensors", "dtpm", CONFIG, small_model().state_dict(), changed)


def test_students_are_found_most_steps_first(tmp_path: Path) -> None:
    save(tmp_path, "a", steps=1)
    save(tmp_path, "b", steps=4, method="unrolled")
    save(tmp_path, "c", steps=4)
    assert [(e.name, e.method) for e in collected(tmp_path, "dtpm")] == [
        ("c", "trajectory"),
        ("b", "unrolled"),
        ("a", "trajectory"),
    ]
    assert collected(tmp_path, "gen2res") == []


def test_teacher_among_the_students_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "a", method=None)
    with pytest.raises(CheckpointError, match="does not say how it was distilled"):
        collected(tmp_path, "dtpm")


TEACHER = MethodFigures("teacher, 50 steps", {"PSNR": 31.0, "NIQE": 4.0, "SWD": 0.04, "s/MP": 36.0, "chain s/MP": 30.0})


def student(steps: int, psnr: float, niqe: float, swd: float, seconds: float, method: str = "x") -> StudentFigures:
    values = {"PSNR": psnr, "NIQE": niqe, "SWD": swd, "s/MP": seconds, "chain s/MP": seconds / 2}
    return StudentFigures(method, steps, MethodFigures(f"{method}, {steps} steps", values), TEACHER, 50)


def test_sentences_say_what_was_missed_and_why() -> None:
    met = student(4, 31.0, 4.0, 0.04, 3).sentence()
    assert met.endswith("12.0 times faster, the chain 20.0 times. Within 0.2 dB and 5%: met.")
    assert student(4, 32.0, 4.4, 0.04, 3).sentence().endswith("missed: texture is being lost.")
    slow = student(1, 31.0, 4.0, 0.04, 2).sentence()
    assert "18.0 times faster (35 required: missed), the chain 30.0 times" in slow


def test_best_is_the_one_that_meets_and_looks_best() -> None:
    tried = [student(4, 31.0, 4.1, 0.04, 3, "a"), student(4, 30.0, 3.9, 0.04, 3, "b"), student(1, 31, 4, 0.04, 1)]
    assert best(tried) == ["Best of 2 to 4: a (worse of NIQE and SWD +2.5%)."]


def test_cost_is_the_median_per_megapixel_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the times of a clock that is ours: 100 x 100 pixels are a hundredth of a megapixel."""
    threads, seen = torch.get_num_threads(), []

    def measured(calls: Mapping[int, Callable[[], object]], rounds: int) -> dict[int, list[float]]:
        assert rounds == students.ROUNDS
        return {name: [0.03, float(call()), 0.01] for name, call in calls.items()}

    def restoration(seconds: float) -> float:
        seen.append(torch.get_num_threads())
        return seconds

    monkeypatch.setattr(students, "interleaved", measured)
    taken = cpu_seconds([partial(restoration, 0.02), partial(restoration, 9.0)], side=100)
    assert taken == pytest.approx([2.0, 3.0])
    assert seen == [1, 1]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", ["dtpm", "gen2res", "diffir"])
def test_what_is_timed_is_a_restoration_and_its_chain(kind: str, files: dict[str, tuple[Path, str | None]]) -> None:
    system = open_system(*files[kind], DistillRecipe(steps=1))
    model, steps, side = system.teacher, system.steps(0 if kind == "diffir" else 2), 32
    with torch.inference_mode():
        restored, end = (call() for call in system.timed(model, steps, side))
    assert restored.shape[:2] == (1, 3)
    assert end.isfinite().all()
    assert kind == "diffir" or end.shape == restored.shape
