"""Every threshold of this layer, with its reason; `tests/export/test_limits.py` plants a breach of each.

Grey levels are those of 255. PSNR is to what the float pack restores, of the worst photo, in dB.
"""

from __future__ import annotations

__all__ = [
    "COARSE_SLACK",
    "FLOAT_SLACK",
    "FUSED_STEPS",
    "GREY_LEVEL",
    "LARGEST_OVERLAP",
    "LEAST_PHOTOS",
    "MARGIN_DB",
    "QUANTIZED_DB",
    "ROUNDING_SLACK",
    "SEARCH_ROUNDS",
]

# Grey levels by which rounding may move a float32 restoration: its last digit, once where the graph ends and once where
# the photo is rounded to 8 bits.
FLOAT_SLACK = 2
# Grey levels that are added to the measured difference of a pack's golden restorations: processors round differently.
ROUNDING_SLACK = 2
# Grey levels by which quantization may move any value of the golden restoration.
COARSE_SLACK = 253
# Sampling steps up to which all of them go into one graph: it repeats the nodes of the denoiser for each.
FUSED_STEPS = 8
# dB that parity expects of quantized graphs unless the pack says otherwise (runtimes/parity): the default budget.
QUANTIZED_DB = 40.0
# dB that a plan keeps on the photos of the search beyond its budget, for the photos that it does not see.
MARGIN_DB = 0.5
# Rounds of solving with another limit on the error, where layers together differ from the sum of them one at a time.
SEARCH_ROUNDS = 8
# Photos that `quantize` needs: one each for calibration, search and proof.
LEAST_PHOTOS = 3
# Grey levels by which a pixel in a tile may differ from the same pixel of the whole photo when an overlap is chosen: a
# sixteenth cannot move an 8-bit photo by more than its rounding.
GREY_LEVEL = 1 / 16
# Pixels of overlap that are tried at most: a tile of 512 still keeps 52 % of its pixels.
LARGEST_OVERLAP = 64
