"""Show every task on one photo: python scripts/degradation_gallery.py examples/dog.jpg docs/degradations

Writes `clean.jpg`, one strip of three random draws per task, `cleanup-kinds.jpg` and `cleanup-noise.jpg` (what the task
`cleanup` draws from, and its kinds of noise), and `masks.jpg`, a thin, a medium and a thick mask for inpainting. The
files depend only on the photo and on Pillow's JPEG encoder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pocketprior.core.arrays import FloatImage
from pocketprior.core.degradations import grain
from pocketprior.core.degradations.cleanup import MIXTURE
from pocketprior.core.degradations.filters import quantize, resize
from pocketprior.core.degradations.masks import Thickness, brush_mask
from pocketprior.core.degradations.tasks import TASKS
from pocketprior.core.degradations.window import Window
from pocketprior.core.errors import PocketPriorError, UsageError
from pocketprior.core.photo.io import read

__all__ = ["main", "strips"]

SIDE = 256  # pixels; the photo is cut square, and shrunk so that its own faults hardly show
SEEDS = (1, 2, 3)
HALF = SIDE // 2  # pixels, of the images of what `cleanup` does
GRAIN = 25  # grey levels, the noise in the images of kinds of noise
QUALITIES = range(85, 20, -5)
LARGEST = 40_000  # bytes per file
MASKS: tuple[Thickness, ...] = ("thin", "medium", "thick")


def strips(photo: FloatImage) -> dict[str, FloatImage]:
    """Name -> images side by side, (SIDE, n * SIDE, 3), for a photo (H, W, 3) of at least SIDE pixels a side."""
    clean = _square(photo)
    shown = {name: [task(clean, np.random.default_rng(seed)) for seed in SEEDS] for name, task in TASKS.items()}
    shown["cleanup-kinds"], shown["cleanup-noise"] = _kinds(clean), _grains(clean)
    shown["masks"] = [_holed(clean, thickness) for thickness in MASKS]
    return {"clean": clean, **{name: np.concatenate(images, axis=1) for name, images in shown.items()}}


def _kinds(clean: FloatImage) -> list[FloatImage]:
    """A draw of each kind of damage of `cleanup`, and a second one of the last."""
    middle, rng = Window(clean, HALF // 2, HALF // 2, HALF, HALF), np.random.default_rng(SEEDS[0])
    kinds = [damage for _, damage in MIXTURE]
    return [damage(middle, rng) for damage in (*kinds, kinds[-1])]


def _grains(clean: FloatImage) -> list[FloatImage]:
    """Noise of one strength: white, blurred, resized, half denoised, chroma only, grey."""
    rng = np.random.default_rng(SEEDS[0])
    fields = (
        grain.white(HALF, HALF, rng),
        grain.blurred(HALF, HALF, 1.0, rng),
        grain.rescaled(HALF, HALF, 2.0, "bicubic", rng),
        grain.blotchy(HALF, HALF, 0.8, 1.5, rng),
        grain.chroma_only(grain.blurred(HALF, HALF, 1.0, rng)),
        grain.grey_only(grain.white(HALF, HALF, rng)),
    )
    middle = Window(clean, HALF // 2, HALF // 2, HALF, HALF).pixels()
    return [quantize(middle + grain.with_deviation(field, GRAIN)) for field in fields]


def _square(photo: FloatImage) -> FloatImage:
    height, width = photo.shape[:2]
    side = min(height, width)
    if side < SIDE:
        raise UsageError(f"the photo has {width} x {height} pixels; give one of at least {SIDE} x {SIDE}")
    top, left = (height - side) // 2, (width - side) // 2
    return quantize(resize(photo[top : top + side, left : left + side], SIDE, SIDE, "bicubic", antialias=True))


def _holed(clean: FloatImage, thickness: Thickness) -> FloatImage:
    missing = brush_mask(SIDE, SIDE, thickness, np.random.default_rng(SEEDS[0]))
    return np.where(missing[..., np.newaxis], np.float32(1), clean)


def _write(path: Path, image: FloatImage) -> None:
    """As JPEG, of the best quality that is small enough."""
    levels = Image.fromarray(np.round(image * 255).astype(np.uint8))
    for quality in QUALITIES:
        levels.save(path, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            return


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, help="a clean photo")
    parser.add_argument("folder", type=Path, help="where the images go; made if it does not exist")
    args = parser.parse_args(argv)
    try:
        pixels = read(args.photo).pixels
        shown = strips(pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))
    except PocketPriorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, image in shown.items():
        _write(args.folder / f"{name}.jpg", image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
