"""The amount of damage to remove: 0 is the photo itself, 1 what the model makes of it, up to 2 removes more."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketprior.core import arrays
from pocketprior.core.cli import main
from pocketprior.core.errors import PackError, UsageError
from pocketprior.core.pack.manifest import GraphSpec, Manifest
from pocketprior.core.photo.photo import Photo
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import verify
from support import packs, system_packs

Array = NDArray[np.float32]
FORMS = ("fused", "split")
AMOUNTS = (0.5, 1.0, 1.5, 2.0)
OLD = {"dtpm": packs.DTPM, "diffir": system_packs.DIFFIR, "gen2res": system_packs.GEN2RES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose graphs take the amount; not to be changed."""
    folder = tmp_path_factory.mktemp("adjustable")
    packs.build(folder, packs.ADJUSTABLE)
    return folder


@pytest.fixture(scope="module")
def adjustable(folder: Path) -> dict[str, Restorer]:
    return {form: Restorer.from_pack(folder, graphs=form, threads=1) for form in FORMS}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Restorer]:
    """Models without a damage input."""
    root = tmp_path_factory.mktemp("old")
    for name, tiny in OLD.items():
        packs.build(root / name, tiny, golden=False)
    return {name: Restorer.from_pack(root / name, threads=1) for name in OLD}


def apart(a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger]) -> int:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


class TestZero:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("tile", [None, 96])
    def test_is_the_photo(
        self, adjustable: dict[str, Restorer], form: str, dtype: type[np.uint8] | type[np.uint16], tile: int | None
    ) -> None:
        photo = packs.photo(131, 120, dtype)
        restored = adjustable[form](photo, amount=0, tile=tile)
        assert restored.dtype == dtype
        np.testing.assert_array_equal(restored, photo)
        assert not np.shares_memory(restored, photo)

    @pytest.mark.parametrize("name", OLD)
    def test_is_the_photo_for_models_that_do_not_estimate_the_damage(self, old: dict[str, Restorer], name: str) -> None:
        photo = packs.photo(40, 52, np.uint16)
        np.testing.assert_array_equal(old[name](photo, amount=0, strength=0.3), photo)

    def test_runs_no_graph(self, adjustable: dict[str, Restorer]) -> None:
        idle = replace(adjustable["split"], graphs=dict.fromkeys(adjustable["split"].graphs, None))  # type: ignore[arg-type]
        photo = packs.photo(9, 9)
        np.testing.assert_array_equal(idle(photo, amount=0), photo)

    def test_keeps_a_grey_photo(self, adjustable: dict[str, Restorer]) -> None:
        grey = np.repeat(packs.photo(21, 13)[..., :1], 3, axis=2)
        np.testing.assert_array_equal(adjustable["fused"].photo(Photo(grey, grey=True), amount=0).pixels, grey)

    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_is_the_image_in_the_graph_too(self, adjustable: dict[str, Restorer], strength: float) -> None:
        """Where a host runs the fused graph by itself."""
        rng = np.random.default_rng(0)
        image, noise = rng.random((1, 3, 16, 24), np.float32), rng.standard_normal((1, 3, 16, 24)).astype(np.float32)
        scalars = {"strength": np.array([strength], np.float32), "amount": np.zeros(1, np.float32)}
        code = np.ones((1, packs.CODE), np.float32)
        restored = adjustable["fused"].graphs["fused"](image=image, noise=noise, code=code, **scalars)["restored"]
        np.testing.assert_array_equal(restored, image)


class TestModelThatEstimatesTheDamage:
    @pytest.mark.parametrize("amount", AMOUNTS)
    @pytest.mark.parametrize("strength", [1.0, 0.4])
    def test_fused_equals_split(self, adjustable: dict[str, Restorer], amount: float, strength: float) -> None:
        photo = packs.photo(61, 75, np.uint16)
        results = [adjustable[form](photo, amount=amount, strength=strength, seed=3) for form in FORMS]
        assert apart(*results) <= 2

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("amount", AMOUNTS)
    def test_tiled_equals_whole(self, adjustable: dict[str, Restorer], form: str, amount: float) -> None:
        photo = packs.photo(150, 170, np.uint16)
        tiled, whole = (adjustable[form](photo, amount=amount, seed=4, tile=tile) for tile in (96, 400))
        assert apart(tiled, whole) <= 2

    def test_the_residual_is_scaled_by_the_amplitude(self, adjustable: dict[str, Restorer]) -> None:
        """base + strength amplitude residual, pixel by pixel: twice the texture is twice as far from the base."""
        split = adjustable["split"]
        photo = packs.photo(64, 64, np.uint16)
        tell = {"image": arrays.to_batch(photo), "amount": np.array([0.7], np.float32)}
        predicted = split.graphs["predict"](**tell)
        base, half, full = (
            arrays.to_batch(split(photo, amount=0.7, strength=strength)) for strength in (0.0, 0.5, 1.0)
        )
        np.testing.assert_allclose(base, predicted["base"], rtol=0, atol=1 / 65535)
        np.testing.assert_allclose(full - base, 2 * (half - base), rtol=0, atol=3 / 65535)
        residual = (full - base) / predicted["amplitude"]
        np.testing.assert_allclose(residual.std(), 1, rtol=0.3)
        assert np.ptp(predicted["amplitude"]) > 0.2 * predicted["amplitude"].mean(), "an amplitude that varies"

    def test_remaining_noise_decreases(self, adjustable: dict[str, Restorer]) -> None:
        rng = np.random.default_rng(0)
        clean = np.full((96, 96, 3), 30_000, np.uint16)
        noisy = (clean + rng.normal(0, 2500, clean.shape)).astype(np.uint16)
        left = [adjustable["fused"](noisy, amount=a, strength=0).std() for a in (0.0, 0.25, *AMOUNTS)]
        assert all(after < before for before, after in pairwise(left))
        assert left[-1] < 0.75 * left[0]

    def test_graphs_are_given_the_amount(self, adjustable: dict[str, Restorer]) -> None:
        given: list[Array] = []
        split = adjustable["split"]

        def predict(**inputs: Array) -> dict[str, Array]:
            given.append(inputs["amount"])
            return split.graphs["predict"](**inputs)

        replace(split, graphs={**split.graphs, "predict": predict})(packs.photo(130, 130), amount=1.25, tile=96)
        assert len(given) > 1
        assert all(np.array_equal(amount, np.array([1.25], np.float32)) for amount in given)

    def test_packs_verify(self, folder: Path) -> None:
        assert verify(folder).ok


@pytest.mark.parametrize("name", OLD)
class TestModelThatDoesNot:
    def test_one_is_what_it_was(self, old: dict[str, Restorer], name: str) -> None:
        photo = packs.photo(80, 62)
        assert old[name](photo, amount=1.0).tobytes() == old[name](photo).tobytes()

    @pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
    def test_less_is_part_of_the_way(self, old: dict[str, Restorer], name: str, strength: float) -> None:
        photo = packs.photo(80, 62, np.uint16)
        whole, part = (old[name](photo, amount=amount, strength=strength) for amount in (1.0, 0.3))
        expected = np.round(photo + 0.3 * (whole.astype(np.float64) - photo)).astype(np.uint16)
        assert apart(part, expected) <= 1

    def test_more_is_refused(self, old: dict[str, Restorer], name: str) -> None:
        words = r"expected an amount from 0 .* to 1, got 1.5: the pack '.*' does not estimate the damage"
        with pytest.raises(UsageError, match=words):
            old[name](packs.photo(8, 8), amount=1.5)


@pytest.mark.parametrize("amount", [-0.1, 2.1, math.nan, math.inf, -math.inf])
def test_out_of_range(adjustable: dict[str, Restorer], old: dict[str, Restorer], amount: float) -> None:
    for restorer in (adjustable["fused"], old["diffir"]):
        with pytest.raises(UsageError, match=f"expected an amount from 0 .* to 2 .*, got {amount}"):
            restorer(packs.photo(8, 8), amount=amount)
        with pytest.raises(UsageError, match=f"got {amount}"):
            restorer.check(amount=amount)


class TestManifest:
    def test_says_whether_the_amount_is_taken(self, folder: Path, old: dict[str, Restorer]) -> None:
        assert Manifest.load(folder).takes_amount
        assert not any(restorer.manifest.takes_amount for restorer in old.values())

    @pytest.mark.parametrize(("graph", "side", "name"), [
        ("predict", "inputs", "amount"), ("predict", "outputs", "amplitude"), ("fused", "inputs", "amount"),
    ])  # fmt: skip
    def test_all_graphs_or_none(self, folder: Path, graph: str, side: str, name: str) -> None:
        manifest = Manifest.load(folder)
        spec = manifest.graphs[graph]
        less: dict[str, GraphSpec] = {
            graph: replace(spec, **{side: {n: array for n, array in getattr(spec, side).items() if n != name}})
        }
        with pytest.raises(PackError, match="the input 'amount' of all of them and the output 'amplitude', or none"):
            replace(manifest, graphs={**manifest.graphs, **less})

    @pytest.mark.parametrize("field", ["residual_scale", "gain"])
    def test_the_amplitude_has_no_other_scale(self, folder: Path, field: str) -> None:
        with pytest.raises(
            PackError, match=f"{field}: given 0.5, expected 1: the texture has its amplitude from predict"
        ):
            replace(Manifest.load(folder), **{field: 0.5})

    def test_other_systems_take_none(self, tmp_path: Path) -> None:
        manifest = packs.build(tmp_path, system_packs.DIFFIR, golden=False)
        compose = manifest.graphs["compose"]
        more = replace(compose, inputs={**compose.inputs, "amount": packs.SCALAR})
        with pytest.raises(PackError, match=r"inputs of compose: given .amount"):
            replace(manifest, graphs={**manifest.graphs, "compose": more})


class TestCommand:
    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        Image.fromarray(packs.photo(40, 52)).save(tmp_path / "a.png")
        return tmp_path / "a.png"

    @pytest.mark.parametrize("amount", ["0", "0.5", "2"])
    def test_does_what_the_library_does(
        self, photo: Path, folder: Path, adjustable: dict[str, Restorer], amount: str
    ) -> None:
        assert main(["restore", str(photo), "--pack", str(folder), "--amount", amount]) == 0
        restored = np.asarray(Image.open(photo.with_name("a.restored.png")))
        assert apart(restored, adjustable["fused"](packs.photo(40, 52), amount=float(amount))) <= (amount != "0")

    @pytest.mark.parametrize("amount", ["3", "nan", "-1"])
    def test_refuses_what_is_out_of_range(
        self, photo: Path, folder: Path, amount: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["restore", str(photo), "--pack", str(folder), f"--amount={amount}"]) == 2
        assert "expected an amount from 0" in capsys.readouterr().err
        assert not photo.with_name("a.restored.png").exists()

    def test_info_says_what_may_be_given(
        self, folder: Path, built_pack: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for pack, words in ((folder, "0 to 2; 1 removes the damage"), (built_pack, "0 to 1, the share of the way")):
            assert main(["info", str(pack)]) == 0
            assert f"amount      {words}" in capsys.readouterr().out
