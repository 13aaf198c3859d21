// Twin of core/sampling/noise.py, which is the specification. Only + - * / sqrt on doubles, in the order written there.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "pocketprior/native.h"
#include "simd.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

static_assert(FLT_EVAL_METHOD == 0, "doubles must be rounded after every operation (no x87)");

namespace {

constexpr std::size_t kGroups = 64;            // Philox calls per block: small enough for the first-level cache
constexpr std::size_t kBlock = 4 * kGroups;    // normals per block

struct Words {
  std::uint32_t w0, w1, w2, w3;
};

PP_INLINE Words philox(Words c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c.w0;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c.w2;
    c = {std::uint32_t(b >> 32) ^ c.w1 ^ k0, std::uint32_t(b), std::uint32_t(a >> 32) ^ c.w3 ^ k1, std::uint32_t(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

PP_INLINE double from_bits(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PP_INLINE std::uint64_t to_bits(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Natural logarithm of r in [2^-33, 0.5].
PP_INLINE double log_of(double r) {
  const std::uint64_t offset = to_bits(r) - (std::uint64_t{0x3FE6A09Eu} << 32);
  const std::uint64_t biased = (offset + (std::uint64_t{64} << 52)) >> 52;  // exponent + 64
  const double e = (from_bits(biased | (std::uint64_t{0x433} << 52)) - 0x1p52) - 64.0;
  const double m = from_bits(to_bits(r) - ((biased - 64) << 52));
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double sum = 1.0 / 21.0;
  sum = sum * z + 1.0 / 19.0;
  sum = sum * z + 1.0 / 17.0;
  sum = sum * z + 1.0 / 15.0;
  sum = sum * z + 1.0 / 13.0;
  sum = sum * z + 1.0 / 11.0;
  sum = sum * z + 1.0 / 9.0;
  sum = sum * z + 1.0 / 7.0;
  sum = sum * z + 1.0 / 5.0;
  sum = sum * z + 1.0 / 3.0;
  sum = sum * z + 1.0;
  return e * 0.69314718055994530942 + 2.0 * s * sum;
}

PP_INLINE double horner(const double (&c)[8], double x) {
  return ((((((c[7] * x + c[6]) * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0];
}

constexpr double kA[8] = {3.3871328727963666080e0,  1.3314166789178437745e2, 1.9715909503065514427e3,
                          1.3731693765509461125e4,  4.5921953931549871457e4, 6.7265770927008700853e4,
                          3.3430575583588128105e4,  2.5090809287301226727e3};
constexpr double kB[8] = {1.0,                      4.2313330701600911252e1, 6.8718700749205790830e2,
                          5.3941960214247511077e3,  2.1213794301586595867e4, 3.9307895800092710610e4,
                          2.8729085735721942674e4,  5.2264952788528545610e3};
constexpr double kC[8] = {1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,
                          3.64784832476320460504e0, 1.27045825245236838258e0,  2.41780725177450611770e-1,
                          2.27238449892691845833e-2, 7.74545014278341407640e-4};
constexpr double kD[8] = {1.0,                       2.05319162663775882187e0,  1.67638483018380384940e0,
                          6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
                          5.47593808499534494600e-4, 1.05075007164441684324e-9};

PP_INLINE float normal_of(std::uint32_t word) {
  const double q = (double(std::int32_t(word ^ 0x80000000u)) + 0.5) * 0x1p-32;
  const double distance = std::fabs(q);
  const double r = 0.180625 - q * q;
  const double central = q * horner(kA, r) / horner(kB, r);
  const double t = std::sqrt(-log_of(0.5 - distance)) - 1.6;
  const double tail = std::copysign(horner(kC, t) / horner(kD, t), q);
  return float(distance <= 0.425 ? central : tail);
}

PP_SIMD void transform(const std::uint32_t* words, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = normal_of(words[i]);
}

PP_SIMD void generate(Words counter, std::uint32_t k0, std::uint32_t k1, std::size_t groups, std::uint32_t* words) {
  for (std::size_t i = 0; i < groups; ++i) {
    const Words w = philox({counter.w0 + std::uint32_t(i), counter.w1, counter.w2, counter.w3}, k0, k1);
    words[4 * i] = w.w0;
    words[4 * i + 1] = w.w1;
    words[4 * i + 2] = w.w2;
    words[4 * i + 3] = w.w3;
  }
}

// One row of one channel; counter.w0 is ignored.
void normal_row(Words counter, std::uint64_t seed, std::uint64_t x0, std::size_t width, float* out) {
  std::uint32_t words[kBlock];
  float block[kBlock];
  const std::uint64_t x1 = x0 + width;
  for (std::uint64_t x = x0; x < x1;) {
    const std::uint64_t start = x & ~std::uint64_t{3};
    const std::size_t groups = std::size_t(std::min<std::uint64_t>(kGroups, (x1 - start + 3) / 4));
    const std::size_t count = std::size_t(std::min(x1, start + 4 * groups) - x);
    counter.w0 = std::uint32_t(start >> 2);
    generate(counter, std::uint32_t(seed), std::uint32_t(seed >> 32), groups, words);
    transform(words, 4 * groups, block);
    std::memcpy(out, block + (x - start), count * sizeof(float));
    out += count;
    x += count;
  }
}

}  // namespace

extern "C" {

std::uint32_t pp_abi_version(void) { return PP_ABI_VERSION; }

void pp_philox4x32(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t words[4]) {
  const Words w = philox({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  words[0] = w.w0, words[1] = w.w1, words[2] = w.w2, words[3] = w.w3;
}

void pp_normal_of_bits(const std::uint32_t* bits, std::size_t count, float* out) { transform(bits, count, out); }

void pp_normal(std::uint64_t seed, std::uint32_t step, std::uint32_t y0, std::uint32_t x0, std::size_t channels,
               std::size_t height, std::size_t width, float* out, unsigned threads) {
  pocketprior::parallel_rows(channels * height, width, threads, [=](std::size_t first, std::size_t last) {
    for (std::size_t row = first; row < last; ++row)
      normal_row({0, std::uint32_t(y0 + row % height), std::uint32_t(row / height), step}, seed, x0, width,
                 out + row * width);
  });
}

}  // extern "C"
