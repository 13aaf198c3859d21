from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pocketprior.core.errors import PackError, UsageError
from pocketprior.export.quantization.plan import PLAN_FORMAT, PrecisionPlan, check_plan, load_plan
from pocketprior.export.targets import TARGETS, targets_of
from pocketprior.export.targets.calibration import FloatPack
from pocketprior.export.targets.weights import GROUP


@pytest.fixture
def plan(opened: FloatPack) -> PrecisionPlan:
    kinds = {layer.name: "int8" if layer.spatial else "w8" for layer in opened.layers}
    kinds[next(layer.name for layer in opened.layers if layer.spatial)] = "w4"
    weights = {layer.name: layer.digest for layer in opened.layers}
    return PrecisionPlan(PLAN_FORMAT, "0" * 64, "1" * 64, "size", 42.0, 43.5, kinds, weights)


def test_a_file_gives_the_same_plan(plan: PrecisionPlan, opened: FloatPack, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(plan.text())
    again = load_plan(tmp_path / "plan.json")
    assert again == plan
    assert again.hash == plan.hash
    check_plan(again, opened.layers)


def test_the_hash_is_of_all_that_is_planned(plan: PrecisionPlan) -> None:
    name = next(iter(plan.levels))
    others = [
        replace(plan, levels={**plan.levels, name: "fp16"}),
        replace(plan, budget_db=43.0),
        replace(plan, samples="2" * 64),
    ]
    assert len({plan.hash, *(other.hash for other in others)}) == 4


def test_a_plan_of_another_model_is_refused(plan: PrecisionPlan, opened: FloatPack) -> None:
    name = next(iter(plan.weights))
    with pytest.raises(UsageError, match="made for another model"):
        check_plan(replace(plan, weights={**plan.weights, name: "f" * 64}), opened.layers)
    dense = next(layer.name for layer in opened.layers if not layer.spatial)
    with pytest.raises(UsageError, match=r"the precision 'int8' for the layer .*; expected one of fp32, fp16, w8"):
        check_plan(replace(plan, levels={**plan.levels, dense: "int8"}), opened.layers)


def test_what_is_no_plan(plan: PrecisionPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_plan(tmp_path / "none.json")
    (tmp_path / "plan.json").write_text(replace(plan, format=7).text())
    with pytest.raises(PackError, match="format 7"):
        load_plan(tmp_path / "plan.json")


def test_what_it_says_to_the_toolchains(plan: PrecisionPlan, opened: FloatPack) -> None:
    told = dict(target.plan(opened, plan.levels) for target in targets_of(TARGETS) if target.plan)
    nodes, ignored, coreml = told["onnx"], told["nncf"], told["coreml"]
    convolutions = [node.name or node.output[0] for node in opened.models["fused"].graph.node if node.op_type == "Conv"]
    named = [name for names in nodes["fused"].values() for name in names]
    assert set(convolutions) <= set(named)
    assert len(named) == len(set(named))
    for graph in opened.models:
        integer = set(nodes[graph].get("int8", []))
        assert integer.isdisjoint(ignored[graph])
        assert integer | set(ignored[graph]) == {name for names in nodes[graph].values() for name in names}
    assert set(coreml["activations"]) == {name for name, level in plan.levels.items() if level == "int8"}
    four = next(name for name, level in plan.levels.items() if level == "w4")
    assert coreml["weights"][four]["dtype"] == "int4"
    assert coreml["weights"][four]["block_size"] == GROUP
