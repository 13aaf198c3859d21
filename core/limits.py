"""The limits of this layer: what is refused, reported or not counted, and memory, each with its reason."""

from __future__ import annotations

__all__ = [
    "FEWEST_PHOTOS",
    "LARGEST_AMOUNT",
    "LARGEST_TILE",
    "LIGHTNESS_TOLERANCE",
    "MAX_MEMORY_BYTES",
    "MAX_PIXELS",
    "WORKING_BYTES",
]

# Larger photos are refused before they are decoded, unless the caller raises the limit: a forged header can announce
# any size. Reading a JPEG of this size takes about 1.9 GB (7.5 bytes a pixel).
MAX_PIXELS = 256_000_000

# The largest amount of damage to remove, in units of what the model estimates: graphs that take it are made for 0 to 2.
LARGEST_AMOUNT = 2

# Edge in pixels of the largest tile, where tiles may vary: Core ML packages declare this as the end of their range.
LARGEST_TILE = 4096

# Memory in bytes that the whole process may use where the caller sets no limit: phones have that much.
# Photos that need more get more.
MAX_MEMORY_BYTES = 2**30

# The least memory in bytes for tiles where the caller sets no limit, on top of what the process and the photo need: a
# photo of 151 megapixels and its result use up the limit above.
WORKING_BYTES = 256 * 2**20

# Distance in L* of a profile's mid grey from sRGB's, above which a notice says that the model expects another tone
# curve. Gammas from 1.8 to 2.6 are within 10 of sRGB's; linear light, which is restored visibly worse, is 23 away.
LIGHTNESS_TOLERANCE = 10.0

# With fewer photos two methods are never reported as different: the 95 % interval of a percentile bootstrap is then
# too narrow. Simulated on normal values, it holds the true mean in 76 % of trials for 3 photos, in 87 % for 6 and in
# 91 % for 10.
FEWEST_PHOTOS = 6
