#ifndef HOTLORA_SRC_NN_FUSED_KERNELS_H_
#define HOTLORA_SRC_NN_FUSED_KERNELS_H_

// The loops of the fused operators (fused_ops.h), of packed weights and of attention by tiles on the CPU, on one
// thread, over plain memory. Each is compiled for several levels of vector instructions, and the program takes the
// best that the CPU has. All sums are float32 or better.

#include <cstdint>

#include <c10/util/BFloat16.h>

namespace hotlora {

// sums[2 g] = sum over `pixels` pixels of `channels` values and over group g's channels of x + shift[c],
// sums[2 g + 1] the same of (x + shift[c])^2. `scratch` holds 2 * channels floats.
void SumGroups(const float* x, const float* shift, int64_t pixels, int64_t channels, int64_t groups, float* scratch,
               double* sums);
void SumGroups(const c10::BFloat16* x, const float* shift, int64_t pixels, int64_t channels, int64_t groups,
               float* scratch, double* sums);

// y = x * scale[c] + shift[c] for `pixels` pixels, and silu of it if asked.
void ScalePixels(const float* x, const float* scale, const float* shift, bool silu, int64_t pixels, int64_t channels,
                 float* y);
void ScalePixels(const c10::BFloat16* x, const float* scale, const float* shift, bool silu, int64_t pixels,
                 int64_t channels, c10::BFloat16* y);

// x += added, y = layer norm of the new x, for `rows` rows of `width` values. `scratch` holds `width` floats.
void AddNormRows(float* x, const float* added, const float* weight, const float* bias, double epsilon, int64_t rows,
                 int64_t width, float* scratch, float* y);
void AddNormRows(c10::BFloat16* x, const c10::BFloat16* added, const c10::BFloat16* weight, const c10::BFloat16* bias,
                 double epsilon, int64_t rows, int64_t width, float* scratch, c10::BFloat16* y);

// y = both[first half] * gelu(both[second half]), for `rows` rows of 2 * hidden values.
void GegluRows(const float* both, int64_t rows, int64_t hidden, float* y);
void GegluRows(const c10::BFloat16* both, int64_t rows, int64_t hidden, c10::BFloat16* y);

// y[c][r] = x[r][c] for `rows` rows of `columns` words of 32 bits, whatever they mean. Rows of x are x_stride words
// apart, those of y y_stride.
void TransposeWords(const uint32_t* x, int64_t rows, int64_t columns, int64_t x_stride, uint32_t* y, int64_t y_stride);

// pairs[i] = first[i], then second[i] in the higher half of the word, or 0 if second is null.
void PairValues(const uint16_t* first, const uint16_t* second, int64_t count, uint32_t* pairs);

// One block of keys of a softmax. For each of `rows` rows of `keys` scores, which are `stride` apart, `largest` is the
// largest scaled score so far and `total` the sum of exp(scaled score - largest) so far. Both are brought up to date,
// `shrink` becomes what earlier sums are to be multiplied by, and each score its term exp(scaled score - largest).
void SoftmaxBlock(float* scores, int64_t rows, int64_t keys, int64_t stride, float scale, float* largest, float* total,
                  float* shrink);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_FUSED_KERNELS_H_
