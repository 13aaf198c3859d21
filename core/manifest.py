"""The manifest of a pack: all that a program needs to run it, as numbers and names, never as recipes.

A pack is a folder with `manifest.json`, the graphs of one model for one or more targets, golden inputs with their
outputs, and a model card. Which graphs there are, and what goes in and out (float32, NCHW, h and w multiples of
`size.multiple_of`):

    encode    thumbnail (1, 3, s, s)                                   -> global conditions, such as code (1, n)
    predict   image (1, 3, h, w)                                       -> base (1, 3, h, w)
    denoise   x, base (1, 3, h, w), t (1,), any of the conditions      -> v (1, 3, h, w)
    fused     image, noise (1, 3, h, w), strength (1,), any of them    -> restored (1, 3, h, w)

The pair predict and denoise, or fused, or all three; encode only where something takes its conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from .errors import PackError, PackVersionError
from .files import atomic_output, failure_reason
from .noise import NOISE_SPEC
from .strict_json import as_text, as_tree, decode, parse

__all__ = [
    "FILE",
    "FORMAT",
    "GRAPHS",
    "ArraySpec",
    "Conditions",
    "Golden",
    "GraphSpec",
    "Manifest",
    "PackedFile",
    "Size",
    "mirror",
]

FORMAT = 1
FILE = "manifest.json"
DTYPES = ("float32",)
GRAPHS = ("encode", "predict", "denoise", "fused")
MODELS = ("dtpm",)
PREDICTS = ("v",)
SAMPLERS = ("ddim",)
STARTS = ("noise",)
SYMBOLS = ("h", "w")
TARGETS = ("onnx", "replay")


class ArraySpec(NamedTuple):
    """One input or output of a graph; "h" and "w" stand for the height and width of the tile."""

    dtype: str
    shape: tuple[int | str, ...]


IMAGE = ArraySpec("float32", (1, 3, "h", "w"))


class PackedFile(NamedTuple):
    """A file of the pack: its path inside the folder (with /), its hash (hex) and its size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Size:
    """What heights and widths the graphs take."""

    multiple_of: int
    minimum: int

    def __post_init__(self) -> None:
        _require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "1 or more")
        fits = self.minimum >= 1 and self.minimum % self.multiple_of == 0
        _require(fits, "minimum", self.minimum, f"a multiple of {self.multiple_of}")


@dataclass(frozen=True)
class Conditions:
    """What is computed once for the whole photo: `encode` of a thumbnail of this height and width."""

    thumbnail: int

    def __post_init__(self) -> None:
        _require(self.thumbnail >= 1, "thumbnail", self.thumbnail, "1 or more pixels")


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs by name, and the files: target -> precision -> file."""

    inputs: Mapping[str, ArraySpec]
    outputs: Mapping[str, ArraySpec]
    files: Mapping[str, Mapping[str, PackedFile]]

    def __post_init__(self) -> None:
        for name, array in {**self.inputs, **self.outputs}.items():
            _require(array.dtype in DTYPES, f"dtype of {name}", array.dtype, _one_of(DTYPES))
            fits = all(s in SYMBOLS if isinstance(s, str) else s >= 1 for s in array.shape)
            _require(fits, f"shape of {name}", list(array.shape), "positive numbers, 'h' and 'w'")
        for target in self.files:
            _require(target in TARGETS, "target", target, _one_of(TARGETS))

    @property
    def spatial(self) -> bool:
        """Whether the graph works on tiles, not on a vector or a thumbnail."""
        return any("h" in array.shape for array in self.outputs.values())


@dataclass(frozen=True)
class Golden:
    """A recorded restoration; `tolerance` is the largest difference allowed, in 8-bit grey levels, with its reason."""

    file: PackedFile
    tolerance: int
    reason: str

    def __post_init__(self) -> None:
        _require(0 <= self.tolerance <= 255, "tolerance", self.tolerance, "0 to 255 grey levels")


@dataclass(frozen=True)
class Manifest:
    """Everything the pipeline knows about a model. Made by `load` or by an exporter; it checks itself when made.

    levels: abar per step and a final 1.0; times: t per step. receptive_field: the distance in pixels, in each
    direction, from which an output pixel of a graph can be influenced. bytes_per_pixel: measured peak working memory
    of a graph per pixel of its tile. precision: target -> graph -> which of its files is run. parity: where the export
    was compared with the checkpoint, a name -> measure -> number. gain: the share of the residual added at strength 1.
    """

    format: int
    name: str
    model: str
    tasks: tuple[str, ...]
    value_range: tuple[float, ...]
    size: Size
    receptive_field: Mapping[str, int]
    sampler: str
    predicts: str
    start: str
    levels: tuple[float, ...]
    times: tuple[float, ...]
    noise: str
    state: tuple[int | str, ...]
    residual_scale: float
    gain: float
    conditions: Conditions | None
    graphs: Mapping[str, GraphSpec]
    precision: Mapping[str, Mapping[str, str]]
    parameters: Mapping[str, int]
    macs_per_pixel: Mapping[str, float]
    bytes_per_pixel: Mapping[str, int]
    parity: Mapping[str, Mapping[str, float]]
    made_by: Mapping[str, str]
    card: PackedFile
    golden: Mapping[str, Golden]

    def __post_init__(self) -> None:
        _check_words(self)
        _check_numbers(self)
        _check_names(self)
        _check_graphs(self)
        _check_files(self)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read and check `folder`/manifest.json; each file that it lists must be there.

        Raises PackVersionError for another format, PackError for anything else that is wrong.
        """
        path = folder / FILE
        tree = parse(_read(path), str(path))
        _check_format(tree, path)
        manifest = decode(cls, tree, str(path))
        manifest.check_present(folder)
        return manifest

    def save(self, folder: Path) -> None:
        """Write `folder`/manifest.json in one piece; each file that it lists must be there (PackError)."""
        self.check_present(folder)
        text = as_text(as_tree(self))
        try:
            with atomic_output(folder / FILE, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise PackError(f"{folder / FILE} cannot be written: {failure_reason(error)}") from error

    def check_present(self, folder: Path) -> None:
        """Raise PackError for the first file of the pack that is not in `folder`."""
        for packed in self.files():
            if not (folder / packed.file).is_file():
                raise PackError(
                    f"the pack {folder} has no file '{packed.file}', which its manifest lists; "
                    "copy the whole folder again"
                )

    def condition_arrays(self) -> Mapping[str, ArraySpec]:
        """The global conditions by name: what `encode` gives."""
        return self.graphs["encode"].outputs if "encode" in self.graphs else {}

    def files(self) -> list[PackedFile]:
        """Every file of the pack once, by path."""
        found = {packed.file: packed for packed in _all_files(self)}
        return [found[file] for file in sorted(found)]

    def graph_file(self, graph: str, target: str) -> PackedFile:
        """The file of `graph` that is run for `target`; PackError where the pack has none."""
        if target not in self.precision:
            raise PackError(f"the pack '{self.name}' has no graphs for {target}; it has: {', '.join(self.precision)}")
        return self.graphs[graph].files[target][self.precision[target][graph]]

    def radius(self, graphs: Iterable[str]) -> int:
        """The distance in pixels from which the result of `graphs`, run in turn, can be influenced."""
        runs = {"denoise": len(self.times)}
        return sum(self.receptive_field[name] * runs.get(name, 1) for name in graphs)


def mirror(manifest: Manifest) -> str:
    """The facts that are also written into the graph files (ONNX `metadata_props`): all but files and measurements.

    A graph file cannot hold its own hash, so the fields that come after it are left out.
    """
    tree = as_tree(manifest)
    for name in ("golden", "card", "parity", "precision", "bytes_per_pixel"):
        del tree[name]
    for graph in tree["graphs"].values():
        del graph["files"]
    return as_text(tree)


def _require(fits: bool, field: str, given: object, expected: str) -> None:
    if not fits:
        raise PackError(f"{field}: given {given!r}, expected {expected}; export the pack again")


def _one_of(names: Iterable[str]) -> str:
    return f"one of: {', '.join(names)}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be read ({error}); expected the folder of a pack") from error


def _check_format(tree: object, path: Path) -> None:
    given = cast(dict[str, object], tree).get("format") if isinstance(tree, dict) else None
    if given != FORMAT:
        raise PackVersionError(
            f"{path}: the pack has format {given!r}, this version of pocketprior reads format {FORMAT}; "
            "update pocketprior, or export the pack again"
        )


def _check_words(m: Manifest) -> None:
    _require(m.format == FORMAT, "format", m.format, str(FORMAT))
    _require(m.model in MODELS, "model", m.model, _one_of(MODELS))
    _require(m.sampler in SAMPLERS, "sampler", m.sampler, _one_of(SAMPLERS))
    _require(m.predicts in PREDICTS, "predicts", m.predicts, _one_of(PREDICTS))
    _require(m.start in STARTS, "start", m.start, _one_of(STARTS))
    _require(m.noise == NOISE_SPEC, "noise", m.noise, NOISE_SPEC)
    unique = len(m.tasks) == len(set(m.tasks)) > 0
    _require(unique, "tasks", list(m.tasks), "one or more different names")


def _check_numbers(m: Manifest) -> None:
    _require(m.value_range == (0.0, 1.0), "value_range", list(m.value_range), "[0, 1]")
    rising = all(a < b for a, b in pairwise(m.levels))
    ends = len(m.levels) >= 2 and min(m.levels) >= 0 and m.levels[-1] == 1
    _require(rising and ends, "levels", list(m.levels), "two or more rising numbers, from 0 or above to 1")
    steps = len(m.levels) - 1
    inside = len(m.times) == steps and all(0 <= t <= 1 for t in m.times)
    _require(inside, "times", list(m.times), f"{steps} numbers in 0..1, one per step")
    _require(m.state == IMAGE.shape, "state", list(m.state), str(list(IMAGE.shape)))
    _require(m.residual_scale > 0, "residual_scale", m.residual_scale, "a number above 0")
    _require(m.gain > 0, "gain", m.gain, "a number above 0")


def _check_names(m: Manifest) -> None:
    """Which graphs there are, and that the facts about graphs name just those."""
    given, split = set(m.graphs), {"predict", "denoise"}
    _require(given <= set(GRAPHS), "graphs", sorted(given), f"names from: {', '.join(GRAPHS)}")
    whole = given & split in (set[str](), split) and len(given - {"encode"}) > 0
    _require(whole, "graphs", sorted(given), "predict and denoise, or fused, or all three")
    conditioned = ("encode" in given) == (m.conditions is not None)
    _require(conditioned, "conditions", m.conditions, "a thumbnail size with encode, null without")
    tiled = {name for name, graph in m.graphs.items() if graph.spatial}
    _check_facts("receptive_field", m.receptive_field, tiled, tiled)
    _check_facts("bytes_per_pixel", m.bytes_per_pixel, tiled, tiled)
    _check_facts("parameters", m.parameters, set(), given)
    _check_facts("macs_per_pixel", m.macs_per_pixel, set(), tiled)


def _check_facts(field: str, facts: Mapping[str, float], needed: Set[str], allowed: Set[str]) -> None:
    fits = needed <= set(facts) <= allowed
    _require(fits, field, sorted(facts), f"one number for each of: {', '.join(sorted(allowed))}")
    for name, fact in facts.items():
        _require(fact >= 0, f"{field} of {name}", fact, "0 or more")


def _check_graphs(m: Manifest) -> None:
    """Inputs and outputs are those of the pipeline; any graph but encode may take conditions as well."""
    for name, graph in m.graphs.items():
        inputs, outputs = _interface(m, name)
        extra = {n: c for n, c in m.condition_arrays().items() if n in graph.inputs and name != "encode"}
        _check_arrays(f"inputs of {name}", graph.inputs, inputs | extra)
        _check_arrays(f"outputs of {name}", graph.outputs, outputs)


def _interface(m: Manifest, graph: str) -> tuple[dict[str, ArraySpec], dict[str, ArraySpec]]:
    state, scalar = ArraySpec("float32", m.state), ArraySpec("float32", (1,))
    if graph == "predict":
        return {"image": IMAGE}, {"base": IMAGE}
    if graph == "denoise":
        return {"x": state, "base": IMAGE, "t": scalar}, {m.predicts: state}
    if graph == "fused":
        return {"image": IMAGE, "noise": state, "strength": scalar}, {"restored": IMAGE}
    side = m.conditions.thumbnail if m.conditions else 1
    return {"thumbnail": ArraySpec("float32", (1, 3, side, side))}, dict(m.graphs["encode"].outputs)


def _check_arrays(field: str, given: Mapping[str, ArraySpec], expected: Mapping[str, ArraySpec]) -> None:
    _require(dict(given) == dict(expected), field, _shapes(given), _shapes(expected))


def _shapes(arrays: Mapping[str, ArraySpec]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in sorted(arrays.items()))


def _check_files(m: Manifest) -> None:
    for packed in _all_files(m):
        _check_file(packed)
    same: dict[str, PackedFile] = {}
    for packed in _all_files(m):
        first = same.setdefault(packed.file, packed)
        _require(first == packed, f"file {packed.file}", list(packed), f"the same as before, {list(first)}")
    _require(len(m.golden) > 0, "golden", {}, "at least one recorded restoration")
    _check_precision(m)


def _check_file(packed: PackedFile) -> None:
    path = PurePosixPath(packed.file)
    inside = str(path) == packed.file and not path.is_absolute() and ".." not in path.parts
    plain = inside and packed.file not in (".", FILE) and not set("\\:") & set(packed.file)
    _require(plain, "file", packed.file, "a path inside the folder of the pack, with / between names")
    digest = len(packed.sha256) == 64 and set(packed.sha256) <= set("0123456789abcdef")
    _require(digest, f"sha256 of {packed.file}", packed.sha256, "64 hexadecimal digits")
    _require(packed.bytes >= 0, f"bytes of {packed.file}", packed.bytes, "0 or more")


def _check_precision(m: Manifest) -> None:
    """For each target, one of the files of every graph is the one that is run."""
    targets = {target for graph in m.graphs.values() for target in graph.files}
    _require(set(m.precision) == targets, "precision", sorted(m.precision), f"targets: {', '.join(sorted(targets))}")
    for target, chosen in m.precision.items():
        _require(set(chosen) == set(m.graphs), f"precision of {target}", sorted(chosen), _one_of(m.graphs))
        for name, precision in chosen.items():
            offered = m.graphs[name].files.get(target, {})
            _require(precision in offered, f"precision of {target} {name}", precision, _one_of(offered))


def _all_files(m: Manifest) -> Iterator[PackedFile]:
    yield m.card
    yield from (golden.file for golden in m.golden.values())
    for graph in m.graphs.values():
        for by_precision in graph.files.values():
            yield from by_precision.values()
