"""Open the graphs of a pack in a runtime; none of these modules loads torch.

A runtime is one module with `TARGETS`, which files of a pack it runs, best first, and
`open(path, name, spec, options) -> Graph`; its name stands in `RUNTIMES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..core.errors import UnknownNameError, UsageError
from ..core.pack.manifest import Manifest
from ..core.pack.store import check_file
from ..core.restore.restorer import Graph
from .check import checked
from .options import ARITHMETIC, Options, arithmetic_of

__all__ = ["RUNTIMES", "open_graphs"]

RUNTIMES = ("onnxruntime", "openvino", "replay", "coreml")


def open_graphs(
    manifest: Manifest,
    folder: Path,
    runtime: str,
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    device: str = "CPU",
    arithmetic: str | None = None,
) -> dict[str, Graph]:
    """The graphs `names` (None: all) of the pack in `folder`, each checked against the manifest on every call.

    threads, device, arithmetic: as in `Options`; arithmetic None for what the pack says of each graph. Raises
    UnknownNameError for a runtime that does not exist, UsageError for an option that it does not have, PackError for a
    pack without files for it, PackTamperedError for a file that was changed.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads were asked for; give 1 or more, or None for the runtime's own choice")
    if arithmetic is not None and arithmetic not in ARITHMETIC:
        raise UnknownNameError("arithmetic", arithmetic, ARITHMETIC)
    module = import_module(f".{runtime}", __package__)
    target = next((target for target in module.TARGETS if target in manifest.precision), module.TARGETS[0])
    graphs: dict[str, Graph] = {}
    for name in manifest.graphs if names is None else names:
        packed, spec = manifest.graph_file(name, target), manifest.graphs[name].sized(manifest.size)
        for file in (packed, *manifest.graph_parts(name, target)):
            check_file(folder, file)
        options = Options(threads, device, arithmetic or arithmetic_of(manifest.precision[target][name], target))
        graph = module.open(folder / packed.file, name, spec, options)
        graphs[name] = checked(name, graph, spec, manifest.size.multiple_of)
    return graphs
