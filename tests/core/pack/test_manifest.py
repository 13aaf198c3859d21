"""A manifest is read back as it was written, and anything that is not one is refused with the valid choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from pocketprior.core.errors import PackError, PackVersionError, UnknownNameError
from pocketprior.core.pack.manifest import FILE, Manifest, PackedFile, TaskFacts, TileWindow, mirror
from support import packs, system_packs

Tree = dict[str, Any]


def change(pack: Path, edit: Callable[[Tree], object]) -> None:
    """Edit the JSON of the manifest in `pack`."""
    tree = json.loads((pack / FILE).read_text())
    edit(tree)
    (pack / FILE).write_text(json.dumps(tree))


def put(*place_and_value: Any) -> Callable[[Tree], object]:
    """An edit: set the value (last) at the place (keys)."""
    *place, last, value = place_and_value

    def edit(tree: Tree) -> None:
        for key in place:
            tree = tree[key]
        tree[last] = value

    return edit


def test_saved_and_loaded_is_equal(built_pack: Path, manifest: Manifest, tmp_path: Path) -> None:
    for packed in manifest.files():
        (tmp_path / packed.file).parent.mkdir(exist_ok=True)
        (tmp_path / packed.file).touch()
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert (tmp_path / FILE).read_bytes() == (built_pack / FILE).read_bytes()


def test_bytes_do_not_depend_on_the_order_of_mappings(pack: Path, manifest: Manifest) -> None:
    before = (pack / FILE).read_bytes()
    backwards = dict(reversed(manifest.graphs.items()))
    replace(manifest, graphs=backwards).save(pack)
    assert (pack / FILE).read_bytes() == before


def test_is_frozen(manifest: Manifest) -> None:
    with pytest.raises(FrozenInstanceError):
        manifest.gain = 1.0  # type: ignore[misc]


def test_files_once_each_by_path(manifest: Manifest) -> None:
    names = [packed.file for packed in manifest.files()]
    assert names == ["README.md", "denoise.onnx", "encode.onnx", "fused.onnx", "golden/noisy.npz", "predict.onnx"]


def test_radius_counts_each_step(manifest: Manifest) -> None:
    assert manifest.radius(["predict", "denoise"]) == packs.RADIUS * (1 + len(manifest.times))
    assert manifest.radius(["predict"]) == packs.RADIUS
    assert manifest.radius(["fused"]) == manifest.receptive_field["fused"]


def test_graph_file_of_a_target_it_has_not(manifest: Manifest) -> None:
    assert manifest.graph_file("denoise", "onnx").file == "denoise.onnx"
    with pytest.raises(PackError, match="no graphs for replay; it has: onnx"):
        manifest.graph_file("denoise", "replay")


def test_mirror_is_json_without_what_comes_after_the_graphs(manifest: Manifest) -> None:
    tree = json.loads(mirror(manifest))
    assert tree["levels"] == list(manifest.levels)
    assert set(tree["graphs"]["denoise"]) == {"inputs", "outputs"}
    assert not {"golden", "card", "parity", "precision"} & set(tree)


def test_saving_where_a_file_is_missing_writes_nothing(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no file 'README.md'"):
        manifest.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# what is wrong: (edit, words that the message has)
WRONG: dict[str, tuple[Callable[[Tree], object], str]] = {
    "unknown field": (put("colour", "blue"), "unknown field 'colour'; valid fields are: format, name, model"),
    "unknown field deep down": (put("size", "maximum", 9), "size: unknown field 'maximum'; valid.*multiple_of"),
    "missing field": (lambda tree: tree.pop("gain"), "the field 'gain' is missing"),
    "string for a number": (put("gain", "1"), 'gain: given "1", expected float'),
    "number for a string": (put("name", 3), "name: given 3, expected str"),
    "true for a number": (put("size", "minimum", True), "minimum: given true, expected int"),
    "fraction for a whole number": (put("size", "minimum", 8.0), "minimum: given 8.0, expected int"),
    "null": (put("levels", None), "levels: given null, expected a list"),
    "list for an object": (put("graphs", []), "graphs: given .*expected an object"),
    "short row": (put("card", ["README.md"]), "expected a list of 3: file, sha256, bytes"),
    "infinite": (put("residual_scale", 10**400), "expected a finite number"),
    "unknown model": (put("model", "unet"), "model: given 'unet', expected one of: dtpm, diffir, gen2res"),
    "unknown sampler": (put("sampler", "euler"), "sampler: given 'euler', expected one of: ddim"),
    "unknown prediction": (put("predicts", "eps"), "predicts: given 'eps', expected one of: v"),
    "unknown start": (put("start", "input"), "start: given 'input', expected noise"),
    "unknown noise": (put("noise", "mt19937"), "noise: given 'mt19937', expected philox4x32-10"),
    "unknown target": (
        put("graphs", "encode", "files", {"tflite": {}}),
        "target: given 'tflite', expected one of: onnx",
    ),
    "unknown dtype": (
        put("graphs", "encode", "inputs", "thumbnail", ["float16", [1, 3, 8, 8]]),
        "expected one of: float32",
    ),
    "unknown symbol": (put("state", [1, 3, "y", "x"]), "state: given"),
    "shape of a graph": (
        put("graphs", "predict", "inputs", "image", ["float32", [1, "c", "h", "w"]]),
        "shape of image: given .*positive numbers",
    ),
    "no task": (put("tasks", []), "tasks: given .*one or more"),
    "task twice": (put("tasks", ["a", "a"]), "different names"),
    "another value range": (put("value_range", [-1, 1]), r"value_range: given .* expected \[0, 1\]"),
    "falling levels": (put("levels", [0.6, 0.0, 1.0]), "levels: given .*rising"),
    "levels that do not end clean": (put("levels", [0.0, 0.5, 0.9]), "to 1"),
    "one level": (put("levels", [1.0]), "two or more"),
    "times for other steps": (put("times", [1.0]), "2 numbers in 0..1, one per step"),
    "time out of range": (put("times", [1000, 500]), "2 numbers in 0..1"),
    "no residual scale": (put("residual_scale", 0), "residual_scale: given 0.0, expected a number above 0"),
    "minimum off the grid": (put("size", "minimum", 6), "minimum: given 6, expected a multiple of 4"),
    "no multiple": (put("size", "multiple_of", 0), "multiple_of: given 0"),
    "unknown graph": (lambda t: t["graphs"].update(guide=t["graphs"]["predict"]), "names from: encode, predict"),
    "half a pipeline": (lambda t: t["graphs"].pop("denoise"), "predict and denoise, or fused"),
    "conditions without encode": (lambda t: t["graphs"].pop("encode"), "conditions: given"),
    "encode without conditions": (put("conditions", None), "conditions: given None"),
    "another input": (
        lambda t: t["graphs"]["denoise"]["inputs"].pop("t"),
        "inputs of denoise: given .*expected.*t float32",
    ),
    "another output": (
        lambda t: t["graphs"]["denoise"]["outputs"].update(eps=t["graphs"]["denoise"]["outputs"].pop("v")),
        "outputs of denoise: given .eps",
    ),
    "fact missing": (lambda t: t["receptive_field"].pop("fused"), "receptive_field: given .*denoise, fused, predict"),
    "fact too much": (lambda t: t["bytes_per_pixel"].update(encode=1), "bytes_per_pixel: given"),
    "fact below zero": (put("receptive_field", "fused", -1), "receptive_field of fused: given -1"),
    "no golden": (put("golden", {}), "golden: given {}, expected at least one"),
    "tolerance": (put("golden", "noisy", "tolerance", 256), "tolerance: given 256"),
    "path upwards": (put("card", ["../README.md", "0" * 64, 1]), "a path inside the folder"),
    "path upwards inside": (put("card", ["a/../../README.md", "0" * 64, 1]), "a path inside the folder"),
    "absolute path": (put("card", ["/etc/passwd", "0" * 64, 1]), "a path inside the folder"),
    "drive": (put("card", ["C:README.md", "0" * 64, 1]), "a path inside the folder"),
    "backslash": (put("card", ["..\\README.md", "0" * 64, 1]), "a path inside the folder"),
    "the manifest itself": (put("card", [FILE, "0" * 64, 1]), "a path inside the folder"),
    "no path": (put("card", ["", "0" * 64, 1]), "a path inside the folder"),
    "no hash": (put("card", ["README.md", "abc", 1]), "64 hexadecimal digits"),
    "two hashes for one file": (
        lambda t: t.update(card=[*t["graphs"]["encode"]["files"]["onnx"]["fp32"][:2], 5]),
        "the same as before",
    ),
    "missing file": (put("card", ["CARD.md", "0" * 64, 1]), "has no file 'CARD.md'"),
    "precision of nothing": (
        put("precision", "onnx", "encode", "int4"),
        "precision of onnx encode: given 'int4'.*fp32",
    ),
    "precision of some": (lambda t: t["precision"]["onnx"].pop("encode"), "precision of onnx: given"),
    "precision without target": (put("precision", {}), "precision: given .*targets: onnx"),
}


@pytest.mark.parametrize(("edit", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(pack: Path, edit: Callable[[Tree], object], words: str) -> None:
    change(pack, edit)
    with pytest.raises(PackError, match=words) as raised:
        Manifest.load(pack)
    assert str(pack) in str(raised.value)


# the same for the other systems
WRONG_DIFFIR: dict[str, tuple[Callable[[Tree], object], str]] = {
    "sampler of another system": (put("sampler", "ddim"), "sampler: given 'ddim', expected one of: posterior_mean"),
    "prediction of another": (put("predicts", "v"), "predicts: given 'v', expected one of: x0"),
    "image-sized state": (put("state", [1, 3, "h", "w"]), r"state: given .*expected \[1, n\]"),
    "free state": (put("state", [1, "h"]), r"state: given .*expected \[1, n\]"),
    "graph of another": (lambda t: t["graphs"].update(predict=t["graphs"]["compose"]), "encode, denoise, compose"),
    "half a pipeline": (lambda t: t["graphs"].pop("compose"), "graphs: given .*expected denoise and compose"),
    "thumbnail": (put("conditions", {"thumbnail": 8}), "conditions: given .*null without"),
    "conditions that grow": (
        put("graphs", "encode", "outputs", "features", ["float32", [1, 5, "h", "w"]]),
        "outputs of encode: given .*one size for any photo",
    ),
    "encode of a thumbnail": (
        lambda t: t["graphs"]["encode"].update(inputs={"thumbnail": ["float32", [1, 3, "h", "w"]]}),
        "inputs of encode: given .thumbnail .*expected image float32",
    ),
    "compose without prior": (
        lambda t: t["graphs"]["compose"]["inputs"].pop("prior"),
        "inputs of compose: given .*expected.*prior float32",
    ),
    "a prior of another length": (
        put("graphs", "compose", "inputs", "prior", ["float32", [1, 8]]),
        r"inputs of compose: .*expected.*prior float32 \[1, 7\]",
    ),
    "window off the grid": (put("receptive_field", "compose", [98, 16]), "of compose: given .*a multiple of 4"),
    "window that is all overlap": (put("receptive_field", "compose", [48, 16]), "an edge of 52 or more"),
    "overlap below zero": (put("receptive_field", "compose", [96, -1]), r"expected \[edge, overlap\]"),
    "window of one number": (put("receptive_field", "compose", [96]), "expected a list of 2: edge, overlap"),
    "window of words": (put("receptive_field", "compose", ["96", 16]), 'edge: given "96", expected int'),
    "means that overlap": (put("receptive_field", "encode", [64, 8]), "of encode: given .*without overlap"),
    "means of any tile": (put("receptive_field", "encode", 3), "of encode: given 3, expected .edge, 0."),
}
WRONG_GEN2RES: dict[str, tuple[Callable[[Tree], object], str]] = {
    "sampler of another system": (put("sampler", "posterior_mean"), "expected one of: ddim, ancestral"),
    "start of another": (put("start", "noise"), "start: given 'noise', expected image"),
    "pure noise": (put("levels", [0.0, 0.5, 0.9, 1.0]), "levels: given .*above 0: something is left of the image"),
    "a scale that is none": (put("residual_scale", 1.0), "residual_scale: given 1.0, expected 0.5"),
    "vector": (put("state", [1, 7]), "state: given"),
    "encode": (lambda t: t["graphs"].update(encode=t["graphs"]["denoise"]), "names from: denoise"),
    "nothing": (put("graphs", {}), "graphs: given .*expected denoise"),
    "two variances": (
        put("graphs", "denoise", "outputs", "more", ["float32", [1, 3, "h", "w"]]),
        "outputs of denoise: given .*expected eps .*variance",
    ),
}
WRONG_BESIDE = [
    pytest.param(tiny, edit, words, id=f"{tiny.fields['model']}: {name}")
    for tiny, wrong in ((system_packs.DIFFIR, WRONG_DIFFIR), (system_packs.ANCESTRAL, WRONG_GEN2RES))
    for name, (edit, words) in wrong.items()
]


@pytest.mark.parametrize(("tiny", "edit", "words"), WRONG_BESIDE)
def test_what_is_wrong_in_the_other_systems_is_said(
    tmp_path: Path, tiny: packs.Tiny, edit: Callable[[Tree], object], words: str
) -> None:
    packs.build(tmp_path, tiny, golden=False)
    change(tmp_path, edit)
    with pytest.raises(PackError, match=words):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("tiny", [system_packs.DIFFIR, system_packs.GEN2RES, system_packs.ANCESTRAL])
def test_the_other_systems_are_read_back_too(tmp_path: Path, tiny: packs.Tiny) -> None:
    manifest = packs.build(tmp_path, tiny, golden=False)
    written = (tmp_path / FILE).read_bytes()
    assert Manifest.load(tmp_path) == manifest
    manifest.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == written


def test_windows_of_graphs_in_turn_are_the_same(pack: Path) -> None:
    reach = {"predict": [96, 16], "denoise": [96, 16], "fused": [96, 16]}
    change(pack, put("receptive_field", reach))
    manifest = Manifest.load(pack)
    assert manifest.window(["predict", "denoise"]) == TileWindow(96, 16)
    change(pack, put("receptive_field", reach | {"predict": 9}))
    assert Manifest.load(pack).window(["predict", "denoise"]) == TileWindow(96, 16)
    change(pack, put("receptive_field", reach | {"predict": [104, 16]}))
    with pytest.raises(PackError, match=r"receptive_field: given .*expected the same \[edge, overlap\]"):
        Manifest.load(pack)


def test_denoise_of_a_dtpm_may_take_the_image_too(pack: Path) -> None:
    image = ["float32", [1, 3, "h", "w"]]
    change(pack, put("graphs", "denoise", "inputs", "image", image))
    assert "image" in Manifest.load(pack).graphs["denoise"].inputs
    change(pack, put("graphs", "denoise", "outputs", "variance", image))
    with pytest.raises(PackError, match=r"outputs of denoise: given .*variance"):
        Manifest.load(pack)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_its_own_error(pack: Path, version: object) -> None:
    change(pack, put("format", version))
    with pytest.raises(PackVersionError, match="reads format 1; update pocketprior"):
        Manifest.load(pack)


def test_another_format_is_said_before_its_fields(pack: Path) -> None:
    (pack / FILE).write_text('{"format": 2, "new": 1}')
    with pytest.raises(PackVersionError):
        Manifest.load(pack)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1, "format": 1}', '{"gain": NaN}', "[" * 10**5])
def test_what_is_not_json(pack: Path, text: str) -> None:
    (pack / FILE).write_text(text)
    with pytest.raises(PackError, match="not valid JSON"):
        Manifest.load(pack)


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}"])
def test_json_of_something_else(pack: Path, text: str) -> None:
    (pack / FILE).write_text(text)
    with pytest.raises(PackVersionError):
        Manifest.load(pack)


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="expected the folder of a pack"):
        Manifest.load(tmp_path / "none")
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(PackError, match="cannot be read"):
        Manifest.load(tmp_path)


def test_a_pack_of_fewer_graphs(tmp_path: Path) -> None:
    packs.build(tmp_path / "fused", graphs=("encode", "fused"))
    packs.build(tmp_path / "split", graphs=("encode", "predict", "denoise"))
    assert set(Manifest.load(tmp_path / "fused").graphs) == {"encode", "fused"}
    assert set(Manifest.load(tmp_path / "split").graphs) == {"encode", "predict", "denoise"}


def test_a_manifest_made_in_memory_checks_itself(manifest: Manifest) -> None:
    with pytest.raises(PackError, match="64 hexadecimal"):
        replace(manifest, card=PackedFile("README.md", "0", 1))


def facts_of(manifest: Manifest, **changes: Any) -> TaskFacts:
    """A further task that has what the first has, but for `changes`."""
    own = {name: getattr(manifest, name) for name in TaskFacts.__dataclass_fields__}
    return TaskFacts(**(own | changes))


def test_further_tasks_are_read_back_and_taken_apart(pack: Path, manifest: Manifest) -> None:
    named = {name: replace(spec, function=f"rain__{name}") for name, spec in manifest.graphs.items()}
    further = {"rain": facts_of(manifest, graphs=named, residual_scale=0.125)}
    both = replace(manifest, tasks=("cleanup", "rain"), further=further)
    both.save(pack)
    assert Manifest.load(pack) == both
    assert both.of(None) == both.of("cleanup") == replace(both, tasks=("cleanup",), further={})
    assert both.of("rain") == replace(manifest, tasks=("rain",), graphs=named, residual_scale=0.125)
    assert [one.tasks for one in both.per_task()] == [("cleanup",), ("rain",)]
    with pytest.raises(UnknownNameError, match=r"'haze'.*cleanup, rain"):
        both.of("haze")


def test_tasks_without_graphs_of_their_own_share_all(manifest: Manifest) -> None:
    both = replace(manifest, tasks=("cleanup", "rain"))
    assert both.of("rain") is both
    assert both.per_task() == [both]


def test_the_files_of_all_tasks_are_listed_and_must_be_there(pack: Path, manifest: Manifest) -> None:
    lost = PackedFile("rain.predict.onnx", "0" * 64, 1)
    graph = replace(manifest.graphs["predict"], files={"onnx": {"fp32": lost}})
    further = {"rain": facts_of(manifest, graphs={**manifest.graphs, "predict": graph})}
    both = replace(manifest, tasks=("cleanup", "rain"), further=further)
    assert lost in both.files()
    with pytest.raises(PackError, match=r"no file 'rain\.predict\.onnx'"):
        both.save(pack)
    again = PackedFile(manifest.card.file, "1" * 64, 1)
    other = replace(graph, files={"onnx": {"fp32": again}})
    with pytest.raises(PackError, match=f"file {manifest.card.file}"):
        replace(both, further={"rain": facts_of(manifest, graphs={**manifest.graphs, "predict": other})})


def test_a_function_that_is_no_name(manifest: Manifest) -> None:
    with pytest.raises(PackError, match="function: given 'rain predict', expected letters"):
        replace(manifest.graphs["predict"], function="rain predict")
