from __future__ import annotations

from pocketprior.core.timing import by_clock, interleaved


def test_calls_take_turns_and_warming_up_does_not_count() -> None:
    now, order = [0.0], []

    def call(name: str, taken: float) -> None:
        order.append(name)
        now[0] += taken * (10 if len(order) <= 4 else 1)

    calls = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}
    found = interleaved(calls, 3, by_clock(lambda: now[0]), warm_up=2)
    assert order == list("aabb" + "ab" + "ba" + "ab")
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_a_stopwatch_may_know_its_seconds_later() -> None:
    finished: list[str] = []

    def late(call):
        call()
        return lambda: float(len(finished))  # as the events of a GPU: read when all work is queued

    assert interleaved({"a": lambda: finished.append("a")}, 2, late, warm_up=0) == {"a": [2.0, 2.0]}


def test_nothing_to_time() -> None:
    assert interleaved({}, 3) == {}
