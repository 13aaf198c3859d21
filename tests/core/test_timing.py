from __future__ import annotations

from pocketprior.core.timing import interleaved


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    now, order = [0.0], []

    def call(name: str, taken: float) -> None:
        order.append(name)
        now[0] += taken * (10 if len(order) <= 2 else 1)

    found = interleaved({"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}, 3, lambda: now[0])
    assert order == ["a", "b"] * 4
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}
