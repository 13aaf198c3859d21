// Twin of to_batch and to_image in core/arrays.py.
#include <cstddef>
#include <cstdint>
#include <limits>

#include "parallel.h"
#include "pocketprior/native.h"
#include "simd.h"

namespace {

template <typename T>
PP_INLINE void widen(const T* image, std::size_t width, std::size_t plane, float* batch) {
  constexpr float kMax = float(std::numeric_limits<T>::max());
  for (std::size_t x = 0; x < width; ++x)
    for (std::size_t c = 0; c < 3; ++c) batch[c * plane + x] = float(image[3 * x + c]) / kMax;
}

// In double the product of a float and 255 or 65535 is exact, so that "half up" means just that.
template <typename T>
PP_INLINE T quantised(float value) {
  constexpr double kMax = double(std::numeric_limits<T>::max());
  const float clipped = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;  // NaN > 0 is false
  return T(int(double(clipped) * kMax + 0.5));
}

template <typename T>
PP_INLINE void narrow(const float* batch, std::size_t width, std::size_t plane, T* image) {
  for (std::size_t x = 0; x < width; ++x)
    for (std::size_t c = 0; c < 3; ++c) image[3 * x + c] = quantised<T>(batch[c * plane + x]);
}

PP_SIMD void widen_u8(const std::uint8_t* image, std::size_t width, std::size_t plane, float* batch) {
  widen(image, width, plane, batch);
}

PP_SIMD void widen_u16(const std::uint16_t* image, std::size_t width, std::size_t plane, float* batch) {
  widen(image, width, plane, batch);
}

PP_SIMD void narrow_u8(const float* batch, std::size_t width, std::size_t plane, std::uint8_t* image) {
  narrow(batch, width, plane, image);
}

PP_SIMD void narrow_u16(const float* batch, std::size_t width, std::size_t plane, std::uint16_t* image) {
  narrow(batch, width, plane, image);
}

// convert(from, width, plane, to) for every row; the planar side advances by one row, the interleaved one by three.
template <typename From, typename To, typename Convert>
void each_row(const From* from, std::size_t from_row, To* to, std::size_t to_row, std::size_t height,
              std::size_t width, unsigned threads, Convert convert) {
  pocketprior::parallel_rows(height, 3 * width, threads, [=](std::size_t first, std::size_t last) {
    for (std::size_t y = first; y < last; ++y)
      convert(from + y * from_row, width, height * width, to + y * to_row);
  });
}

}  // namespace

extern "C" {

void pp_to_batch_u8(const std::uint8_t* image, std::size_t height, std::size_t width, float* batch, unsigned threads) {
  each_row(image, 3 * width, batch, width, height, width, threads, widen_u8);
}

void pp_to_batch_u16(const std::uint16_t* image, std::size_t height, std::size_t width, float* batch,
                     unsigned threads) {
  each_row(image, 3 * width, batch, width, height, width, threads, widen_u16);
}

void pp_to_image_u8(const float* batch, std::size_t height, std::size_t width, std::uint8_t* image, unsigned threads) {
  each_row(batch, width, image, 3 * width, height, width, threads, narrow_u8);
}

void pp_to_image_u16(const float* batch, std::size_t height, std::size_t width, std::uint16_t* image,
                     unsigned threads) {
  each_row(batch, width, image, 3 * width, height, width, threads, narrow_u16);
}

}  // extern "C"
