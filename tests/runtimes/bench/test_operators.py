from __future__ import annotations

import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.store import default_pack
from pocketprior.runtimes.bench.operators import operator_table, operator_times


def test_the_convolutions_of_a_graph_do_all_its_multiply_adds() -> None:
    pack = default_pack()
    times = operator_times(pack, "fused", side=64, rounds=2)
    assert sum(time.share for time in times) == pytest.approx(1)
    assert [time.milliseconds for time in times] == sorted((time.milliseconds for time in times), reverse=True)
    counted = sum(time.macs for time in times) / 64**2
    padded = counted / Manifest.load(pack).macs_per_pixel["fused"]  # three channels are computed as a vector of them
    assert 0.999 < padded < 1.05
    table = operator_table(times)
    assert "| Conv " in table
    assert table.splitlines()[-1].startswith("| all ")


def test_a_graph_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="has no graph 'compose' for ONNX Runtime"):
        operator_times(default_pack(), "compose", side=16, rounds=1)
