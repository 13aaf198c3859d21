"""The manifest of a pack: all that a program needs to run it, as numbers and names, never as recipes.

A pack is a folder with `manifest.json`, the graphs of one model for one or more targets, golden inputs with their
outputs, and a model card. Which graphs there are, and what goes in and out, is in `systems.py`. A pack of several tasks
has graphs for each of them, whose files share their weights; `Manifest.of` gives the manifest of one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from ..errors import PackError, PackVersionError, UnknownNameError
from ..files import atomic_output, failure_reason
from ..sampling.noise import NOISE_SPEC
from .json import as_text, as_tree, decode, parse
from .size import TileWindow, smallest_tile
from .systems import IMAGE, SYSTEMS, ArraySpec

__all__ = [
    "FILE",
    "FORMAT",
    "ArraySpec",
    "Conditions",
    "Golden",
    "GraphSpec",
    "LimitOverride",
    "Manifest",
    "PackedFile",
    "Size",
    "TaskFacts",
    "mirror",
]

FORMAT = 1
FILE = "manifest.json"
DTYPES = ("float32",)
SYMBOLS = ("h", "w")
TARGETS = ("onnx", "openvino", "coreml", "replay")


class PackedFile(NamedTuple):
    """A file of the pack: its path inside the folder (with /), its hash (hex) and its size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Size:
    """What heights and widths the graphs take: multiples from `minimum` on, or, where they are fixed, that alone."""

    multiple_of: int
    minimum: int
    fixed: bool = False

    def __post_init__(self) -> None:
        _require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "1 or more")
        fits = self.minimum >= 1 and self.minimum % self.multiple_of == 0
        _require(fits, "minimum", self.minimum, f"a multiple of {self.multiple_of}")

    def takes(self, window: TileWindow) -> bool:
        """Whether a photo can be cut into the tiles of this window."""
        edge = window.edge == self.minimum if self.fixed else window.edge % self.multiple_of == 0
        return window.overlap >= 0 and window.edge >= self._least(window) and edge

    def expected(self, window: TileWindow) -> str:
        """What a window with this overlap must be, for a message."""
        which = f"just {self.minimum}" if self.fixed else f"a multiple of {self.multiple_of}"
        return f"[edge, overlap], an edge of {self._least(window)} or more, {which}"

    def _least(self, window: TileWindow) -> int:
        return max(smallest_tile(max(0, window.overlap), self.multiple_of), self.minimum)


@dataclass(frozen=True)
class Conditions:
    """What is computed once for the whole photo: `encode` of a thumbnail of this height and width."""

    thumbnail: int

    def __post_init__(self) -> None:
        _require(self.thumbnail >= 1, "thumbnail", self.thumbnail, "1 or more pixels")


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs by name, and the files: target -> precision -> file.

    parts: target -> precision -> what lies beside that file and belongs to it, such as the weights of an OpenVINO IR;
    another graph may have the same. function: the graph's name in a Core ML package of several tasks, "" for that of
    the graph itself.
    """

    inputs: Mapping[str, ArraySpec]
    outputs: Mapping[str, ArraySpec]
    files: Mapping[str, Mapping[str, PackedFile]]
    parts: Mapping[str, Mapping[str, tuple[PackedFile, ...]]] = field(
        default_factory=dict[str, Mapping[str, tuple[PackedFile, ...]]]
    )
    function: str = ""

    def __post_init__(self) -> None:
        for name, array in {**self.inputs, **self.outputs}.items():
            _require(array.dtype in DTYPES, f"dtype of {name}", array.dtype, _one_of(DTYPES))
            fits = all(s in SYMBOLS if isinstance(s, str) else s >= 1 for s in array.shape)
            _require(fits, f"shape of {name}", list(array.shape), "positive numbers, 'h' and 'w'")
        for target in self.files:
            _require(target in TARGETS, "target", target, _one_of(TARGETS))
        for target, parts in self.parts.items():
            known = set(self.files.get(target, {}))
            _require(set(parts) <= known, f"parts of {target}", sorted(parts), _one_of(sorted(known)))
        named = not self.function or self.function.isidentifier()
        _require(named, "function", self.function, "letters, digits and _, or nothing")

    def sized(self, size: Size) -> GraphSpec:
        """As its files have it: with numbers in the place of "h" and "w" where these are fixed."""
        if not size.fixed:
            return self

        def told(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
            return {
                name: ArraySpec(dtype, tuple(size.minimum if isinstance(s, str) else s for s in shape))
                for name, (dtype, shape) in arrays.items()
            }

        return replace(self, inputs=told(self.inputs), outputs=told(self.outputs))

    @property
    def spatial(self) -> bool:
        """Whether the graph works on tiles, not on a vector or a thumbnail."""
        return any("h" in array.shape for array in {**self.inputs, **self.outputs}.values())


@dataclass(frozen=True)
class Golden:
    """A recorded restoration; `tolerance` is the largest difference allowed, in 8-bit grey levels, with its reason."""

    file: PackedFile
    tolerance: int
    reason: str

    def __post_init__(self) -> None:
        _require(0 <= self.tolerance <= 255, "tolerance", self.tolerance, "0 to 255 grey levels")


@dataclass(frozen=True)
class LimitOverride:
    """What `pocketprior parity` is to allow of a class of graphs, and why; None: what it allows by itself.

    psnr_db: the least; max_abs: of one value; shift: of the mean of a channel; drop_db: PSNR to the clean photos that
    may be lost in the mean.
    """

    reason: str
    psnr_db: float | None = None
    max_abs: float | None = None
    shift: float | None = None
    drop_db: float | None = None

    def __post_init__(self) -> None:
        _require(bool(self.reason), "reason", self.reason, "why the limit is another")
        for name in ("psnr_db", "max_abs", "shift", "drop_db"):
            given = getattr(self, name)
            _require(given is None or given > 0, name, given, "a number above 0")


@dataclass(frozen=True)
class TaskFacts:
    """What a further task of a pack has in the place of the fields of these names in `Manifest`."""

    residual_scale: float
    receptive_field: Mapping[str, int | TileWindow]
    graphs: Mapping[str, GraphSpec]
    precision: Mapping[str, Mapping[str, str]]
    parameters: Mapping[str, int]
    macs_per_pixel: Mapping[str, float]
    bytes_per_pixel: Mapping[str, int]
    parity: Mapping[str, Mapping[str, float]]
    made_by: Mapping[str, str]
    golden: Mapping[str, Golden]


@dataclass(frozen=True)
class Manifest:
    """Everything the pipeline knows about a model. Made by `load` or by an exporter; it checks itself when made.

    levels: abar per step and a final 1.0; times: t per step. receptive_field: the distance in pixels, in each
    direction, from which an output pixel of a graph can be influenced; where that has no limit (attention or
    normalisation over the whole tile), the window that the graph is run on. residual_scale: what one unit of an
    image-sized state is in the image, which is in 0..1; with the start "image", the state is (image - 0.5) /
    residual_scale. start_level: alpha_bar of the level that a photo is noised to at least, its own noise counted; a
    noisier one enters the levels at its own, and with 1.0 any does. None: all are noised to levels[0], as they are in
    packs that have no such field. gain: the share of what the model adds to the photo, or to base, at strength 1; this
    and residual_scale are 1 where predict gives the amplitude of the texture. bytes_per_pixel:
    measured peak working memory of a graph per pixel of its tile. precision: target -> graph -> which of its files is
    run. parity: where the export was compared with the checkpoint, a name -> measure -> number. limits: of parity, by
    the class of what is compared ("fp32", "half", "coded", "form", "host", "task"). further: each task after the first,
    with what is its own; empty where all tasks have the same graphs.
    """

    format: int
    name: str
    model: str
    tasks: tuple[str, ...]
    value_range: tuple[float, ...]
    size: Size
    receptive_field: Mapping[str, int | TileWindow]
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
    start_level: float | None = None
    limits: Mapping[str, LimitOverride] = field(default_factory=dict[str, LimitOverride])
    further: Mapping[str, TaskFacts] = field(default_factory=dict[str, TaskFacts])

    def __post_init__(self) -> None:
        _check_words(self)
        _check_numbers(self)
        _check_names(self)
        _check_graphs(self)
        _check_files(self)
        _check_further(self)

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

    def of(self, task: str | None) -> Manifest:
        """The manifest of one task, None for the first, as if its graphs were the only ones; UnknownNameError."""
        if task is not None and task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks)
        if not self.further:
            return self
        one = task or self.tasks[0]
        own = vars(self.further[one]) if one in self.further else {}
        return replace(self, tasks=(one,), further={}, **own)

    def alone(self) -> list[Manifest]:
        """The manifest of each task that has graphs of its own; of all tasks together where they have the same."""
        return [self.of(task) for task in (self.tasks if self.further else self.tasks[:1])]

    @property
    def takes_amount(self) -> bool:
        """Whether the graphs estimate the damage and take the amount of it that is to be removed."""
        return any("amount" in graph.inputs for graph in self.graphs.values())

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

    def graph_parts(self, graph: str, target: str) -> tuple[PackedFile, ...]:
        """What lies beside `graph_file` and belongs to it."""
        return self.graphs[graph].parts.get(target, {}).get(self.precision[target][graph], ())

    def radius(self, graphs: Iterable[str]) -> int:
        """The distance in pixels from which the result of `graphs`, run in turn, is influenced, if `window` is None."""
        runs = {"denoise": len(self.times)}
        reach = {name: self.receptive_field[name] for name in graphs}
        return sum(r * runs.get(name, 1) for name, r in reach.items() if isinstance(r, int))

    def window(self, graphs: Iterable[str]) -> TileWindow | None:
        """The tiles that `graphs` must be run on, where the reach of one of them has no limit, or sizes are fixed."""
        names = list(graphs)
        windows = (r for r in map(self.receptive_field.__getitem__, names) if isinstance(r, TileWindow))
        free = TileWindow(self.size.minimum, self.radius(names)) if self.size.fixed else None
        return next(windows, free)


def mirror(manifest: Manifest) -> str:
    """The facts that are also written into the graph files (ONNX `metadata_props`): all but files and measurements.

    A graph file cannot hold its own hash, so the fields that come after it are left out, as are further tasks.
    """
    tree = as_tree(manifest)
    for name in ("golden", "card", "parity", "limits", "precision", "bytes_per_pixel", "further"):
        del tree[name]
    if manifest.start_level is None:  # as before there was such a field
        del tree["start_level"]
    for graph in tree["graphs"].values():
        del graph["files"], graph["parts"], graph["function"]
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
    _require(m.model in SYSTEMS, "model", m.model, _one_of(SYSTEMS))
    system = SYSTEMS[m.model]
    _require(m.sampler in system.samplers, "sampler", m.sampler, _one_of(system.samplers))
    predicts = system.samplers[m.sampler]
    _require(m.predicts in predicts, "predicts", m.predicts, _one_of(predicts))
    _require(m.start == system.start, "start", m.start, system.start)
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
    _check_state(m)
    _require(m.residual_scale > 0, "residual_scale", m.residual_scale, "a number above 0")
    if m.start == "image":
        _require(min(m.levels) > 0, "levels", list(m.levels), "a first number above 0: something is left of the image")
        _require(m.residual_scale == 0.5, "residual_scale", m.residual_scale, "0.5: the state is in -1..1")
    _check_start_level(m)
    _require(m.gain > 0, "gain", m.gain, "a number above 0")


def _check_start_level(m: Manifest) -> None:
    if m.start_level is None:
        return
    _require(m.start == "image", "start_level", m.start_level, 'null where the start is not "image"')
    _require(m.start_level in m.levels, "start_level", m.start_level, f"one of the levels {list(m.levels)}")
    fits = m.start_level < 1 or "fused" not in m.graphs
    _require(fits, "start_level", m.start_level, "a level below 1 for a fused graph, which adds noise to reach it")


def _check_state(m: Manifest) -> None:
    if not SYSTEMS[m.model].vector:
        _require(m.state == IMAGE.shape, "state", list(m.state), str(list(IMAGE.shape)))
    elif len(m.state) != 2 or m.state[0] != 1 or isinstance(m.state[1], str):
        _require(False, "state", list(m.state), "[1, n], a vector for the whole photo")


def _check_names(m: Manifest) -> None:
    """Which graphs there are, and that the facts about graphs name just those."""
    system, given = SYSTEMS[m.model], set(m.graphs)
    known = dict.fromkeys([*system.split, *system.graphs])
    _require(given <= set(known), "graphs", sorted(given), f"names from: {', '.join(known)}")
    steps = [name for name in system.split if name != "encode"]
    whole = given.issuperset(steps) or ("fused" in given and given.isdisjoint(steps))
    _require(whole, "graphs", sorted(given), " and ".join(steps) + ", or fused, or all of them")
    told = "fused" not in given or m.sampler != "ancestral"
    _require(told, "graphs", sorted(given), "no fused graph for a sampler that adds noise on the way")
    conditioned = (system.thumbnail and "encode" in given) == (m.conditions is not None)
    _require(conditioned, "conditions", m.conditions, "a thumbnail size with encode of a thumbnail, null without")
    tiled = {name for name, graph in m.graphs.items() if graph.spatial}
    _check_reach(m, tiled)
    _check_facts("bytes_per_pixel", m.bytes_per_pixel, tiled, tiled)
    _check_facts("parameters", m.parameters, set(), given)
    _check_facts("macs_per_pixel", m.macs_per_pixel, set(), tiled)


def _check_reach(m: Manifest, tiled: Set[str]) -> None:
    """Numbers, or windows: one for all graphs that are run in turn, and one for what `encode` takes its means over."""
    windows = {name: reach for name, reach in m.receptive_field.items() if isinstance(reach, TileWindow)}
    edges = {name: reach.edge if isinstance(reach, TileWindow) else reach for name, reach in m.receptive_field.items()}
    _check_facts("receptive_field", edges, tiled, tiled)
    for name, window in windows.items():
        _require(m.size.takes(window), f"receptive_field of {name}", list(window), m.size.expected(window))
    means = windows.pop("encode", None)
    alone = "encode" not in tiled or (means is not None and means.overlap == 0)
    _require(alone, "receptive_field of encode", m.receptive_field.get("encode"), "[edge, 0], without overlap")
    shared = sorted(set(windows.values()))
    _require(len(shared) <= 1, "receptive_field", shared, "the same [edge, overlap] for all of these graphs")
    for names in (tiled - {"encode", "fused"}, tiled & {"fused"}):
        window = m.window(names)
        if m.size.fixed and window is not None:
            least = smallest_tile(window.overlap, m.size.multiple_of)
            _require(m.size.takes(window), "size", m.size.minimum, f"{least} or more, for what the graphs see")


def _check_facts(field: str, facts: Mapping[str, float], needed: Set[str], allowed: Set[str]) -> None:
    fits = needed <= set(facts) <= allowed
    _require(fits, field, sorted(facts), f"one number for each of: {', '.join(sorted(allowed))}")
    for name, fact in facts.items():
        _require(fact >= 0, f"{field} of {name}", fact, "0 or more")


def _check_graphs(m: Manifest) -> None:
    """Inputs and outputs are those of the system; any graph but encode may take conditions as well."""
    state = ArraySpec("float32", m.state)
    if "encode" in m.graphs:
        _check_encode(m, m.graphs["encode"])
    for name, graph in m.graphs.items():
        if name == "encode":
            continue
        given = {*graph.inputs, *graph.outputs}
        inputs, outputs = SYSTEMS[m.model].graphs[name].of(state, m.predicts, given)
        taken = {n: c for n, c in m.condition_arrays().items() if n in given}
        _check_arrays(f"inputs of {name}", graph.inputs, inputs | taken)
        _check_arrays(f"outputs of {name}", graph.outputs, outputs)
    _check_amount(m)


def _check_amount(m: Manifest) -> None:
    """Where the graphs take the amount, predict gives the amplitude of the texture in the place of its scale."""
    names = [name for name in ("predict", "fused") if name in m.graphs]
    signs = {"amount" in m.graphs[name].inputs for name in names}
    signs |= {"amplitude" in m.graphs[name].outputs for name in names if name == "predict"}
    _require(len(signs) <= 1, "graphs", names, "the input 'amount' of all of them and the output 'amplitude', or none")
    for name in ("residual_scale", "gain") if m.takes_amount else ():
        _require(getattr(m, name) == 1, name, getattr(m, name), "1: the texture has its amplitude from predict")


def _check_encode(m: Manifest, graph: GraphSpec) -> None:
    if m.conditions is None:
        _check_arrays("inputs of encode", graph.inputs, {"image": IMAGE})
    else:
        side = m.conditions.thumbnail
        _check_arrays("inputs of encode", graph.inputs, {"thumbnail": ArraySpec("float32", (1, 3, side, side))})
    vectors = not any(isinstance(size, str) for array in graph.outputs.values() for size in array.shape)
    _require(vectors, "outputs of encode", _shapes(graph.outputs), "arrays of one size for any photo")


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


def _check_further(m: Manifest) -> None:
    """Every task but the first, or none; each with the rest of the manifest must be one in its own right."""
    if m.further:
        _require(set(m.further) == set(m.tasks[1:]), "further", sorted(m.further), f"just: {', '.join(m.tasks[1:])}")
    for task in m.further:
        try:
            m.of(task)
        except PackError as error:
            raise type(error)(f"further: {task}: {error}") from None


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
    for task in (m, *m.further.values()):
        yield from (golden.file for golden in task.golden.values())
        for graph in task.graphs.values():
            for by_precision in graph.files.values():
                yield from by_precision.values()
            for parts in graph.parts.values():
                for beside in parts.values():
                    yield from beside
