"""The manifest of a pack: all that a program needs to run it, as numbers and names, never as recipes.

A pack is a folder with `manifest.json`, the graphs of one model for one or more targets, golden inputs with their
outputs, and a model card. `systems.py` lists the graphs of each system with their inputs and outputs, `rules.py` holds
the checks. A pack of several tasks has graphs for each of them, whose files share their weights; `Manifest.of` returns
the manifest of one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

from ..errors import PackError, PackVersionError, UnknownNameError
from ..files import atomic_output, failure_reason
from .json import as_text, as_tree, decode, parse
from .rules import FILE, MANIFEST_FORMAT, TARGETS, check_graph, check_manifest, require
from .systems import ArraySpec

__all__ = [
    "FEATHER",
    "FILE",
    "MANIFEST_FORMAT",
    "TARGETS",
    "ArraySpec",
    "Conditions",
    "Golden",
    "GraphSpec",
    "LimitOverride",
    "Manifest",
    "PackedFile",
    "Size",
    "TaskFacts",
    "TileWindow",
    "mirror",
    "padded_size",
    "smallest_tile",
]

FEATHER = 16  # pixels over which one tile turns into the next


class PackedFile(NamedTuple):
    """A file of the pack."""

    file: str  # path inside the folder, with / between names
    sha256: str  # 64 hexadecimal digits
    bytes: int


class TileWindow(NamedTuple):
    """The only tiles that a graph is run on, because it sees all of its tile or takes no other size."""

    edge: int  # of a tile in pixels, or the padded photo's own edge where that is shorter
    overlap: int  # of neighbouring tiles, in pixels


@dataclass(frozen=True)
class Size:
    """The heights and widths that the graphs take. Raises PackError for numbers that contradict each other."""

    multiple_of: int  # every height and width is a multiple of this
    minimum: int  # the smallest height and width, in pixels
    fixed: bool = False  # whether `minimum` is the only one

    def __post_init__(self) -> None:
        require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "1 or more")
        fits = self.minimum >= 1 and self.minimum % self.multiple_of == 0
        require(fits, "minimum", self.minimum, f"a multiple of {self.multiple_of}")

    def takes(self, window: TileWindow) -> bool:
        """Whether a photo can be cut into the tiles of this window."""
        fits = window.edge == self.minimum if self.fixed else window.edge % self.multiple_of == 0
        return window.overlap >= 0 and window.edge >= max(self.smallest_tile(window), self.minimum) and fits

    def expected(self, window: TileWindow) -> str:
        """What a window with this overlap must be, for a message."""
        edge = f"exactly {self.minimum}" if self.fixed else f"a multiple of {self.multiple_of}"
        least = max(self.smallest_tile(window), self.minimum)
        return f"[edge, overlap], an edge of {least} or more, {edge}"

    def smallest_tile(self, window: TileWindow) -> int:
        """Edge in pixels of the smallest useful tile with the overlap of this window, whatever the minimum."""
        return smallest_tile(max(0, window.overlap), self.multiple_of)


@dataclass(frozen=True)
class Conditions:
    """The global conditions, which `encode` computes once from a thumbnail of the photo."""

    thumbnail: int  # its height and width in pixels

    def __post_init__(self) -> None:
        require(self.thumbnail >= 1, "thumbnail", self.thumbnail, "1 or more pixels")


@dataclass(frozen=True)
class GraphSpec:
    """One graph: its inputs, its outputs and its files."""

    inputs: Mapping[str, ArraySpec]
    outputs: Mapping[str, ArraySpec]
    files: Mapping[str, Mapping[str, PackedFile]]  # target -> precision -> file
    # Target -> precision -> further files that the file needs, such as the weights of an OpenVINO IR. Graphs may share.
    parts: Mapping[str, Mapping[str, tuple[PackedFile, ...]]] = field(
        default_factory=dict[str, Mapping[str, tuple[PackedFile, ...]]]
    )
    function: str = ""  # the graph's name in a Core ML package of several tasks; "" where it is that of the graph

    def __post_init__(self) -> None:
        check_graph(self)

    def sized(self, size: Size) -> GraphSpec:
        """The graph as its files declare it: with numbers in place of "h" and "w" where sizes are fixed."""
        if not size.fixed:
            return self

        def resolved(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
            return {
                name: ArraySpec(dtype, tuple(size.minimum if isinstance(s, str) else s for s in shape))
                for name, (dtype, shape) in arrays.items()
            }

        return replace(self, inputs=resolved(self.inputs), outputs=resolved(self.outputs))

    @property
    def spatial(self) -> bool:
        """Whether the graph works on tiles, not on a vector or a thumbnail."""
        return any("h" in array.shape for array in {**self.inputs, **self.outputs}.values())


@dataclass(frozen=True)
class Golden:
    """A restoration that was recorded when the pack was made."""

    file: PackedFile
    tolerance: int  # the largest difference allowed, in 8-bit grey levels
    reason: str  # for the tolerance

    def __post_init__(self) -> None:
        require(0 <= self.tolerance <= 255, "tolerance", self.tolerance, "0 to 255 grey levels")


@dataclass(frozen=True)
class LimitOverride:
    """Limits of `pocketprior parity` for a class of comparisons, in place of its own ones; None keeps its own."""

    reason: str
    psnr_db: float | None = None  # the smallest PSNR, dB
    max_abs: float | None = None  # the largest error of one value
    shift: float | None = None  # the largest error of the mean of a channel
    drop_db: float | None = None  # the largest mean loss of PSNR to the clean photos, dB

    def __post_init__(self) -> None:
        require(bool(self.reason), "reason", self.reason, "why the limit is another")
        for name in ("psnr_db", "max_abs", "shift", "drop_db"):
            given = getattr(self, name)
            require(given is None or given > 0, name, given, "a number above 0")


@dataclass(frozen=True)
class TaskFacts:
    """The values of a further task of a pack for the fields of the same names in `Manifest`."""

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
    """Everything the pipeline knows about a model. Made by `load` or by an exporter; checks itself (PackError)."""

    # What it is
    format: int  # version of this format
    name: str
    model: str  # the system: "dtpm", "diffir" or "gen2res"
    tasks: tuple[str, ...]  # what it restores; the first is the default
    # Images and tiles
    value_range: tuple[float, ...]  # of images in graphs: (0, 1)
    size: Size  # of tiles
    # Graph -> the distance in pixels, in each direction, from which an output pixel can be influenced. Where that has
    # no limit (attention or normalisation over the whole tile): the window that the graph is run on.
    receptive_field: Mapping[str, int | TileWindow]
    # Sampling
    sampler: str
    predicts: str  # what denoise returns: "x0", "eps" or "v"
    start: str  # what sampling starts from: "noise" or the noised "image"
    levels: tuple[float, ...]  # alpha_bar before each step, and a final 1
    times: tuple[float, ...]  # the network's time t at each step, in [0, 1]
    noise: str  # name of the specification of the noise
    state: tuple[int | str, ...]  # shape of what is sampled
    # What one unit of an image-sized state is in the image, which is in [0, 1]. With the start "image" the state is
    # (image - 0.5) / residual_scale. 1 where predict returns the amplitude of the texture.
    residual_scale: float
    # The share of what the model adds, to the photo or to base, at strength 1. 1 where predict returns the amplitude.
    gain: float
    conditions: Conditions | None  # None: the graphs take none from a thumbnail
    # Graphs
    graphs: Mapping[str, GraphSpec]
    precision: Mapping[str, Mapping[str, str]]  # target -> graph -> precision of the file that is run
    parameters: Mapping[str, int]  # graph -> number
    macs_per_pixel: Mapping[str, float]  # graph -> multiplications per pixel of its tile
    bytes_per_pixel: Mapping[str, int]  # graph -> measured peak working memory per pixel of its tile
    # Evidence
    parity: Mapping[str, Mapping[str, float]]  # comparisons of the export with the checkpoint: name -> measure -> value
    made_by: Mapping[str, str]  # program or input -> version or hash
    card: PackedFile  # the model card
    golden: Mapping[str, Golden]
    # Fields that came later: older packs do not have them
    # alpha_bar of the level that a photo is noised to at least, its own noise counted; a noisier photo enters the
    # levels at its own, and with 1.0 any photo does. None: every photo is noised to levels[0].
    start_level: float | None = None
    # Limits of parity by class of comparison: "fp32", "half", "coded", "form", "host" or "task".
    limits: Mapping[str, LimitOverride] = field(default_factory=dict[str, LimitOverride])
    # Each task after the first, where tasks have graphs of their own.
    further: Mapping[str, TaskFacts] = field(default_factory=dict[str, TaskFacts])

    def __post_init__(self) -> None:
        check_manifest(self)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read and check `folder`/manifest.json; each file that it lists must be there.

        Raises PackVersionError for another format, PackError for anything else that is wrong.
        """
        path = folder / FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise PackError(f"{path} cannot be read ({error}); expected the folder of a pack") from error
        tree = parse(text, str(path))
        found = _format_of(tree)
        if found != MANIFEST_FORMAT:
            raise PackVersionError(
                f"{path}: the pack has format {found!r}, this version of pocketprior reads format "
                f"{MANIFEST_FORMAT}; update pocketprior, or export the pack again"
            )
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
        """Raise PackError for the first file of the pack that is missing in `folder`."""
        for packed in self.files():
            if not (folder / packed.file).is_file():
                raise PackError(
                    f"the pack {folder} has no file '{packed.file}', which its manifest lists; "
                    "copy the whole folder again"
                )

    def of(self, task: str | None) -> Manifest:
        """The manifest of one task as if its graphs were the only ones; None for the first. UnknownNameError."""
        if task is not None and task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks)
        if not self.further:
            return self
        one = task or self.tasks[0]
        own = vars(self.further[one]) if one in self.further else {}
        return replace(self, tasks=(one,), further={}, **own)

    def per_task(self) -> list[Manifest]:
        """The manifest of each task that has graphs of its own; one for all tasks where they share their graphs."""
        return [self.of(task) for task in (self.tasks if self.further else self.tasks[:1])]

    @property
    def takes_amount(self) -> bool:
        """Whether the graphs estimate the damage and take the amount of it that is to be removed."""
        return any("amount" in graph.inputs for graph in self.graphs.values())

    def packed_files(self) -> Iterator[PackedFile]:
        """Every mention of a file of the pack."""
        yield self.card
        for task in (self, *self.further.values()):
            yield from (golden.file for golden in task.golden.values())
            for graph in task.graphs.values():
                for by_precision in graph.files.values():
                    yield from by_precision.values()
                for by_precision in graph.parts.values():
                    yield from chain.from_iterable(by_precision.values())

    def files(self) -> list[PackedFile]:
        """Every file of the pack once, by path."""
        found = {packed.file: packed for packed in self.packed_files()}
        return [found[file] for file in sorted(found)]

    def graph_file(self, graph: str, target: str) -> PackedFile:
        """The file of `graph` that is run for `target`. Raises PackError where the pack has none."""
        if target not in self.precision:
            raise PackError(f"the pack '{self.name}' has no graphs for {target}; it has: {', '.join(self.precision)}")
        return self.graphs[graph].files[target][self.precision[target][graph]]

    def graph_parts(self, graph: str, target: str) -> tuple[PackedFile, ...]:
        """The further files that `graph_file` needs."""
        return self.graphs[graph].parts.get(target, {}).get(self.precision[target][graph], ())

    def radius(self, graphs: Iterable[str]) -> int:
        """The distance in pixels from which the result of `graphs`, run in turn, is influenced, if `window` is None."""
        runs = {"denoise": len(self.times)}
        fields = {name: self.receptive_field[name] for name in graphs}
        return sum(r * runs.get(name, 1) for name, r in fields.items() if isinstance(r, int))

    def window(self, graphs: Iterable[str]) -> TileWindow | None:
        """The only tiles of `graphs`, where the receptive field of one has no limit or sizes are fixed; else None."""
        names = list(graphs)
        windows = (r for r in map(self.receptive_field.__getitem__, names) if isinstance(r, TileWindow))
        free = TileWindow(self.size.minimum, self.radius(names)) if self.size.fixed else None
        return next(windows, free)


def padded_size(size: int, multiple: int, minimum: int = 0) -> int:
    """`size` rounded up to a multiple of `multiple`, `minimum` at least."""
    return max(-(-size // multiple) * multiple, minimum)


def smallest_tile(overlap: int, multiple: int) -> int:
    """Edge in pixels of the smallest useful tile: one that has pixels of its own between its two overlaps."""
    return padded_size(2 * overlap + FEATHER + multiple, multiple)


def mirror(manifest: Manifest) -> str:
    """The facts that are also written into the graph files (ONNX `metadata_props`), as JSON text.

    A graph file cannot hold its own hash: fields with files and measurements are left out, and so are further tasks.
    """
    tree = as_tree(manifest)
    for name in ("golden", "card", "parity", "limits", "precision", "bytes_per_pixel", "further"):
        del tree[name]
    if manifest.start_level is None:  # graph files are the same as before the field existed
        del tree["start_level"]
    for graph in tree["graphs"].values():
        del graph["files"], graph["parts"], graph["function"]
    return as_text(tree)


def _format_of(tree: object) -> object:
    return cast(dict[str, object], tree).get("format") if isinstance(tree, dict) else None
