from __future__ import annotations

import time

import pytest
import torch

from pocketprior.distill.timing import seconds


def burn(duration: float) -> None:
    until = time.process_time() + duration
    while time.process_time() < until:
        pass


def test_cpu_seconds_are_per_megapixel_and_sleep_is_free() -> None:
    threads = torch.get_num_threads()
    slow, fast, asleep = seconds([lambda: burn(0.02), lambda: burn(0.005), lambda: time.sleep(0.005)], side=100)
    assert slow == pytest.approx(2.0, rel=0.5)
    assert fast == pytest.approx(0.5, rel=0.5)
    assert asleep < fast
    assert torch.get_num_threads() == threads
