"""Fit the NIQE model on pristine photos: python scripts/fit_niqe.py --data DATA --out core/metrics/niqe.npz

Takes the clean photos of the train split that may be used for anything, and the sharp patches of each (section 3.2).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pocketprior.core.arrays import Field
from pocketprior.core.errors import PocketPriorError
from pocketprior.core.metrics.niqe import NiqeModel, patch_features
from pocketprior.core.photo.io import read
from pocketprior.core.photo.listing import clean_photos

__all__ = ["fit", "main"]

SHARPNESS = 0.75  # of the sharpest patch of the photo


def fit(photos: Sequence[Path]) -> NiqeModel:
    """Mean and covariance (36 features) of the sharp patches of the photos, whatever their order."""
    features = np.concatenate([_sharp_features(path) for path in tqdm(sorted(photos), unit="photo", disable=None)])
    return NiqeModel(
        features.mean(axis=0), np.cov(features, rowvar=False, dtype=np.float64), _digest(photos), len(features)
    )


def _sharp_features(path: Path) -> Field:
    features, sharpness = patch_features(read(path).pixels)
    sharp = sharpness > SHARPNESS * sharpness.max()
    return features[sharp & np.isfinite(features).all(axis=1)]


def _digest(photos: Iterable[Path]) -> str:
    """SHA-256 of the sorted SHA-256 lines of the files."""
    lines = sorted(hashlib.sha256(path.read_bytes()).hexdigest() + "\n" for path in photos)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos and a manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="the model file to write (.npz)")
    args = parser.parse_args(argv)
    try:
        model = fit([photo.path for photo in clean_photos(args.data, split="train", use="any")])
    except PocketPriorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    model.save(args.out)
    print(f"{args.out}: {model.patches} patches, photos {model.photos_sha256}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
