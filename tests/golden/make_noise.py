"""Writes noise.json, the vectors every implementation of the noise must reproduce bit for bit, from the NumPy form.

Only a new NOISE_SPEC may change them: python tests/golden/make_noise.py
All numbers of 32 and 64 bits are hexadecimal; normals are the bits of their float32.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from pocketprior.core.sampling import noise

EDGE_WORDS = [0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
TAIL = int(0.075 * 2**32)  # where the central polynomials hand over
FIELDS = [  # seed, step, rows, cols, channels
    (0, 0, (0, 2), (0, 8), 3),
    (1, 0, (0, 1), (0, 8), 1),
    (2**64 - 1, 2**32 - 1, (2**32 - 1, 2**32), (2**32 - 5, 2**32), 2),
    (0x0123456789ABCDEF, 3, (1000, 1003), (2001, 2007), 3),
    (7, 1, (5, 6), (3, 4), 4),
]
VECTORS = [(0, 0, 8), (42, 3, 13)]  # seed, step, size
DIGEST = (20240229, 2, (90, 346), (50, 306), 3)


def field(seed: int, step: int, rows: tuple[int, int], cols: tuple[int, int], channels: int) -> np.ndarray:
    out = np.empty((channels, rows[1] - rows[0], cols[1] - cols[0]), np.float32)
    noise._fill_numpy(seed, step, rows[0], cols[0], out)
    return out


def hex_bits(values: np.ndarray) -> list[str]:
    return [f"{word:08x}" for word in values.view(np.uint32).ravel().tolist()]


def case(seed: int, step: int, rows: tuple[int, int], cols: tuple[int, int], channels: int) -> dict[str, object]:
    return {"seed": f"{seed:016x}", "step": f"{step:08x}", "rows": rows, "cols": cols, "channels": channels}


def words() -> np.ndarray:
    near_tail = [word + i for word in (TAIL, 2**32 - TAIL) for i in range(-2, 3)]
    powers = [2**i for i in range(2, 31, 2)]
    spread = np.random.default_rng(0).integers(0, 2**32, 32).tolist()
    return np.array(EDGE_WORDS + near_tail + powers + spread, np.uint32)


def golden() -> dict[str, object]:
    digest = hashlib.sha256(field(*DIGEST).astype("<f4").tobytes()).hexdigest()
    return {
        "spec": noise.NOISE_SPEC,
        "transform": dict(zip(hex_bits(words()), hex_bits(noise.normal_of_bits(words())), strict=True)),
        "fields": [{**case(*args), "normals": hex_bits(field(*args))} for args in FIELDS],
        "vectors": [
            {
                "seed": f"{seed:016x}",
                "step": f"{step:08x}",
                "size": size,
                "normals": hex_bits(field(seed, step, (2**32 - 1, 2**32), (0, size), 1)),
            }
            for seed, step, size in VECTORS
        ],
        "digest": {**case(*DIGEST), "sha256_of_little_endian_float32": digest},
    }


if __name__ == "__main__":
    Path(__file__).with_name("noise.json").write_text(json.dumps(golden(), indent=1) + "\n")
