"""The references of this repository, and the packs and checkpoints of it that they are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketprior.core.pack.store import default_pack
from pocketprior.core.pack.systems import SYSTEMS
from pocketprior.core.restore.reference import load
from pocketprior.runtimes.parity.call_replay import sites
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from support.references import accused

REFERENCES = Path(__file__).parents[3] / "checkpoints" / "references"
LIMIT_BYTES = 6_000_000


def test_the_embedded_pack_is_what_was_trained() -> None:
    """And the report tells where the reference was recorded."""
    report = compare(default_pack(), CompareOptions("onnxruntime", against=REFERENCES / "dtpm.npz", threads=1))
    assert report.ok, accused(report)
    device = load(REFERENCES / "dtpm.npz").about.environment["device"]
    assert report.reference == f"recorded on {device}"
    assert report.environment["reference device"] == device
    measured = {source.name for source in report.sources if source.checks}
    assert {"files", "facts", "conversion", "pipeline", "forms", "picture", "task", "golden"} <= measured


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_reference_is_of_its_system(system: str) -> None:
    """And says where it was recorded, in exact float32, at a strength that would show if it were ignored."""
    recording = load(REFERENCES / f"{system}.npz")
    assert f'"model": "{system}"' in recording.about.facts
    assert recording.about.environment["arithmetic"] == "float32, TF32 off"
    assert {case.strength for case in recording.about.cases} == {1.0, 0.5}
    assert all(site.call.rounding for site in sites(recording))
    fused = any(site.call.kernels for site in sites(recording))
    assert fused == ("cuda" in recording.about.environment), "kernels run where there is CUDA, and only there"


def test_references_are_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCES.iterdir()) <= LIMIT_BYTES
