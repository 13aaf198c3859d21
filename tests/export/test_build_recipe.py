"""A recipe says all that a build needs, and what is wrong with it is said before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pocketprior.core.errors import PocketPriorError, UsageError
from pocketprior.export.build_recipe import load_recipe, planned, steps_of

WHOLE = """
system = "dtpm"
data = "photos"
task = "noise"
size = "mobile"
sampling = ["--gain=0.7"]

[train]
semantic = ["steps=5"]
predictor = []
prior = []
adapters = ["steps=7", "rate=1e-3"]

[[distill]]
method = "trajectory"
steps = 4

[[distill]]
method = "unrolled"
steps = 2
set = ["steps=9"]

[[distill]]
method = "quantized"
steps = 2

[export]
to = ["onnx", "coreml"]
precision = ["fp32", "fp16"]

[quantize]
budget_db = 42
options = ["--max-size=4MB"]

[parity]
photos = ["proof.jpg"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "build.toml"
    path.write_text(text, encoding="utf-8")
    return path


def calls(folder: Path) -> dict[str, str]:
    recipe = load_recipe(written(folder, WHOLE))
    return {step.name: " ".join(step.arguments) for step in steps_of(recipe, Path("OUT"), Path("HERE"))}


def test_every_step_is_a_call(tmp_path: Path) -> None:
    found = calls(tmp_path)
    assert list(found) == [
        "train semantic",
        "train predictor",
        "train prior",
        "train adapters",
        "distill 1-trajectory-4",
        "distill 2-unrolled-2",
        "distill 3-quantized-2",
        "parity record",
        "export",
        "quantize",
        "parity pack onnx",
        "parity pack coreml",
        "parity pack-quantized onnx",
        "parity pack-quantized coreml",
    ]
    assert found["train adapters"] == (
        "train dtpm adapters --data HERE/photos --out OUT/train/adapters --size mobile --task noise"
        " --semantic OUT/train/semantic/model.safetensors --prior OUT/train/prior/model.safetensors"
        " --predictor OUT/train/predictor/model.safetensors --set steps=7 --set rate=1e-3"
    )
    assert "--task" not in found["train prior"]  # it learns from clean photos


def test_students_go_on_from_one_another(tmp_path: Path) -> None:
    found = calls(tmp_path)
    teacher = "distill OUT/train/adapters/model.safetensors "
    assert found["distill 1-trajectory-4"].startswith(teacher)
    assert "--from" not in found["distill 1-trajectory-4"]
    assert found["distill 2-unrolled-2"].startswith(teacher)
    assert "--from OUT/distill/1-trajectory-4/model.safetensors --set steps=9" in found["distill 2-unrolled-2"]
    assert found["distill 3-quantized-2"].startswith("distill OUT/distill/2-unrolled-2/model.safetensors ")
    assert "--from" not in found["distill 3-quantized-2"]


def test_packs_are_of_the_last_student_and_held_against_it(tmp_path: Path) -> None:
    found, last = calls(tmp_path), "OUT/distill/3-quantized-2/model.safetensors"
    assert found["export"].startswith(f"export {last} ")
    assert "--precision fp32,fp16 --gain=0.7" in found["export"]
    assert found["parity record"].startswith(f"parity record {last} --photos HERE/proof.jpg ")
    assert found["parity record"].endswith("--gain=0.7")
    assert "--to onnx,coreml -o OUT/pack-quantized --budget-db 42.0 --max-size=4MB" in found["quantize"]
    assert (
        "parity run OUT/pack-quantized --against OUT/reference.npz --runtime coreml"
        in found["parity pack-quantized coreml"]
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('system = "dtpm"', 'system = "magic"', "unknown system 'magic'"),
        ("prior = []", "priors = []", "unknown stage of dtpm 'priors'"),
        ("prior = []\n", "prior = []\ndelta = []\n", "'delta' starts from the model of another task"),
        ("prior = []\n", "", "'adapters' needs a 'prior'"),
        ('adapters = ["steps=7", "rate=1e-3"]\n', "", "no stage finishes a dtpm; name one of: adapters, finish"),
        ('data = "photos"\n', "", "the field 'data' is missing"),
        ("budget_db = 42", 'budget_db = "42"', 'budget_db: given "42", expected float; correct the recipe'),
        ("[quantize]", "[quantise]", "unknown field 'quantise'; valid fields are: system"),
        ('to = ["onnx", "coreml"]', 'to = ["coreml"]', "starts from onnx graphs in fp32"),
        ('system = "dtpm"', "system = ", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in WHOLE
    with pytest.raises(PocketPriorError, match=words):
        load_recipe(written(tmp_path, WHOLE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("--max-size=4MB", "--max-siez=4MB", r"\[quantize\]: unrecognized arguments: --max-siez=4MB"),
        ("--max-size=4MB", "--max-size=large", r"\[quantize\]: argument --max-size"),
        ("--max-size=4MB", '--plan=a.json", "--precision=w8', r"\[quantize\]: .*not allowed with argument"),
        ("--gain=0.7", "--gain=-1", r"\[parity record\]: expected a gain above 0, got -1"),
        ("--gain=0.7", "--start=300", r"\[parity record\]: --start was given for a dtpm checkpoint"),
        ('"fp32", "fp16"]', '"fp32", "fp61"]', r"\[export\]: .*precision of onnx 'fp61'"),
        ('"onnx", "coreml"]', '"onnx", "tflite"]', "target 'tflite'"),
        ("steps=7", "stepz=7", r"\[train\] adapters: unknown setting 'stepz=7'"),
        ("steps=9", "steps=many", r"\[\[distill\]\] unrolled: setting 'steps=many'"),
        ('"unrolled"', '"unroled"', r"\[\[distill\]\] unroled: .*method 'unroled'"),
        ('task = "noise"', 'task = "noisy"', "task 'noisy'"),
        (
            "[parity]\n",
            "[parity]\nside = 0\n",
            r"\[parity record\]: argument --side: expected a whole number from 1",
        ),
    ],
)
def test_a_wrong_option_of_any_step_is_found_before_the_first_one(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in WHOLE
    with pytest.raises(PocketPriorError, match=words):
        planned(written(tmp_path, WHOLE.replace(old, new)))


def test_a_right_recipe_is_planned(tmp_path: Path) -> None:
    assert len(planned(written(tmp_path, WHOLE))) == 14


def test_the_recipe_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "build.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = [step.name for step in steps_of(load_recipe(written(tmp_path, text)), Path("OUT"), Path("HERE"))]
    assert names[:6] == [
        *(f"train {stage}" for stage in ("predictor", "prior", "adapters")),
        "distill 1-trajectory-4",
        "distill 2-one_step-1",
        "parity record",
    ]


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")
