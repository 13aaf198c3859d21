"""Noise that is the same bits in every language, and for every tile of one photo.

The value at a place depends only on (seed, step, channel, y, x), all absolute; nothing is drawn in order. This text
is the specification (`NOISE_SPEC`), this module its plain form and the fallback; `runtimes/native/src/noise.cc` is the
fast form. Integers are unsigned 32-bit words and wrap. Floating point is IEEE 754 double, rounded after each operation
(no fused multiply-add), and only + - * / sqrt; a polynomial is evaluated by Horner's rule from its highest coefficient.

1. Words: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
   counter = (x div 4, y, channel, step), key = (seed mod 2^32, seed div 2^32), 0 <= seed < 2^64.
   Ten rounds; each takes (c0, c1, c2, c3), (k0, k1) to
       (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),   then k0 += W0, k1 += W1,
   hi and lo being the halves of the 64-bit product. Word number x mod 4 of the result belongs to x.
   A vector (1, D) is row y = 2^32 - 1 of channel 0, a row that no photo has.

2. Word k to normal: the inverse normal distribution function at p = (k + 0.5) / 2^32 by algorithm AS 241, PPND16
   (Wichura 1988), relative error below 1e-15. With q = p - 0.5 = (k - 2^31 + 0.5) / 2^32, which is exact:
   |q| <= 0.425:  r = 0.180625 - q * q;          z = q * A(r) / B(r), from left to right
   otherwise:     t = sqrt(-log(0.5 - |q|)) - 1.6;  z = C(t) / D(t), with the sign of q
   (AS 241 has a third pair of polynomials for p < exp(-25); p is never below 2^-33, so they are not needed.)
   The result is z rounded to float32 (to nearest, ties to even).

3. log(r) for 2^-33 <= r < 0.075: write r = m * 2^e by its bits: e = floor((h - 0x3FE6A09E) / 2^20), h being the upper
   32 bits of r; m is r with e subtracted from its exponent field, so that m is in about [sqrt(1/2), sqrt(2)).
   s = (m - 1) / (m + 1);  u = s * s;  S = the polynomial in u with coefficients 1, 1/3, 1/5, ... 1/21, each divided in
   double;  log(r) = e * 0.69314718055994530942 + 2 * s * S.   (log m = 2 atanh s)
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from ..arrays import State
from ..errors import UsageError
from ..native import ALL_CORES, library

__all__ = ["NOISE_SPEC", "normal", "normal_of_bits", "normal_vector", "philox4x32"]

NOISE_SPEC = "philox4x32-10/as241/1"

_Words = NDArray[np.uint32]
_Doubles = NDArray[np.float64]

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of the rounds
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl steps of the key
_LOW = 0xFFFFFFFF
_VECTOR_ROW = 2**32 - 1
_NUMPY_CALLS = 1 << 14  # Philox calls at one time: temporary arrays stay in the cache

_LN2 = 0.69314718055994530942
_ATANH = tuple(1.0 / n for n in range(1, 22, 2))
# Of the polynomials, from the constant coefficient up.
_A, _B = zip(
    (3.3871328727963666080e0, 1.0),
    (1.3314166789178437745e2, 4.2313330701600911252e1),
    (1.9715909503065514427e3, 6.8718700749205790830e2),
    (1.3731693765509461125e4, 5.3941960214247511077e3),
    (4.5921953931549871457e4, 2.1213794301586595867e4),
    (6.7265770927008700853e4, 3.9307895800092710610e4),
    (3.3430575583588128105e4, 2.8729085735721942674e4),
    (2.5090809287301226727e3, 5.2264952788528545610e3),
    strict=True,
)
_C, _D = zip(
    (1.42343711074968357734e0, 1.0),
    (4.63033784615654529590e0, 2.05319162663775882187e0),
    (5.76949722146069140550e0, 1.67638483018380384940e0),
    (3.64784832476320460504e0, 6.89767334985100004550e-1),
    (1.27045825245236838258e0, 1.48103976427480074590e-1),
    (2.41780725177450611770e-1, 1.51986665636164571966e-2),
    (2.27238449892691845833e-2, 5.47593808499534494600e-4),
    (7.74545014278341407640e-4, 1.05075007164441684324e-9),
    strict=True,
)


def philox4x32(counter: _Words, key: _Words) -> _Words:
    """Philox4x32-10: counter (N, 4) uint32, key (2,) uint32 -> (N, 4) uint32."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        a, b = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _LOW, (a >> 32) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


def _horner(coefficients: tuple[float, ...], x: _Doubles) -> _Doubles:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


def _log(r: _Doubles) -> _Doubles:
    bits = r.view(np.int64)
    e = ((bits >> 32) - 0x3FE6A09E) >> 20
    m = (bits - (e << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    return e * _LN2 + 2.0 * s * _horner(_ATANH, s * s)


def _central(q: _Doubles) -> _Doubles:
    r = 0.180625 - q * q
    return q * _horner(_A, r) / _horner(_B, r)


def _tail(q: _Doubles) -> _Doubles:
    t = np.sqrt(-_log(0.5 - np.abs(q))) - 1.6
    return np.copysign(_horner(_C, t) / _horner(_D, t), q)


def normal_of_bits(bits: _Words) -> NDArray[np.float32]:
    """Words of any shape -> standard normal values of that shape: step 2 of the specification."""
    q = (bits.astype(np.float64) - 2147483647.5) * 2.0**-32
    z = _central(q)
    tails = np.abs(q) > 0.425
    z[tails] = _tail(q[tails])
    return z.astype(np.float32)


def normal(seed: int, step: int, rows: tuple[int, int], cols: tuple[int, int], channels: int = 3) -> State:
    """The noise field over a rectangle of the photo: (1, channels, y1 - y0, x1 - x0), standard normal.

    seed: in [0, 2^64); step: in [0, 2^32), distinguishes the draws for one photo; rows, cols: pixels [y0, y1) and
    [x0, x1), in [0, 2^32). Raises UsageError for an argument out of its range.
    """
    for name, value, bits in (("seed", seed, 64), ("step", step, 32)):
        if not 0 <= value < 2**bits:
            raise UsageError(f"got {name} {value}; choose a whole number from 0 to 2^{bits} - 1")
    for name, interval in (("rows", rows), ("columns", cols)):
        if not 0 <= interval[0] <= interval[1] <= 2**32:
            raise UsageError(f"expected noise for {name} with 0 <= first <= last <= 2^32, got {interval}")
    out = np.empty((channels, rows[1] - rows[0], cols[1] - cols[0]), np.float32)
    lib = library()
    if lib is None:
        _fill_numpy(seed, step, rows[0], cols[0], out)
    else:
        _fill_native(lib, seed, step, rows[0], cols[0], out)
    return out[np.newaxis]


def normal_vector(seed: int, step: int, size: int) -> State:
    """Standard normal values for a sampled vector, (1, size); independent of every photo's field."""
    return normal(seed, step, (_VECTOR_ROW, _VECTOR_ROW + 1), (0, size), channels=1).reshape(1, size)


def _fill_native(lib: ctypes.CDLL, seed: int, step: int, y0: int, x0: int, out: NDArray[np.float32]) -> None:
    lib.pp_normal(seed, step, y0, x0, *out.shape, out, ALL_CORES)


def _fill_numpy(seed: int, step: int, y0: int, x0: int, out: NDArray[np.float32]) -> None:
    channels, height, width = out.shape
    rows = max(1, 4 * _NUMPY_CALLS // max(1, width))
    cols = 4 * _NUMPY_CALLS
    for channel in range(channels):
        for y in range(0, height, rows):
            for x in range(0, width, cols):
                part = out[channel, y : y + rows, x : x + cols]
                part[...] = _patch(seed, step, channel, y0 + y, x0 + x, part.shape)


def _patch(seed: int, step: int, channel: int, y0: int, x0: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = shape
    groups = np.arange(x0 // 4, (x0 + width + 3) // 4, dtype=np.uint32)
    counter = np.empty((height, len(groups), 4), np.uint32)
    counter[..., 0] = groups
    counter[..., 1] = np.arange(y0, y0 + height, dtype=np.uint32)[:, np.newaxis]
    counter[..., 2] = channel
    counter[..., 3] = step
    words = philox4x32(counter.reshape(-1, 4), np.array([seed & _LOW, seed >> 32], np.uint32))
    return normal_of_bits(words.reshape(height, -1)[:, x0 % 4 : x0 % 4 + width])
