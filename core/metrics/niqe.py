"""NIQE: Mittal et al., "Making a 'Completely Blind' Image Quality Analyzer" (IEEE Signal Processing Letters 2013).

The distance of a photo's local statistics from those of pristine photos, without a true photo. `scripts/fit_niqe.py`
fitted the model file `niqe.npz` on our own photos, so values compare among themselves and not with those of other
programs. The photo is judged in BT.601 luma of range 0..255.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arrays import Field, Image
from ..errors import UsageError
from .planes import check_image, gaussian_taps, luma, smooth, valid

__all__ = ["NIQE_PATCH", "NiqeModel", "niqe", "patch_features"]

NIQE_PATCH = 96  # side of a patch in pixels of the full-size photo (section 3.2)
_WINDOW = gaussian_taps(radius=3, sigma=7 / 6)
_C = 1.0  # Eq. 1, for grey levels 0..255
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours whose products are modelled: right, below, diagonals


@dataclass(frozen=True)
class NiqeModel:
    """The multivariate Gaussian of pristine patches and what it was fitted on."""

    mean: Field  # (36,)
    covariance: Field  # (36, 36)
    photos_sha256: str  # SHA-256 of the sorted SHA-256 lines of the photo files
    patches: int

    @staticmethod
    def load(path: Path) -> NiqeModel:
        """Read a model that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return NiqeModel(file["mean"], file["covariance"], str(file["photos_sha256"]), int(file["patches"]))

    def save(self, path: Path) -> None:
        """Write the model as npz without pickle; equal models are written as equal bytes."""
        with path.open("wb") as file:
            np.savez_compressed(file, **vars(self))


def niqe(image: Image, model: NiqeModel | None = None) -> float:
    """Distance of `image` from `model` (Eq. 10), lower is better; the default model is the packaged one.

    At least two patches of 96 x 96 pixels that are not flat; UsageError otherwise.
    """
    features, _ = patch_features(image)
    features = features[np.isfinite(features).all(axis=1)]
    if len(features) < 2:
        raise UsageError(
            f"NIQE needs an image with at least 2 patches of {NIQE_PATCH} x {NIQE_PATCH} pixels that are not flat, got "
            f"{len(features)}; use a larger or more detailed image"
        )
    model = model or _packaged()
    offset = features.mean(axis=0) - model.mean
    covariance = (np.cov(features, rowvar=False) + model.covariance) / 2
    return math.sqrt(float(offset @ np.linalg.pinv(covariance, hermitian=True) @ offset))


@functools.cache
def _packaged() -> NiqeModel:
    return NiqeModel.load(Path(__file__).with_name("niqe.npz"))


def patch_features(image: Image) -> tuple[Field, Field]:
    """The 36 features (section 3.1) and the sharpness (Eq. 9) of each whole patch: (N, 36) and (N,) float64.

    Features of a patch too flat to model are NaN. Rows and columns beyond the last whole patch are left out.
    """
    check_image(image, "NIQE", NIQE_PATCH)
    plane = luma(image)
    plane = plane[: plane.shape[0] // NIQE_PATCH * NIQE_PATCH, : plane.shape[1] // NIQE_PATCH * NIQE_PATCH]
    full, deviation = _normalise(plane)
    half, _ = _normalise(_half(plane))
    features = [_features(_patches(full, NIQE_PATCH)), _features(_patches(half, NIQE_PATCH // 2))]
    return np.concatenate(features, axis=1), _patches(deviation, NIQE_PATCH).mean(axis=(1, 2))


def _normalise(plane: Field) -> tuple[Field, Field]:
    """Eqs. 1 to 3: mean-subtracted, contrast-normalised coefficients and the local deviation, both (H, W)."""
    padded = np.pad(plane, len(_WINDOW) // 2, mode="edge")
    mean = smooth(padded, _WINDOW)
    deviation = np.sqrt(np.abs(smooth(padded**2, _WINDOW) - mean**2))
    return (plane - mean) / (deviation + _C), deviation


def _patches(plane: Field, side: int) -> Field:
    """(H, W) -> (N, side, side), row by row."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _half(plane: Field) -> Field:
    """Half size by the antialiased bicubic (a = -1/2) of the authors' program, borders mirrored."""
    distance = np.abs(np.arange(-3.5, 4) / 2)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, near, far) / 2
    padded = np.pad(plane, 3, mode="symmetric")
    return valid(valid(padded, taps, 0)[::2], taps, 1)[:, ::2]


def _features(patches: Field) -> Field:
    """(N, side, side) -> (N, 18): shape and variance of the coefficients, then four moments per neighbour."""
    columns = list(_symmetric_fit(patches))
    for shift in _SHIFTS:
        columns += _asymmetric_fit(patches * np.roll(patches, shift, axis=(1, 2)))
    return np.stack(columns, axis=1)


def _symmetric_fit(x: Field) -> tuple[Field, Field]:
    """Shape and variance of a generalised Gaussian (Eq. 4) by moment matching; x: (N, side, side)."""
    square = np.mean(x**2, axis=(1, 2))
    ratio = _quotient(np.mean(np.abs(x), axis=(1, 2)) ** 2, square)
    shapes, ratios, _ = _shape_table()
    return np.interp(ratio, ratios, shapes), square


def _asymmetric_fit(x: Field) -> list[Field]:
    """Shape, mean, left and right variance of an asymmetric generalised Gaussian (Eqs. 7 and 8); x: (N, side, side)."""
    left, right = _side_variance(x, x < 0), _side_variance(x, x > 0)
    balance = np.sqrt(_quotient(left, right))
    ratio = _quotient(np.mean(np.abs(x), axis=(1, 2)) ** 2, np.mean(x**2, axis=(1, 2)))
    shapes, ratios, factors = _shape_table()
    shape = np.interp(ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2, ratios, shapes)
    return [shape, (np.sqrt(right) - np.sqrt(left)) * np.interp(shape, shapes, factors), left, right]


def _side_variance(x: Field, side: NDArray[np.bool_]) -> Field:
    return _quotient(np.sum(np.square(x), axis=(1, 2), where=side), side.sum(axis=(1, 2), dtype=np.float64))


def _quotient(a: Field, b: Field) -> Field:
    """Quotient of a and b, NaN where b is 0: a flat patch has no shape."""
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b != 0)


@functools.cache
def _shape_table() -> tuple[Field, Field, Field]:
    """Shapes 0.2 to 10, their moment ratio G(2/a)^2 / (G(1/a) G(3/a)) (rising) and G(2/a) / sqrt(G(1/a) G(3/a))."""
    shapes = np.arange(200, 10001) / 1000
    log_gamma = np.array([[math.lgamma(k / a) for a in shapes] for k in (1, 2, 3)])
    ratios = np.exp(2 * log_gamma[1] - log_gamma[0] - log_gamma[2])
    factors = np.exp(log_gamma[1] - (log_gamma[0] + log_gamma[2]) / 2)
    return shapes, ratios, factors
