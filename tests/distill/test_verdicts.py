from __future__ import annotations

from pocketprior.core.training.evaluation.score import MethodFigures
from pocketprior.distill.verdicts import Verdict, best, verdicts

TEACHER = MethodFigures("teacher, 50 steps", {"PSNR": 31.0, "NIQE": 4.0, "SWD": 0.04, "s/MP": 36.0, "chain": 30.0})


def student(steps: int, psnr: float, niqe: float, swd: float, seconds: float, method: str = "x") -> Verdict:
    values = {"PSNR": psnr, "NIQE": niqe, "SWD": swd, "s/MP": seconds, "chain": seconds / 2}
    return Verdict(MethodFigures(f"{method}, {steps} steps", values), TEACHER, steps, method, 50)


def test_requirements_are_those_of_the_number_of_steps() -> None:
    assert student(4, 30.85, 4.15, 0.041, 3).met
    assert not student(4, 30.75, 4.15, 0.041, 3).met
    assert not student(4, 31.0, 4.3, 0.041, 3).met
    assert student(1, 31.0, 4.3, 0.041, 3).met


def test_sentences_say_what_was_missed_and_why() -> None:
    fast, lost, slow = verdicts(
        [student(4, 31.0, 4.0, 0.04, 3), student(4, 32.0, 4.4, 0.04, 3), student(1, 31.0, 4.0, 0.04, 2)],
        "s/MP",
        "chain",
    )
    assert fast.endswith("12.0 times faster, the chain 20.0 times. Within 0.2 dB and 5%: met.")
    assert lost.endswith("missed: texture is being lost.")
    assert "18.0 times faster (35 required: missed), the chain 30.0 times" in slow


def test_best_is_the_one_that_meets_and_looks_best() -> None:
    tried = [student(4, 31.0, 4.1, 0.04, 3, "a"), student(4, 30.0, 3.9, 0.04, 3, "b"), student(1, 31, 4, 0.04, 1)]
    assert best(tried) == ["Best of 2 to 4: a (worse of NIQE and SWD +2.5%)."]
