"""The rules that a manifest is checked against, each with an error that says what was given and what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..errors import PackError
from ..sampling.noise import NOISE_SPEC
from .systems import IMAGE, SYSTEMS, ArraySpec

if TYPE_CHECKING:
    from .manifest import GraphSpec, Manifest, PackedFile

__all__ = ["FILE", "MANIFEST_FORMAT", "TARGETS", "check_graph", "check_manifest", "require"]

MANIFEST_FORMAT = 1
FILE = "manifest.json"
TARGETS = ("onnx", "openvino", "coreml", "replay")
_DTYPES = ("float32",)
_SYMBOLS = ("h", "w")


def require(fits: bool, field: str, given: object, expected: str) -> None:
    """Raise PackError, naming the field, the value and what is expected, unless it `fits`."""
    if not fits:
        raise PackError(f"{field}: given {given!r}, expected {expected}; export the pack again")


def check_graph(graph: GraphSpec) -> None:
    """Raise PackError for a graph with an unknown dtype, shape or target, or with parts of no file."""
    for name, array in {**graph.inputs, **graph.outputs}.items():
        require(array.dtype in _DTYPES, f"dtype of {name}", array.dtype, _one_of(_DTYPES))
        fits = all(s in _SYMBOLS if isinstance(s, str) else s >= 1 for s in array.shape)
        require(fits, f"shape of {name}", list(array.shape), "positive numbers, 'h' and 'w'")
    for target in graph.files:
        require(target in TARGETS, "target", target, _one_of(TARGETS))
    for target, parts in graph.parts.items():
        known = set(graph.files.get(target, {}))
        require(set(parts) <= known, f"parts of {target}", sorted(parts), _one_of(sorted(known)))
    named = not graph.function or graph.function.isidentifier()
    require(named, "function", graph.function, "letters, digits and _, or nothing")


def check_manifest(m: Manifest) -> None:
    """Raise PackError for the first rule that a manifest breaks."""
    _check_values(m)
    _check_names(m)
    _check_arrays_of_graphs(m)
    _check_files(m)
    _check_precision(m)
    _check_further(m)


def _one_of(names: Iterable[str]) -> str:
    return f"one of: {', '.join(names)}"


def _check_values(m: Manifest) -> None:
    require(m.format == MANIFEST_FORMAT, "format", m.format, str(MANIFEST_FORMAT))
    require(m.model in SYSTEMS, "model", m.model, _one_of(SYSTEMS))
    system = SYSTEMS[m.model]
    require(m.sampler in system.samplers, "sampler", m.sampler, _one_of(system.samplers))
    predicts = system.samplers[m.sampler]
    require(m.predicts in predicts, "predicts", m.predicts, _one_of(predicts))
    require(m.start == system.start, "start", m.start, system.start)
    require(m.noise == NOISE_SPEC, "noise", m.noise, NOISE_SPEC)
    require(len(m.tasks) == len(set(m.tasks)) > 0, "tasks", list(m.tasks), "one or more different names")
    require(m.value_range == (0.0, 1.0), "value_range", list(m.value_range), "[0, 1]")
    rising = all(a < b for a, b in pairwise(m.levels))
    ends = len(m.levels) >= 2 and min(m.levels) >= 0 and m.levels[-1] == 1
    require(rising and ends, "levels", list(m.levels), "two or more rising numbers, from 0 or above to 1")
    steps = len(m.levels) - 1
    inside = len(m.times) == steps and all(0 <= t <= 1 for t in m.times)
    require(inside, "times", list(m.times), f"{steps} numbers in 0..1, one per step")
    if not SYSTEMS[m.model].vector:
        require(m.state == IMAGE.shape, "state", list(m.state), str(list(IMAGE.shape)))
    else:
        vector = len(m.state) == 2 and m.state[0] == 1 and not isinstance(m.state[1], str)
        require(vector, "state", list(m.state), "[1, n], a vector for the whole photo")
    require(m.residual_scale > 0, "residual_scale", m.residual_scale, "a number above 0")
    if m.start == "image":
        require(min(m.levels) > 0, "levels", list(m.levels), "a first number above 0: something is left of the image")
        require(m.residual_scale == 0.5, "residual_scale", m.residual_scale, "0.5: the state is in -1..1")
    if m.start_level is not None:
        require(m.start == "image", "start_level", m.start_level, 'null where the start is not "image"')
        require(m.start_level in m.levels, "start_level", m.start_level, f"one of the levels {list(m.levels)}")
        fits = m.start_level < 1 or "fused" not in m.graphs
        require(fits, "start_level", m.start_level, "a level below 1 for a fused graph, which adds noise to reach it")
    require(m.gain > 0, "gain", m.gain, "a number above 0")


def _check_names(m: Manifest) -> None:
    """The graphs are those of the system, and the facts about graphs name exactly those."""
    system, given = SYSTEMS[m.model], set(m.graphs)
    known = dict.fromkeys([*system.split, *system.graphs])
    require(given <= set(known), "graphs", sorted(given), f"names from: {', '.join(known)}")
    steps = [name for name in system.split if name != "encode"]
    whole = given.issuperset(steps) or ("fused" in given and given.isdisjoint(steps))
    require(whole, "graphs", sorted(given), " and ".join(steps) + ", or fused, or all of them")
    fusible = "fused" not in given or m.sampler != "ancestral"
    require(fusible, "graphs", sorted(given), "no fused graph for a sampler that adds noise on the way")
    conditioned = (system.thumbnail and "encode" in given) == (m.conditions is not None)
    require(conditioned, "conditions", m.conditions, "a thumbnail size with encode of a thumbnail, null without")
    tiled = {name for name, graph in m.graphs.items() if graph.spatial}
    _check_receptive_field(m, tiled)
    _check_facts("bytes_per_pixel", m.bytes_per_pixel, tiled, tiled)
    _check_facts("parameters", m.parameters, set(), given)
    _check_facts("macs_per_pixel", m.macs_per_pixel, set(), tiled)


def _check_receptive_field(m: Manifest, tiled: Set[str]) -> None:
    """Numbers, or windows: one for all graphs that are run in turn, and one for what `encode` takes its means over."""
    windows = {name: field for name, field in m.receptive_field.items() if not isinstance(field, int)}
    edges = {name: field if isinstance(field, int) else field.edge for name, field in m.receptive_field.items()}
    _check_facts("receptive_field", edges, tiled, tiled)
    for name, window in windows.items():
        require(m.size.takes(window), f"receptive_field of {name}", list(window), m.size.expected(window))
    means = windows.pop("encode", None)
    plain = "encode" not in tiled or (means is not None and means.overlap == 0)
    require(plain, "receptive_field of encode", m.receptive_field.get("encode"), "[edge, 0], without overlap")
    shared = sorted(set(windows.values()))
    require(len(shared) <= 1, "receptive_field", shared, "the same [edge, overlap] for all of these graphs")
    for names in (tiled - {"encode", "fused"}, tiled & {"fused"}):
        window = m.window(names)
        if m.size.fixed and window is not None:
            least = m.size.smallest_tile(window)
            require(m.size.takes(window), "size", m.size.minimum, f"{least} or more, for what the graphs see")


def _check_facts(field: str, facts: Mapping[str, float], needed: Set[str], allowed: Set[str]) -> None:
    fits = needed <= set(facts) <= allowed
    require(fits, field, sorted(facts), f"one number for each of: {', '.join(sorted(allowed))}")
    for name, fact in facts.items():
        require(fact >= 0, f"{field} of {name}", fact, "0 or more")


def _check_arrays_of_graphs(m: Manifest) -> None:
    """Inputs and outputs are those of the system; any graph but encode may take conditions as well."""
    state = ArraySpec("float32", m.state)
    encode = m.graphs.get("encode")
    conditions: Mapping[str, ArraySpec] = {} if encode is None else encode.outputs
    if encode is not None:
        thumbnail = m.conditions and ArraySpec("float32", (1, 3, m.conditions.thumbnail, m.conditions.thumbnail))
        _check_arrays("inputs of encode", encode.inputs, {"thumbnail": thumbnail} if thumbnail else {"image": IMAGE})
        vectors = not any(isinstance(size, str) for array in encode.outputs.values() for size in array.shape)
        require(vectors, "outputs of encode", _shapes(encode.outputs), "arrays of one size for any photo")
    for name, graph in m.graphs.items():
        if name == "encode":
            continue
        given = {*graph.inputs, *graph.outputs}
        inputs, outputs = SYSTEMS[m.model].graphs[name].of(state, m.predicts, given)
        taken = {n: c for n, c in conditions.items() if n in given}
        _check_arrays(f"inputs of {name}", graph.inputs, inputs | taken)
        _check_arrays(f"outputs of {name}", graph.outputs, outputs)
    # Where the graphs take the amount, predict returns the amplitude of the texture in place of its scale.
    names = [name for name in ("predict", "fused") if name in m.graphs]
    signs = {"amount" in m.graphs[name].inputs for name in names}
    signs |= {"amplitude" in m.graphs[name].outputs for name in names if name == "predict"}
    require(len(signs) <= 1, "graphs", names, "the input 'amount' of all of them and the output 'amplitude', or none")
    for name in ("residual_scale", "gain") if m.takes_amount else ():
        require(getattr(m, name) == 1, name, getattr(m, name), "1: the texture has its amplitude from predict")


def _check_arrays(field: str, given: Mapping[str, ArraySpec], expected: Mapping[str, ArraySpec]) -> None:
    require(dict(given) == dict(expected), field, _shapes(given), _shapes(expected))


def _shapes(arrays: Mapping[str, ArraySpec]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in sorted(arrays.items()))


def _check_files(m: Manifest) -> None:
    first: dict[str, PackedFile] = {}
    for packed in m.packed_files():
        path = PurePosixPath(packed.file)
        inside = str(path) == packed.file and not path.is_absolute() and ".." not in path.parts
        plain = inside and packed.file not in (".", FILE) and not set("\\:") & set(packed.file)
        require(plain, "file", packed.file, "a path inside the folder of the pack, with / between names")
        digest = len(packed.sha256) == 64 and set(packed.sha256) <= set("0123456789abcdef")
        require(digest, f"sha256 of {packed.file}", packed.sha256, "64 hexadecimal digits")
        require(packed.bytes >= 0, f"bytes of {packed.file}", packed.bytes, "0 or more")
        same = first.setdefault(packed.file, packed)
        require(same == packed, f"file {packed.file}", list(packed), f"the same as before, {list(same)}")
    require(len(m.golden) > 0, "golden", {}, "at least one recorded restoration")


def _check_precision(m: Manifest) -> None:
    """For each target, one of the files of every graph is the one that is run."""
    targets = {target for graph in m.graphs.values() for target in graph.files}
    require(set(m.precision) == targets, "precision", sorted(m.precision), f"targets: {', '.join(sorted(targets))}")
    for target, chosen in m.precision.items():
        require(set(chosen) == set(m.graphs), f"precision of {target}", sorted(chosen), _one_of(m.graphs))
        for name, precision in chosen.items():
            offered = m.graphs[name].files.get(target, {})
            require(precision in offered, f"precision of {target} {name}", precision, _one_of(offered))


def _check_further(m: Manifest) -> None:
    """Every task but the first, or none; each with the rest of the manifest must be one in its own right."""
    if m.further:
        require(set(m.further) == set(m.tasks[1:]), "further", sorted(m.further), f"exactly: {', '.join(m.tasks[1:])}")
    for task in m.further:
        try:
            m.of(task)
        except PackError as error:
            raise type(error)(f"further: {task}: {error}") from None
