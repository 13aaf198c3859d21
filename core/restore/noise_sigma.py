"""The noise of a photo, measured without a clean one.

White noise has the same variance in every band of a Haar pyramid and in every direction of colour; texture has most of
its energy in grey and in the coarser bands. So noise is measured in the diagonal band of the finest octave, where
texture is weakest, in small blocks, and a low quantile of the blocks is taken, which leaves out those with edges.
Colour differences have hardly any texture, and decide unless they carry less noise than grey does: in a grey photo, or
where JPEG has stored colour at half the resolution. There grey decides, less the texture that the next octave shows.

The robust estimate from the diagonal band is Donoho and Johnstone's (1994), with a quantile over blocks in the place of
its median over coefficients. Blocks in which noise was cut off at black or white are corrected for it, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image

__all__ = ["noise_sigma", "white_sigma"]

_BLOCK = 16  # pixels: edge of the blocks, 8 x 8 coefficients of the finest octave and 4 x 4 of the next
_STRIP = 16 * _BLOCK  # rows that are looked at together, for little memory
_QUANTILE = 0.25
_NORMAL_QUANTILE = -0.6745  # of the standard normal distribution at _QUANTILE
_CLIPPED_SHARE = 0.4  # of a block's values: blocks with more are left out
_CLIPPED_LOSS = 0.85  # the standard deviation of clipped noise falls by this times the share that is clipped
_TEXTURE_GROWTH = 4.0  # the least by which the energy of texture grows from an octave to the next
_COLOUR_SHARE = 0.2  # colour decides where it has at least this share of the noise of grey

_Floats = NDArray[np.floating[Any]]

# Rows: grey and two colour differences, orthonormal, so that white noise has the same variance in each.
_OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float32) / np.sqrt(np.array([[3], [2], [6]], np.float32))


def noise_sigma(image: Image) -> float:
    """The standard deviation, in grey levels of 255, of white noise that is as strong as the noise in a photo.

    image: (H, W, 3) uint8 or uint16. As strong means: along the direction of colour in which the photo has most of it.
    In a grey photo all noise is along grey, and counts as in `white_sigma`. 0 for an image of less than 16 pixels in a
    direction. Noise that is correlated over pixels (scans, enlarged photos, strong JPEG compression) is
    underestimated, as it looks like texture. Fur or grass all over a JPEG photo without noise can be taken for
    noise of up to 12 grey levels.
    """
    height, width = (side // _BLOCK * _BLOCK for side in image.shape[:2])
    if not height or not width:
        return 0.0
    strips = list(_strips(image, height, width))
    clipped, fine, coarse = (np.concatenate(parts) for parts in zip(*strips, strict=True))
    kept = clipped <= max(_CLIPPED_SHARE, float(np.quantile(clipped, 0.05)))
    gain = 1 / (1 - _CLIPPED_LOSS * clipped[kept])
    colour = _sigma(fine[kept, 1:].mean(axis=1), gain, 2 * _BLOCK**2 // 4)
    finest, coarser = _sigma(fine[kept, 0], gain, _BLOCK**2 // 4), _sigma(coarse[kept, 0], gain, _BLOCK**2 // 16)
    grey = (max(0.0, _TEXTURE_GROWTH * finest**2 - coarser**2) / (_TEXTURE_GROWTH - 1)) ** 0.5
    return colour if colour >= _COLOUR_SHARE * grey else grey


def white_sigma(image: Image, sigma: float) -> float:
    """`noise_sigma` of a photo whose channels have noise of standard deviation `sigma`, in any unit.

    That is `sigma` itself, but for a grey photo, (H, W, 3) with equal channels: what its three channels share is along
    grey sqrt(3) times as strong as independent noise would be.
    """
    strips = (image[row : row + _STRIP] for row in range(0, len(image), _STRIP))
    grey = all((strip[..., :1] == strip[..., 1:]).all() for strip in strips)
    return sigma * 3**0.5 if grey else sigma


def _strips(image: Image, height: int, width: int) -> Iterator[tuple[_Floats, _Floats, _Floats]]:
    """Per block of each strip: the share of clipped values (N,), variances in the two octaves (N, 3)."""
    top = np.iinfo(image.dtype).max
    for row in range(0, height, _STRIP):
        strip = image[row : min(row + _STRIP, height), :width]
        clipped = _blocks(((strip == 0) | (strip == top)).astype(np.float32), _BLOCK).mean(axis=(1, 2))
        pixels = (strip * np.float32(255 / top)) @ _OPPONENT.T
        halved = (pixels[::2, ::2] + pixels[1::2, ::2] + pixels[::2, 1::2] + pixels[1::2, 1::2]) / 2
        yield clipped, _energy(pixels, _BLOCK // 2), _energy(halved, _BLOCK // 4)


def _energy(pixels: _Floats, edge: int) -> _Floats:
    """(H, W, 3) -> mean square of the diagonal Haar band in blocks of edge x edge coefficients, (N, 3).

    The band, like the halved image that it is taken of, is scaled so that white noise keeps its variance.
    """
    band = (pixels[::2, ::2] - pixels[1::2, ::2] - pixels[::2, 1::2] + pixels[1::2, 1::2]) / 2
    return np.square(_blocks(band, edge)).mean(axis=1)


def _blocks(values: _Floats, edge: int) -> _Floats:
    """(H, W, 3) -> (N, edge * edge, 3)."""
    height, width = values.shape[:2]
    cut = values.reshape(height // edge, edge, width // edge, edge, 3)
    return cut.swapaxes(1, 2).reshape(-1, edge * edge, 3)


def _sigma(energy: _Floats, gain: _Floats, freedom: int) -> float:
    """The low quantile over blocks, divided by what it is for noise of unit variance.

    That is the root of a quantile of chi-squared over `freedom`, by the formula of Wilson and Hilferty (1931).
    """
    spread = 2 / (9 * freedom)
    unit = (1 - spread + _NORMAL_QUANTILE * spread**0.5) ** 1.5
    return float(np.quantile(np.sqrt(energy) * gain, _QUANTILE)) / unit
