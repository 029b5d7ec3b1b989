#ifndef HOTLORA_SRC_NN_FUSED_KERNELS_H_
#define HOTLORA_SRC_NN_FUSED_KERNELS_H_

// The loops of the fused operators (fused_ops.h) on the CPU, on one thread, over plain memory. Each is compiled for
// several levels of vector instructions, and the program takes the best that the CPU has. All sums are float32 or
// better. T is float or c10::BFloat16.

#include <cstdint>

namespace hotlora {

// sums[2 g] = sum over `pixels` pixels of `channels` values and over group g's channels of x + shift[c],
// sums[2 g + 1] the same of (x + shift[c])^2. `scratch` holds 2 * channels floats.
template <typename T>
void SumGroups(const T* x, const float* shift, int64_t pixels, int64_t channels, int64_t groups, float* scratch,
               double* sums);

// y = x * scale[c] + shift[c] for `pixels` pixels, and silu of it if asked.
template <typename T>
void ScalePixels(const T* x, const float* scale, const float* shift, bool silu, int64_t pixels, int64_t channels, T* y);

// x += added, y = layer norm of the new x, for `rows` rows of `width` values. `scratch` holds `width` floats.
template <typename T>
void AddNormRows(T* x, const T* added, const T* weight, const T* bias, double epsilon, int64_t rows, int64_t width,
                 float* scratch, T* y);

// y = both[first half] * gelu(both[second half]), for `rows` rows of 2 * hidden values.
template <typename T>
void GegluRows(const T* both, int64_t rows, int64_t hidden, T* y);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_FUSED_KERNELS_H_
