// The native form of blend in core/restore/tiles.py.
#include <cstddef>

#include "pocketprior/native.h"

namespace {

void blend_row(const float* kept, const float* fresh, const float* weight, std::size_t weight_stride,
               std::size_t cols, float* out) {
  for (std::size_t x = 0; x < cols; ++x) out[x] = kept[x] + weight[weight_stride * x] * (fresh[x] - kept[x]);
}

}  // namespace

extern "C" void pp_blend(const float* kept, const float* fresh, const float* ramp, int axis, std::size_t planes,
                         std::size_t rows, std::size_t cols, float* out) {
  for (std::size_t row = 0; row < planes * rows; ++row) {
    const std::size_t start = row * cols;
    const float* weight = axis == 0 ? ramp + row % rows : ramp;
    blend_row(kept + start, fresh + start, weight, axis == 0 ? 0 : 1, cols, out + start);
  }
}
