"""Which files are compared with which, by what a pack holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pocketprior.core.errors import PackError, UnknownNameError, UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.runtimes.parity.formats import _ways
from pocketprior.runtimes.parity.variants import CompareOptions, PackFolder, VariantChain, float_variant, variant_chain


def described(found: VariantChain) -> list[str]:
    return [f"{variant.source}: {variant}" for variant in found.variants]


def with_labels(manifest: Manifest, *labels: str, first: str, target: str = "onnx") -> Manifest:
    """The same files under other names of precisions."""
    graphs = {
        name: replace(spec, files={**spec.files, target: dict.fromkeys(labels, spec.files["onnx"]["fp32"])})
        for name, spec in manifest.graphs.items()
    }
    precision = {**manifest.precision, target: dict.fromkeys(graphs, first)}
    return replace(manifest, graphs=graphs, precision=precision)


ORT, OV = "conversion: fp32 onnx in onnxruntime, fp32", "runtime: fp32 onnx in openvino, fp32"


@pytest.mark.parametrize(
    ("labels", "first", "runtime", "arithmetic", "expected", "kind"),
    [
        (("fp32",), "fp32", "onnxruntime", None, [ORT], "fp32"),
        (("fp32",), "fp32", "openvino", None, [ORT, OV], "fp32"),
        (
            ("fp32",),
            "fp32",
            "openvino",
            "bf16",
            [ORT, OV, "precision: fp32 onnx in openvino, bf16"],
            "half",
        ),
        (
            ("fp32", "fp16"),
            "fp16",
            "onnxruntime",
            None,
            [ORT, "precision: fp16 onnx in onnxruntime, as packed"],
            "half",
        ),
        (
            ("fp32", "int8"),
            "int8",
            "onnxruntime",
            None,
            [ORT, "quantization: int8 onnx in onnxruntime, as packed"],
            "coded",
        ),
        (("int8",), "int8", "onnxruntime", None, ["quantization: int8 onnx in onnxruntime, as packed"], "coded"),
        (
            ("fp32", "w8+bf16"),
            "w8+bf16",
            "openvino",
            None,
            [ORT, OV, "precision: fp32 onnx in openvino, bf16", "quantization: w8+bf16 onnx in openvino, as packed"],
            "coded",
        ),
    ],
)
def test_the_way_to_what_is_shipped(
    labels: tuple[str, ...],
    first: str,
    runtime: str,
    arithmetic: str | None,
    expected: list[str],
    kind: str,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    found = variant_chain(
        PackFolder(tmp_path, with_labels(manifest, *labels, first=first)), CompareOptions(runtime, arithmetic)
    )
    assert described(found) == expected
    assert found.kind == kind
    assert {variant.source for variant in found.variants}.isdisjoint(found.missing)
    assert len(found.variants) + len(found.missing) == 4
    assert all(found.missing.values())


def test_files_of_the_runtime_come_first(manifest: Manifest, tmp_path: Path) -> None:
    both = with_labels(manifest, "fp32", first="fp32", target="openvino")
    assert described(variant_chain(PackFolder(tmp_path, both), CompareOptions("openvino"))) == [
        ORT,
        "runtime: fp32 openvino in openvino, fp32",
    ]


def test_a_runtime_alone_is_held_against_the_reference(manifest: Manifest, tmp_path: Path) -> None:
    """Without ONNX graphs its own float graphs are the conversion."""
    alone = with_labels(manifest, "fp32", first="fp32", target="openvino")
    graphs = {name: replace(spec, files={"openvino": spec.files["openvino"]}) for name, spec in alone.graphs.items()}
    alone = replace(alone, graphs=graphs, precision={"openvino": alone.precision["openvino"]})
    found = variant_chain(PackFolder(tmp_path, alone), CompareOptions("openvino"))
    assert described(found) == ["conversion: fp32 openvino in openvino, fp32"]
    assert found.missing["runtime"] == "the pack has no float32 graphs for onnxruntime to compare with"


def test_a_precision_can_be_chosen(manifest: Manifest, tmp_path: Path) -> None:
    both = PackFolder(tmp_path, with_labels(manifest, "fp32", "w8", first="fp32"))
    assert (
        described(variant_chain(both, CompareOptions(precision="w8")))[-1]
        == "quantization: w8 onnx in onnxruntime, as packed"
    )
    with pytest.raises(UnknownNameError, match="unknown precision of onnx 'w4'; choose one of: fp32, w8"):
        variant_chain(both, CompareOptions(precision="w4"))


def test_the_floats_of_another_pack(manifest: Manifest, tmp_path: Path) -> None:
    coded = PackFolder(tmp_path, with_labels(manifest, "int8", first="int8"))
    found = variant_chain(coded, CompareOptions(), PackFolder(tmp_path / "floats", manifest))
    assert (found.variants[0].source, found.variants[0].folder.name) == ("conversion", "floats")
    with pytest.raises(UsageError, match="is of another model"):
        variant_chain(coded, CompareOptions(), PackFolder(tmp_path, replace(manifest, gain=0.1)))
    assert float_variant(coded) is None


def test_what_there_is_not(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown runtime 'tensorflow'"):
        variant_chain(PackFolder(tmp_path, manifest), CompareOptions("tensorflow"))
    with pytest.raises(PackError, match="has no graphs for coreml; it has: onnx"):
        variant_chain(PackFolder(tmp_path, manifest), CompareOptions("coreml"))


def test_float_graphs_beside_others_are_no_float_pack(manifest: Manifest) -> None:
    """What a plan does not change stays in float32: that is not the pack in float32."""
    mixed = with_labels(manifest, "int8", first="int8")
    name = next(iter(mixed.graphs))
    kept = replace(mixed.graphs[name], files=manifest.graphs[name].files)
    known = replace(
        mixed,
        graphs={**mixed.graphs, name: kept},
        precision={"onnx": {**mixed.precision["onnx"], name: "fp32"}},
    )
    with pytest.raises(UsageError, match=r"has no fp32 file of the graph"):
        variant_chain(PackFolder(Path("pack"), known), CompareOptions(precision="fp32"))
    assert [label for _, label in _ways(known) if label == "fp32"] == []
    assert ("onnxruntime", "int8") in _ways(known)
