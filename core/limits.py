"""The thresholds of this layer at which something is refused, reported or not counted, each with its reason."""

from __future__ import annotations

__all__ = ["FEWEST_PHOTOS", "LIGHTNESS_TOLERANCE", "MAX_PIXELS"]

# Larger photos are refused before they are decoded, unless the caller raises the limit: a forged header can announce
# any size. Reading a JPEG of this size takes about 1.9 GB (7.5 bytes a pixel).
MAX_PIXELS = 256_000_000

# Distance in L* of a profile's mid grey from sRGB's, above which a notice says that the model expects another tone
# curve. Gammas from 1.8 to 2.6 are within 10 of sRGB's; linear light, which is restored visibly worse, is 23 away.
LIGHTNESS_TOLERANCE = 10.0

# With fewer photos two methods are never reported as different: the 95 % interval of a percentile bootstrap is then
# too narrow. Simulated on normal values, it holds the true mean in 76 % of trials for 3 photos, in 87 % for 6 and in
# 91 % for 10.
FEWEST_PHOTOS = 6
