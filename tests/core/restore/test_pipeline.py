"""DiffIR and Gen2Res through the pipeline: equal to the papers' loops, one prior for a photo, windows that blend."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketprior.core.arrays import to_batch, to_image
from pocketprior.core.errors import GraphError, PackError, UsageError
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.restore import restorer as restore_module
from pocketprior.core.restore.restorer import Graph, Restorer, graph_names
from pocketprior.core.restore.selftest import verify
from pocketprior.core.sampling.noise import normal, normal_vector
from support import packs, system_packs
from support.padding import crop, pad_to_multiple

Array = NDArray[np.float32]
KINDS = {"diffir": system_packs.DIFFIR, "ddim": system_packs.GEN2RES, "ancestral": system_packs.ANCESTRAL}
AWKWARD = [(1, 1), (1, 90), (83, 2), (3, 5), (7, 8), (61, 59)]
EDGE, OVERLAP = system_packs.WINDOW
WHERE = {
    "diffir": r"graph 'denoise', step 1 of 4: its output 'x0'",
    "ddim": r"graph 'denoise', step 1 of 3, tile at row 0, column 0: its output 'eps'",
    "ancestral": r"graph 'denoise', step 1 of 3, tile at row 0, column 0: its output 'eps'",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pack of each kind, not to be changed."""
    root = tmp_path_factory.mktemp("systems")
    for kind, tiny in KINDS.items():
        packs.build(root / kind, tiny)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def restorers(folders: dict[str, Path]) -> dict[str, Restorer]:
    return {kind: Restorer.from_pack(folder, threads=1) for kind, folder in folders.items()}


def levels_apart(a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger]) -> int:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def plain_prior(restorer: Restorer, features: Array, seed: int) -> NDArray[np.float64]:
    """DiffIR's reverse chain as its authors write it, with betas and alphas, in float64."""
    m = restorer.manifest
    x = normal_vector(seed, 0, system_packs.PRIOR).astype(np.float64)
    for t, level, following in zip(m.times, m.levels[:-1], m.levels[1:], strict=True):
        told = {"features": features, "t": np.array([t], np.float32)}
        clean = restorer.graphs["denoise"](x=x.astype(np.float32), **told)["x0"]
        beta = 1 - level / following
        x = (math.sqrt(following) * beta * clean + math.sqrt(1 - beta) * (1 - following) * x) / (1 - level)
    return x


def plain_diffir(restorer: Restorer, image: Array, seed: int) -> NDArray[np.float64]:
    features = restorer.graphs["encode"](image=image)["features"]
    prior = plain_prior(restorer, features, seed).astype(np.float32)
    return restorer.graphs["compose"](image=image, prior=prior)["restored"].astype(np.float64)


def plain_gen2res(restorer: Restorer, image: Array, seed: int) -> NDArray[np.float64]:
    """Noise to level K, then DDIM, or ancestral steps with exp(v log beta + (1 - v) log beta~), in float64."""
    m, box = restorer.manifest, ((0, image.shape[2]), (0, image.shape[3]))
    x = math.sqrt(m.levels[0]) * (2.0 * image - 1) + math.sqrt(1 - m.levels[0]) * normal(seed, 0, *box)
    for i, (t, level, following) in enumerate(zip(m.times, m.levels[:-1], m.levels[1:], strict=True)):
        outputs = restorer.graphs["denoise"](x=x.astype(np.float32), t=np.array([t], np.float32))
        clean = np.clip((x - math.sqrt(1 - level) * outputs["eps"]) / math.sqrt(level), -1, 1)
        if m.sampler == "ddim":
            eps = (x - math.sqrt(level) * clean) / math.sqrt(1 - level)
            x = math.sqrt(following) * clean + math.sqrt(1 - following) * eps
            continue
        beta = 1 - level / following
        x = (math.sqrt(following) * beta * clean + math.sqrt(1 - beta) * (1 - following) * x) / (1 - level)
        if following < 1:
            small, v = beta * (1 - following) / (1 - level), (outputs["variance"] + 1) / 2
            variance = np.exp(v * math.log(beta) + (1 - v) * math.log(small))
            x = x + np.sqrt(variance) * normal(seed, i + 1, *box)
    return (x + 1) / 2


def plain(restorer: Restorer, photo: NDArray[np.uint8], seed: int, strength: float) -> NDArray[np.uint8]:
    """The restoration in one piece; strength is the share of the way from the photo."""
    image = pad_to_multiple(to_batch(photo), 4, 8)
    whole = plain_diffir if restorer.manifest.model == "diffir" else plain_gen2res
    restored = image + strength * (whole(restorer, image, seed) - image)
    return to_image(crop(restored.astype(np.float32), *photo.shape[:2]), np.uint8)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", AWKWARD)
@pytest.mark.parametrize(("seed", "strength"), [(0, 1.0), (2**64 - 1, 0.3)])
def test_one_window_equals_the_plain_loop(
    restorers: dict[str, Restorer], kind: str, size: tuple[int, int], seed: int, strength: float
) -> None:
    photo = packs.photo(*size)
    restored = restorers[kind](photo, seed=seed, strength=strength)
    assert levels_apart(restored, plain(restorers[kind], photo, seed, strength)) <= 1


@pytest.mark.parametrize("kind", KINDS)
class TestEverySystem:
    def test_something_is_restored_and_depends_on_the_seed(self, restorers: dict[str, Restorer], kind: str) -> None:
        photo = packs.photo(64, 64)
        assert levels_apart(restorers[kind](photo), photo) > 5
        assert levels_apart(restorers[kind](photo, seed=1), restorers[kind](photo, seed=2)) > 0

    def test_strength_zero_is_the_photo_and_runs_nothing(self, restorers: dict[str, Restorer], kind: str) -> None:
        calls = Calls(restorers[kind])
        photo = packs.photo(150, 40, np.uint16)
        restored = calls.restorer(photo, strength=0)
        np.testing.assert_array_equal(restored, photo)
        assert not np.shares_memory(restored, photo)
        assert calls.shapes == {}

    def test_the_same_call_gives_the_same_bytes(self, restorers: dict[str, Restorer], kind: str) -> None:
        photo = packs.photo(130, 150)
        assert restorers[kind](photo, seed=5).tobytes() == restorers[kind](photo, seed=5).tobytes()

    def test_memory_does_not_change_the_result(self, restorers: dict[str, Restorer], kind: str) -> None:
        photo = packs.photo(130, 150)
        limit = restore_module.PROCESS_BYTES + 2 * photo.nbytes + 2 * 1000 * EDGE**2
        tight = restorers[kind](photo, max_memory=limit)
        np.testing.assert_array_equal(tight, restorers[kind](photo, max_memory=2**40))
        with pytest.raises(UsageError, match=r"150 x 130 pixels needs at least 1\d\d MiB .* limit of 1 MiB"):
            restorers[kind](photo, max_memory=2**20)

    def test_a_tile_of_another_size_is_refused(self, restorers: dict[str, Restorer], kind: str) -> None:
        with pytest.raises(UsageError, match="runs only on tiles of 96 pixels; leave the option out"):
            restorers[kind](packs.photo(8, 8), tile=128)

    def test_there_is_no_fused_form(self, folders: dict[str, Path], kind: str) -> None:
        manifest = Manifest.load(folders[kind])
        assert graph_names(manifest, "auto") == graph_names(manifest, "split")
        with pytest.raises(PackError, match=r"has no fused graphs; it has: .*denoise"):
            graph_names(manifest, "fused")

    def test_pack_verifies(self, folders: dict[str, Path], kind: str) -> None:
        report = verify(folders[kind])
        assert report.ok
        assert [check.form for check in report.goldens] == ["split"]

    def test_what_is_not_finite_is_located(self, kind: str, tmp_path: Path) -> None:
        packs.build(tmp_path, KINDS[kind], nan="denoise", golden=False)
        with pytest.raises(GraphError, match=WHERE[kind]):
            Restorer.from_pack(tmp_path)(packs.photo(8, 8))

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(height=st.integers(1, 230), width=st.integers(1, 230), seed=st.integers(0, 2**64 - 1))
    def test_any_size_in_windows(
        self, restorers: dict[str, Restorer], kind: str, height: int, width: int, seed: int
    ) -> None:
        """Every window is the manifest's, or the photo's own size; the first comes out as it does alone."""
        photo = packs.photo(height, width)
        calls = Calls(restorers[kind])
        restored = calls.restorer(photo, seed=seed)
        expected = tuple(min(EDGE, max(8, -(-side // 4) * 4)) for side in (height, width))
        assert calls.shapes["compose" if kind == "diffir" else "denoise"] == {expected}
        assert restored.shape == photo.shape
        if kind != "diffir" and min(height, width) >= EDGE:
            alone = restorers[kind](np.ascontiguousarray(photo[:EDGE, :EDGE]), seed=seed)
            inner = EDGE - OVERLAP - 16
            assert levels_apart(restored[:inner, :inner], alone[:inner, :inner]) <= 1


class Calls:
    """Notes the sizes of the tiles that each graph gets; graphs in `instead` take the place of the real ones."""

    def __init__(self, restorer: Restorer, instead: dict[str, Graph] | None = None) -> None:
        self.shapes: dict[str, set[tuple[int, ...]]] = {}
        self.inputs: dict[str, list[dict[str, Array]]] = {}
        graphs = {**restorer.graphs, **(instead or {})}
        self.restorer = replace(restorer, graphs={n: self._wrap(n, g) for n, g in graphs.items()})

    def _wrap(self, name: str, graph: Graph) -> Graph:
        def call(**inputs: Array) -> dict[str, Array]:
            first = inputs["x" if "x" in inputs else "image"]
            self.shapes.setdefault(name, set()).add(first.shape[2:])
            self.inputs.setdefault(name, []).append({n: array.copy() for n, array in inputs.items()})
            return graph(**inputs)

        return call


def test_all_tiles_share_one_prior(restorers: dict[str, Restorer]) -> None:
    calls = Calls(restorers["diffir"])
    photo = packs.photo(150, 170)
    calls.restorer(photo, seed=3)
    assert len(calls.inputs["denoise"]) == len(calls.restorer.manifest.times)
    priors = [inputs["prior"] for inputs in calls.inputs["compose"]]
    assert len(priors) > 3
    assert all(np.array_equal(prior, priors[0]) for prior in priors)
    assert priors[0].shape == (1, system_packs.PRIOR)


def test_the_prior_is_that_of_the_means_over_the_photo(restorers: dict[str, Restorer]) -> None:
    """150 x 70 pixels in 3 x 2 windows of at most 64; each counts by its pixels, not by those of its padding."""
    calls = Calls(restorers["diffir"])
    photo = packs.photo(150, 70)
    calls.restorer(photo, seed=3)
    padded = pad_to_multiple(to_batch(photo), 4)
    rows, columns = [(0, 48), (48, 100), (100, 150)], [(0, 36), (36, 70)]
    total = np.zeros((1, packs.CODE))
    for y0, y1 in rows:
        for x0, x1 in columns:
            window = np.ascontiguousarray(padded[:, :, y0 : y1 + -y1 % 4, x0 : x1 + -x1 % 4])
            total += (y1 - y0) * (x1 - x0) * restorers["diffir"].graphs["encode"](image=window)["features"]
    features = (total / (150 * 70)).astype(np.float32)
    np.testing.assert_allclose(calls.inputs["denoise"][0]["features"], features, rtol=0, atol=1e-6)
    expected = plain_prior(restorers["diffir"], features, seed=3)
    np.testing.assert_allclose(calls.inputs["compose"][0]["prior"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_differ_leave_no_seam(restorers: dict[str, Restorer], kind: str) -> None:
    """Every other window comes out brighter by a tenth: no step between pixels of a flat photo shows it."""
    number = iter(range(10**6))
    level, grey = 0.5, 30_000

    def compose(**inputs: Array) -> dict[str, Array]:
        return {"restored": inputs["image"] + np.float32(0.1 * (next(number) % 2))}

    def denoise(**inputs: Array) -> dict[str, Array]:
        clean = 2 * (grey / 65535 + 0.1 * (next(number) % 2)) - 1
        eps = (inputs["x"] - math.sqrt(level) * clean) / math.sqrt(1 - level)
        return {"eps": eps.astype(np.float32), "variance": eps.astype(np.float32)}

    restorer = restorers[kind]
    if kind == "diffir":
        calls = Calls(restorer, {"compose": compose})
    else:
        one_step = replace(restorer.manifest, levels=(level, 1.0), times=(0.5,))
        calls = Calls(replace(restorer, manifest=one_step), {"denoise": denoise})
    field = calls.restorer(np.full((200, 210, 3), grey, np.uint16)) / 65535
    assert next(number) > 4
    assert np.ptp(field) == pytest.approx(0.1, abs=1e-3)
    for axis in (0, 1):
        assert np.abs(np.diff(field, axis=axis)).max() <= 0.1 / 17 + 2 / 65535
