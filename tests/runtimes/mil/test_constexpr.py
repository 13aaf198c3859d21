"""Compressed constants are what coremltools decompresses them to; each form is compared with its definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pocketprior.core.errors import PackError
from pocketprior.runtimes.mil import read_package
from pocketprior.runtimes.mil.ops.quantization import CONSTEXPR

RNG = np.random.default_rng(0)
SHAPE = (6, 4, 2)
SCALES = RNG.random(6, np.float32).astype(np.float16)
BYTES = RNG.integers(-128, 128, SHAPE).astype(np.int8)
TABLE = RNG.standard_normal(4).astype(np.float16)
PLACES = RNG.integers(0, 4, SHAPE).astype(np.uint8)
TABLES = RNG.standard_normal((3, 1, 2, 4, 1)).astype(np.float32)
VECTORS = RNG.standard_normal((1, 2, 1, 4, 3)).astype(np.float32)
BLOCKS = RNG.random((3, 2, 1), np.float32)
ZEROS = RNG.integers(-8, 8, BLOCKS.shape).astype(np.int8)


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers as the older ops store them: one after the other, from the least significant bit on."""
    together = sum(int(number) << (bits * place) for place, number in enumerate(numbers.flat))
    return np.frombuffer(together.to_bytes(-(-numbers.size * bits // 8), "little"), np.uint8)


def block_of(place: tuple[int, ...], blocks: tuple[int, ...], shape: tuple[int, ...] = SHAPE) -> tuple[int, ...]:
    return tuple(i // (n // parts) for i, n, parts in zip(place, shape, blocks, strict=True))


def each(shape: tuple[int, ...], value: Callable[[tuple[int, ...]], float]) -> np.ndarray:
    """An array from a definition that says what its elements are."""
    return np.array([value(place) for place in np.ndindex(shape)], np.float32).reshape(shape)


CASES = {
    "constexpr_affine_dequantize": (
        {"quantized_data": BYTES, "zero_point": np.int8(3), "scale": np.float32(0.1), "axis": 0},
        lambda: each(SHAPE, lambda p: np.float32(0.1) * (int(BYTES[p]) - 3)),
    ),
    "constexpr_affine_dequantize: vectors": (
        {
            "quantized_data": BYTES,
            "zero_point": np.arange(4, dtype=np.int8),
            "scale": BLOCKS[:2].reshape(4),
            "axis": -2,
        },
        lambda: each(SHAPE, lambda p: BLOCKS[:2].reshape(4)[p[1]] * (int(BYTES[p]) - p[1])),
    ),
    "constexpr_blockwise_shift_scale": (
        {"data": BYTES, "scale": BLOCKS},
        lambda: each(SHAPE, lambda p: BLOCKS[block_of(p, BLOCKS.shape)] * BYTES[p]),
    ),
    "constexpr_blockwise_shift_scale: offsets": (
        {"data": BYTES, "scale": BLOCKS, "offset": ZEROS},
        lambda: each(
            SHAPE,
            lambda p: BLOCKS[block_of(p, BLOCKS.shape)] * (int(BYTES[p]) - int(ZEROS[block_of(p, BLOCKS.shape)])),
        ),
    ),
    "constexpr_cast": ({"source_val": SCALES, "output_dtype": "fp32"}, lambda: SCALES.astype(np.float32)),
    "constexpr_lut_to_dense: packed": (
        {"indices": packed(PLACES, 2), "lut": TABLE, "shape": SHAPE},
        lambda: each(SHAPE, lambda p: TABLE[PLACES[p]]),
    ),
    "constexpr_lut_to_dense: tables for blocks": (
        {"indices": PLACES, "lut": TABLES},
        lambda: each(SHAPE, lambda p: TABLES[(*block_of(p, (3, 1, 2)), PLACES[p], 0)]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str) -> None:
    parameters, expected = CASES[case]
    found, wanted = CONSTEXPR[case.partition(":")[0]](**parameters), expected()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "parameters", "message"),
    [
        (
            "constexpr_cast",
            {"source_val": SCALES, "output_dtype": "int8"},
            "expected the output_dtype 'fp32', got",
        ),
        (
            "constexpr_lut_to_dense",
            {"indices": packed(PLACES, 2)[1:], "lut": TABLE, "shape": SHAPE},
            "11 bytes cannot hold 48 numbers of 2 bits",
        ),
        (
            "constexpr_lut_to_dense",
            {"indices": PLACES, "lut": VECTORS},
            "got one of vectors of 3",
        ),
        (
            "constexpr_blockwise_shift_scale",
            {"data": BYTES, "scale": BLOCKS[:, :, [0, 0, 0]]},
            r"parameters of the shape \[3, 2, 3\] do not divide \[6, 4, 2\] into blocks",
        ),
    ],
)
def test_what_has_no_definition(op: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONSTEXPR[op](**parameters)


def network(mb: Any, x: Any) -> dict[str, Any]:
    """A convolution and a linear layer with weights of 16 bits, large enough to be compressed."""
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((32, 16, 3, 3)) / 12).astype(np.float16)
    matrix = (rng.standard_normal((64, 32)) / 6).astype(np.float16)
    y = mb.conv(x=mb.cast(x=x, dtype="fp16"), weight=kernel, pad_type="same")
    y = mb.reduce_mean(x=mb.relu(x=y), axes=[2, 3])
    return {"y": mb.cast(x=mb.linear(x=y, weight=matrix), dtype="fp32")}


def palette(library: Any, bits: int, **options: Any) -> Any:
    return "palettize_weights", library.OpPalettizerConfig(nbits=bits, mode="uniform", **options)


def linear(library: Any, dtype: str, **options: Any) -> Any:
    return "linear_quantize_weights", library.OpLinearQuantizerConfig(mode="linear", dtype=dtype, **options)


GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}
LUT, AFFINE, SHIFT = "lut_to_dense", "affine_dequantize", "blockwise_shift_scale"
Step = Callable[[Any], Any]
COMPRESSIONS: dict[str, tuple[str, list[Step], set[str]]] = {  # target, what is done, the ops that come of it
    **{
        f"palette of {bits} bits": ("iOS16", [lambda o, bits=bits: palette(o, bits)], {LUT}) for bits in (1, 2, 4, 6, 8)
    },
    "palette of 3 bits": ("iOS18", [lambda o: palette(o, 3)], {LUT}),
    "palettes of groups": ("iOS18", [lambda o: palette(o, 4, **GROUPS)], {LUT}),
    "palettes with scales": (
        "iOS18",
        [lambda o: palette(o, 4, enable_per_channel_scale=True, **GROUPS)],
        {LUT, SHIFT},
    ),
    "int8": ("iOS16", [lambda o: linear(o, "int8")], {AFFINE}),
    "uint8 of a tensor": ("iOS17", [lambda o: linear(o, "uint8", granularity="per_tensor")], {AFFINE}),
    "int8 in iOS 18": ("iOS18", [lambda o: linear(o, "int8")], {SHIFT}),
    "int4 in blocks": ("iOS18", [lambda o: linear(o, "int4", granularity="per_block", block_size=16)], {SHIFT}),
    "uint4 in blocks": ("iOS18", [lambda o: linear(o, "uint4", granularity="per_block", block_size=16)], {SHIFT}),
}


def ops_of(model: Any) -> set[str]:
    """The constant ops of a model of coremltools."""
    blocks = model.get_spec().mlProgram.functions["main"].block_specializations.values()
    return {op.type for block in blocks for op in block.operations if op.type.startswith("constexpr_")}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_compressed_package_is_what_it_is_decompressed(
    name: str, tools: SimpleNamespace, build: Any, tmp_path: Path
) -> None:
    """By coremltools: bit for bit, and the constants are compressed indeed."""
    target, steps, ops = COMPRESSIONS[name]

    def compress(model: Any) -> Any:
        for step in steps:
            function, config = step(tools.optimize)
            model = getattr(tools.optimize, function)(model, tools.optimize.OptimizationConfig(global_config=config))
        assert ops_of(model) == {f"constexpr_{op}" for op in ops}
        tools.optimize.decompress_weights(model).save(str(tmp_path / "plain.mlpackage"))
        return model

    inputs = {"x": ((1, 16, 8, 8), "fp32")}
    small = build(tmp_path / "small.mlpackage", inputs, network, target, change=compress)
    x = RNG.standard_normal((1, 16, 8, 8), np.float32)
    found, expected = (
        read_package(path).function("main").run({"x": x})["y"] for path in (small, tmp_path / "plain.mlpackage")
    )
    assert np.ptp(expected) > 0.1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_a_constant_of_another_type(target: str, build: Any, tmp_path: Path) -> None:
    """Its parameters are attributes of the op up to iOS 17, then inputs."""

    def body(mb: Any, x: Any) -> dict[str, Any]:
        return {"y": mb.add(x=x, y=mb.constexpr_cast(source_val=SCALES, output_dtype="fp32"))}

    program = read_package(build(tmp_path / "x.mlpackage", {"x": ((6,), "fp32")}, body, target)).function("main")
    np.testing.assert_array_equal(program.run({"x": np.zeros(6, np.float32)})["y"], SCALES.astype(np.float32))


def blockwise(mb: Any, x: Any) -> dict[str, Any]:
    return {"y": mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=BYTES, scale=BLOCKS))}


def takes_an_input(op: Any) -> None:
    op.inputs["scale"].arguments[0].ClearField("value")
    op.inputs["scale"].arguments[0].name = "x"


def is_declared_larger(op: Any) -> None:
    op.outputs[0].type.tensorType.dimensions[0].constant.size = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (takes_an_input, r"op 'constexpr_blockwise_shift_scale' of '.*depends on the values \['x'\]"),
        (is_declared_larger, r"the program declares float32 \[7, 4, 2\], got \(6, 4, 2\); export the package"),
    ],
)
def test_a_constant_that_cannot_be_made(change: Any, message: str, build: Any, rewrite: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "x.mlpackage", {"x": (SHAPE, "fp32")}, blockwise)
    rewrite(path, lambda _, block: change(next(op for op in block.operations if op.type.startswith("constexpr"))))
    with pytest.raises(PackError, match=message):
        read_package(path).function("main")
