from __future__ import annotations

import json

import pytest
from checks import interpreted

TOLERANCE = 2e-4  # relative, float32: sums in another order through whole networks


@pytest.mark.slow
def test_models_on_the_kernels_equal_the_reference_and_compile_without_a_graph_break() -> None:
    findings = [json.loads(line) for line in interpreted("interpreted_models.py").splitlines()]
    assert [found["model"] for found in findings] == ["dtpm", "diffir", "gen2res"]
    assert all(0 < found["eager"] < TOLERANCE and 0 < found["compiled"] < TOLERANCE for found in findings), findings
