from __future__ import annotations

import pytest
import torch

from pocketprior.core import cli
from pocketprior.core.models.dtpm import Predictor as DtpmPredictor
from pocketprior.core.models.dtpm import PredictorConfig
from pocketprior.export.bench.rewriting import NETWORKS, REWRITE_RUNTIMES, Network, measure_rewriting, naive


def small(body: str) -> Network:
    return DtpmPredictor(PredictorConfig(body, (8, 16), (1, 1))), (torch.empty(1, 3, 16, 24),)


@pytest.mark.parametrize("body", ["rep", "naf"])
def test_both_graphs_are_timed_and_are_the_same_function(body: str) -> None:
    pytest.importorskip("openvino")
    found = measure_rewriting("small", naive(lambda: small(body)))
    assert [timing.runtime for timing in found] == list(REWRITE_RUNTIMES)
    for timing in found:
        assert min(timing.naive_ms, timing.rewritten_ms) > 0
        assert timing.difference <= (2e-2 if timing.runtime.endswith("bf16") else 1e-5)


def test_every_network_exists() -> None:
    with torch.device("meta"):
        assert all(isinstance(network()[0], torch.nn.Module) for network in NETWORKS.values())


def test_unknown_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "rewrite", "nothing"]) == 2
    assert "dtpm-base-predictor" in capsys.readouterr().err
