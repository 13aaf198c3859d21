"""A recording answers for the graphs that were recorded, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import GraphError, PackError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.store import packed_file, write_arrays
from pocketprior.core.restore.reference import RecordedCall, record_calls
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from pocketprior.runtimes import replay
from support import packs

PHOTO = packs.photo(33, 21)


def save(calls: list[RecordedCall], path: Path) -> None:
    """The file that the runtime reads."""
    arrays = {}
    for number, call in enumerate(calls):
        arrays |= {f"{call.graph}/{number}/in/{name}": array for name, array in call.inputs.items()}
        arrays |= {f"{call.graph}/{number}/out/{name}": array for name, array in call.outputs.items()}
    write_arrays(path, arrays)


@pytest.fixture
def recorded(pack: Path, manifest: Manifest) -> Path:
    """A pack that carries the calls of its golden photo and of PHOTO, fused and split."""
    calls: list[RecordedCall] = []
    for form in ("fused", "split"):
        restorer = Restorer.from_pack(pack, graphs=form, threads=1)
        calls += record_calls(restorer, PHOTO, seed=3)[1]
        calls += record_calls(restorer, packs.photo(21, 34), seed=7, strength=0.5)[1]
    save(calls, pack / "calls.npz")
    packed = packed_file(pack, "calls.npz")
    graphs = {
        name: replace(graph, files={**graph.files, "replay": {"fp32": packed}})
        for name, graph in manifest.graphs.items()
    }
    precision = {**manifest.precision, "replay": dict.fromkeys(graphs, "fp32")}
    replace(manifest, graphs=graphs, precision=precision).save(pack)
    return pack


@pytest.mark.parametrize("form", ["fused", "split"])
def test_replays_a_restoration_bit_by_bit(recorded: Path, form: str) -> None:
    live = Restorer.from_pack(recorded, graphs=form, threads=1)(PHOTO, seed=3)
    replayed = Restorer.from_pack(recorded, "replay", graphs=form)(PHOTO, seed=3)
    np.testing.assert_array_equal(replayed, live)


def test_verifies_a_pack_without_a_runtime(recorded: Path) -> None:
    report = verify(recorded, "replay")
    assert report.ok
    assert [check.difference for check in report.goldens] == [0, 0]


@pytest.mark.parametrize("change", [{"seed": 4}, {"strength": 0.9}])
def test_other_inputs_are_refused(recorded: Path, change: dict[str, float]) -> None:
    restorer = Restorer.from_pack(recorded, "replay")
    with pytest.raises(GraphError, match=r"graph 'fused': none of the 2 calls recorded in .* has these inputs"):
        restorer(PHOTO, **{"seed": 3} | change)  # type: ignore[arg-type]


def test_an_answer_is_the_callers_own(recorded: Path, manifest: Manifest) -> None:
    graph = replay.open(recorded / "calls.npz", "encode", manifest.graphs["encode"])
    live = Restorer.from_pack(recorded, threads=1).graphs["encode"]
    from pocketprior.core.photo.resize import thumbnail

    small = thumbnail(PHOTO, packs.SIDE)
    graph(thumbnail=small)["code"][:] = 0
    np.testing.assert_array_equal(graph(thumbnail=small)["code"], live(thumbnail=small)["code"])


def test_a_recording_of_other_graphs(tmp_path: Path, manifest: Manifest) -> None:
    write_arrays(tmp_path / "calls.npz", {"guide/0/in/x": np.zeros(1, np.float32), "note": np.zeros(1, np.float32)})
    with pytest.raises(PackError, match="no call of the graph 'encode'"):
        replay.open(tmp_path / "calls.npz", "encode", manifest.graphs["encode"])


def test_recordings_have_the_same_bytes(tmp_path: Path, split: Restorer) -> None:
    for name in ("a", "b"):
        save(record_calls(split, PHOTO, seed=3)[1], tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
