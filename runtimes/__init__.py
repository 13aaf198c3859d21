"""Open the graphs of a pack in a runtime; none of these modules loads torch.

A runtime is one module with `TARGETS`, the targets whose files it runs, best first, and
`open(path, name, spec, options) -> Graph`; `RUNTIMES` lists its name. `open` raises PackError for a file that is no
graph or not the one that `spec` describes, UsageError for options that the runtime does not have, and MissingExtraError
where its package is not installed; the graph raises GraphError where a call fails. Benchmarks time the runtimes in
`options.CPU_RUNTIMES`, and `parity run --layers` looks into those in `parity.layers.INSIDE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ..core.errors import PackError, UnknownNameError, UsageError
from ..core.pack.manifest import Manifest
from ..core.pack.store import check_file
from ..core.restore.restorer import Graph
from .check import checked
from .options import ARITHMETIC, RuntimeOptions, arithmetic_of

__all__ = ["RUNTIMES", "open_graphs", "runtime_module", "target_for"]

RUNTIMES = ("onnxruntime", "openvino", "replay", "coreml")


def runtime_module(runtime: str) -> ModuleType:
    """The module of a runtime; UnknownNameError where there is no such runtime."""
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    return import_module(f".{runtime}", __package__)


def target_for(manifest: Manifest, runtime: str) -> str:
    """The target whose files a runtime runs of a pack; PackError where the pack has none for it, UnknownNameError."""
    for target in runtime_module(runtime).TARGETS:
        if target in manifest.precision:
            return target
    raise PackError(f"the pack '{manifest.name}' has no graphs for {runtime}; it has: {', '.join(manifest.precision)}")


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
    """Open graphs of the pack in `folder`; every call is checked against the manifest.

    names: The graphs; None for all. threads: For one graph call; None for the runtime's own choice. device: A name that
    the runtime knows. arithmetic: One of ARITHMETIC; None for what the pack says of each graph.

    Raises:
        UnknownNameError: `runtime` is none of RUNTIMES, or there is no such arithmetic.
        UsageError: The runtime does not have an option.
        PackError: The pack has no files for the runtime.
        PackTamperedError: A file was changed.
    """
    module = runtime_module(runtime)
    if threads is not None and threads < 1:
        raise UsageError(f"expected 1 thread or more, or None for the runtime's own choice, got {threads}")
    if arithmetic is not None and arithmetic not in ARITHMETIC:
        raise UnknownNameError("arithmetic", arithmetic, ARITHMETIC)
    target = target_for(manifest, runtime)
    graphs: dict[str, Graph] = {}
    for name in manifest.graphs if names is None else names:
        packed, spec = manifest.graph_file(name, target), manifest.graphs[name].sized(manifest.size)
        for file in (packed, *manifest.graph_parts(name, target)):
            check_file(folder, file)
        options = RuntimeOptions(threads, device, arithmetic or arithmetic_of(manifest.precision[target][name], target))
        graph = module.open(folder / packed.file, name, spec, options)
        graphs[name] = checked(name, graph, spec, manifest.size.multiple_of)
    return graphs
