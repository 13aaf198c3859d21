"""Open the graphs of a pack in a runtime; none of these modules loads torch.

A runtime is one module with `TARGET`, which files of a pack it runs, and
`open(path, name, spec, threads=None) -> Graph`; its name stands in `RUNTIMES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..core.errors import UnknownNameError, UsageError
from ..core.manifest import Manifest
from ..core.pack import check_file
from ..core.restore import Graph
from .check import checked

__all__ = ["RUNTIMES", "open_graphs"]

RUNTIMES = ("onnxruntime", "replay")


def open_graphs(
    manifest: Manifest,
    folder: Path,
    runtime: str,
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> dict[str, Graph]:
    """The graphs `names` (None: all) of the pack in `folder`, each checked against the manifest on every call.

    threads: for one graph call, None for the runtime's own choice. Raises UnknownNameError for a runtime that does not
    exist, PackError for a pack without files for it, PackTamperedError for a file that was changed.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads were asked for; give 1 or more, or None for the runtime's own choice")
    module = import_module(f".{runtime}", __package__)
    graphs: dict[str, Graph] = {}
    for name in manifest.graphs if names is None else names:
        packed, spec = manifest.graph_file(name, module.TARGET), manifest.graphs[name]
        check_file(folder, packed)
        graph = module.open(folder / packed.file, name, spec, threads)
        graphs[name] = checked(name, graph, spec, manifest.size.multiple_of)
    return graphs
