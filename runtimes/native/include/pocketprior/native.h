/* PocketPrior native functions: the C++ twins of core/sampling/noise.py, core/arrays.py and core/restore/tiles.py.
 *
 * The Python modules are the specification; every function here returns the same bits, on every machine and with every
 * thread count. Arrays are dense, in C order, and owned by the caller; output never overlaps input. No function keeps
 * state, allocates memory the caller must free, throws, or fails: sizes of zero are allowed and do nothing.
 *
 * `threads`: 1 = the calling thread only, n = at most n threads, 0 = one per core the process may use. Never more than
 * 16 are used, and never so many that one gets less than 65536 values; if the system refuses a thread, the calling
 * thread does its share.
 */
#ifndef POCKETPRIOR_NATIVE_H_
#define POCKETPRIOR_NATIVE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(PP_BUILDING)
#define PP_API __declspec(dllexport)
#elif defined(_WIN32)
#define PP_API __declspec(dllimport)
#else
#define PP_API __attribute__((visibility("default")))
#endif

/* Raised whenever a function changes its arguments or its bits. */
#define PP_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* PP_ABI_VERSION of the library that is loaded. */
PP_API uint32_t pp_abi_version(void);

/* One Philox4x32-10 call: (counter, key) -> 4 words. */
PP_API void pp_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* The normal transform alone: out[i] = inverse normal CDF of (bits[i] + 0.5) / 2^32. */
PP_API void pp_normal_of_bits(const uint32_t* bits, size_t count, float* out);

/* The noise field at rows [y0, y0 + height), columns [x0, x0 + width): out (channels, height, width).
 * y0 + height and x0 + width must not exceed 2^32. */
PP_API void pp_normal(uint64_t seed, uint32_t step, uint32_t y0, uint32_t x0, size_t channels, size_t height,
                      size_t width, float* out, unsigned threads);

/* image (height, width, 3) -> batch (3, height, width) = value / 255 (or / 65535), rounded once to float. */
PP_API void pp_to_batch_u8(const uint8_t* image, size_t height, size_t width, float* batch, unsigned threads);
PP_API void pp_to_batch_u16(const uint16_t* image, size_t height, size_t width, float* batch, unsigned threads);

/* batch (3, height, width) -> image (height, width, 3) = floor(clip(x, 0, 1) * 255 (or 65535) + 0.5); NaN gives 0. */
PP_API void pp_to_image_u8(const float* batch, size_t height, size_t width, uint8_t* image, unsigned threads);
PP_API void pp_to_image_u16(const float* batch, size_t height, size_t width, uint16_t* image, unsigned threads);

/* Seam of two tiles: out = kept + ramp * (fresh - kept), all (planes, rows, cols); `ramp` holds one weight per row
 * (axis 0) or per column (axis 1). */
PP_API void pp_blend(const float* kept, const float* fresh, const float* ramp, int axis, size_t planes, size_t rows,
                     size_t cols, float* out);

#ifdef __cplusplus
}
#endif

#endif /* POCKETPRIOR_NATIVE_H_ */
