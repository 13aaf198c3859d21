"""A graph's ONNX file, its weights beside it where they are large."""

from __future__ import annotations

from pathlib import Path

import onnx

from .sharing import Store, shared_onnx

__all__ = ["LARGE", "write_graph"]

LARGE = 2**30  # bytes; a file of this format can have no more than twice as many


def write_graph(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Check the graph and write it to `path`; what was written beside it and belongs to it.

    Weights of LARGE bytes and more are external data in the file NAME.onnx.data. Equal graphs give equal bytes.
    """
    # Not ByteSize, which fails for what is too large to be written in one piece.
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < LARGE:
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return ()
    beside, store = path.with_name(f"{path.name}.data"), Store()
    path.write_bytes(shared_onnx(model, store, beside.name).SerializeToString(deterministic=True))
    beside.write_bytes(store.data)
    onnx.checker.check_model(path, full_check=True)
    return (beside,)
