#include "src/nn/fused_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "src/nn/fused_tile.h"
#include "src/nn/vector_levels.h"
#include "src/nn/widen.h"

namespace hotlora {
namespace {

constexpr int64_t kLanes = 16;        // sums of a row that run side by side
constexpr int64_t kWords = 8;         // rows and columns that are transposed at a time
constexpr int64_t kFloatPixels = 64;  // so many pixels have a sum in float32; the sum of these sums is double

HOTLORA_TILE_INLINE float Load(const float* from) { return *from; }
HOTLORA_TILE_INLINE float Load(const c10::BFloat16* from) {
  const uint32_t bits = static_cast<uint32_t>(from->x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

HOTLORA_TILE_INLINE void Store(float value, float* to) { *to = value; }
HOTLORA_TILE_INLINE void Store(float value, c10::BFloat16* to) { to->x = Bfloat16Bits(value); }

// In four sums side by side, none of which waits for another.
HOTLORA_TILE_INLINE double DoubleSum(const float* __restrict values, int64_t count) {
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int64_t lane = 0; lane < 4; ++lane) {
      sums[lane] += values[i + lane];
    }
  }
  for (; i < count; ++i) {
    sums[0] += values[i];
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename T>
HOTLORA_TILE_INLINE void SumGroupsTile(const T* __restrict x, const float* __restrict shift, int64_t pixels,
                                       int64_t channels, int64_t groups, float* __restrict scratch,
                                       double* __restrict sums) {
  const int64_t group_channels = channels / groups;
  float* __restrict const part = scratch;
  float* __restrict const squares = scratch + channels;
  std::fill(sums, sums + 2 * groups, 0.0);
  for (int64_t first = 0; first < pixels; first += kFloatPixels) {
    const int64_t end = std::min(first + kFloatPixels, pixels);
    std::fill(scratch, scratch + 2 * channels, 0.0F);
    int64_t p = first;
    for (; p + 4 <= end; p += 4) {
      const T* const row = x + p * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const float a = Load(row + c) + shift[c], b = Load(row + channels + c) + shift[c];
        const float d = Load(row + 2 * channels + c) + shift[c], e = Load(row + 3 * channels + c) + shift[c];
        part[c] += (a + b) + (d + e);
        squares[c] += (a * a + b * b) + (d * d + e * e);
      }
    }
    for (; p < end; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        const float value = Load(x + p * channels + c) + shift[c];
        part[c] += value;
        squares[c] += value * value;
      }
    }
    for (int64_t group = 0; group < groups; ++group) {
      sums[2 * group] += DoubleSum(part + group * group_channels, group_channels);
      sums[2 * group + 1] += DoubleSum(squares + group * group_channels, group_channels);
    }
  }
}

template <typename T>
HOTLORA_TILE_INLINE void ScalePixelsTile(const T* __restrict x, const float* __restrict scale,
                                         const float* __restrict shift, bool silu, int64_t pixels, int64_t channels,
                                         T* __restrict y) {
  for (int64_t p = 0; p < pixels; ++p, x += channels, y += channels) {
    if (silu) {
      for (int64_t c = 0; c < channels; ++c) {
        Store(FusedTile::Silu(Load(x + c) * scale[c] + shift[c]), y + c);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        Store(Load(x + c) * scale[c] + shift[c], y + c);
      }
    }
  }
}

// The sum of value(i) for i in [0, count), always in the same order.
template <typename Value>
HOTLORA_TILE_INLINE float SumOf(int64_t count, Value value) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += value(i + lane);
    }
  }
  float rest = 0.0F;
  for (; i < count; ++i) {
    rest += value(i);
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) {
      lanes[lane] += lanes[lane + half];
    }
  }
  return lanes[0] + rest;
}

template <typename T>
HOTLORA_TILE_INLINE void AddNormRowsTile(T* __restrict x, const T* __restrict added, const T* __restrict weight,
                                         const T* __restrict bias, double epsilon, int64_t rows, int64_t width,
                                         float* __restrict scratch, T* __restrict y) {
  for (int64_t r = 0; r < rows; ++r, x += width, added += width, y += width) {
    for (int64_t i = 0; i < width; ++i) {
      scratch[i] = Load(x + i) + Load(added + i);
      Store(scratch[i], x + i);
    }
    const float mean = SumOf(width, [&](int64_t i) { return scratch[i]; }) / static_cast<float>(width);
    const float variance = SumOf(width, [&](int64_t i) { return (scratch[i] - mean) * (scratch[i] - mean); });
    const auto scale = static_cast<float>(1.0 / std::sqrt(variance / static_cast<double>(width) + epsilon));
    for (int64_t i = 0; i < width; ++i) {
      Store((scratch[i] - mean) * scale * Load(weight + i) + Load(bias + i), y + i);
    }
  }
}

template <typename T>
HOTLORA_TILE_INLINE void GegluRowsTile(const T* __restrict both, int64_t rows, int64_t hidden, T* __restrict y) {
  for (int64_t r = 0; r < rows; ++r, both += 2 * hidden, y += hidden) {
    for (int64_t i = 0; i < hidden; ++i) {
      Store(Load(both + i) * FusedTile::Gelu(Load(both + hidden + i)), y + i);
    }
  }
}

// The largest of the values; NaN is passed over.
HOTLORA_TILE_INLINE float LargestOf(const float* __restrict values, int64_t count) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  for (; i < count; ++i) {
    lanes[0] = std::max(lanes[0], values[i]);
  }
  return *std::max_element(lanes, lanes + kLanes);
}

// y[c][r] = x[r][c] for kWords rows of kWords words, in registers: the halves of the square that lie off its diagonal
// change places, then those of each quarter, and so on.
HOTLORA_TILE_INLINE void TransposeSquare(const uint32_t* __restrict x, int64_t x_stride, uint32_t* __restrict y,
                                         int64_t y_stride) {
  using Words = uint32_t __attribute__((vector_size(kWords * sizeof(uint32_t))));
  Words rows[kWords];
  for (int64_t r = 0; r < kWords; ++r) {
    std::memcpy(&rows[r], x + r * x_stride, sizeof(Words));
  }
  for (int64_t r = 0; r < 4; ++r) {
    const Words a = rows[r], b = rows[r + 4];
    rows[r] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    rows[r + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (const int64_t r : {0, 1, 4, 5}) {
    const Words a = rows[r], b = rows[r + 2];
    rows[r] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
    rows[r + 2] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (const int64_t r : {0, 2, 4, 6}) {
    const Words a = rows[r], b = rows[r + 1];
    rows[r] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
    rows[r + 1] = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int64_t c = 0; c < kWords; ++c) {
    std::memcpy(y + c * y_stride, &rows[c], sizeof(Words));
  }
}

}  // namespace

HOTLORA_VECTOR_LEVELS void TransposeWords(const uint32_t* x, int64_t rows, int64_t columns, int64_t x_stride,
                                          uint32_t* y, int64_t y_stride) {
  for (int64_t c = 0; c < columns; c += kWords) {
    for (int64_t r = 0; r < rows; r += kWords) {
      if (r + kWords <= rows && c + kWords <= columns) {
        TransposeSquare(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride);
        continue;
      }
      for (int64_t i = r; i < std::min(r + kWords, rows); ++i) {
        for (int64_t j = c; j < std::min(c + kWords, columns); ++j) {
          y[j * y_stride + i] = x[i * x_stride + j];
        }
      }
    }
  }
}

HOTLORA_VECTOR_LEVELS void PairValues(const uint16_t* first, const uint16_t* second, int64_t count, uint32_t* pairs) {
  if (second == nullptr) {
    std::copy(first, first + count, pairs);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    pairs[i] = static_cast<uint32_t>(first[i]) | static_cast<uint32_t>(second[i]) << 16;
  }
}

HOTLORA_VECTOR_LEVELS void SoftmaxBlock(float* scores, int64_t rows, int64_t keys, int64_t stride, float scale,
                                        float* largest, float* total, float* shrink) {
  for (int64_t r = 0; r < rows; ++r, scores += stride) {
    const float now = std::max(largest[r], LargestOf(scores, keys) * scale);
    shrink[r] = FusedTile::Exp(largest[r] - now);
    largest[r] = now;
    for (int64_t i = 0; i < keys; ++i) {
      scores[i] = FusedTile::Exp(scores[i] * scale - now);
    }
    total[r] = total[r] * shrink[r] + SumOf(keys, [&](int64_t i) { return scores[i]; });
  }
}

// The compiler makes no levels of a template, so each dtype is written out.
#define HOTLORA_FOR_DTYPE(T)                                                                                   \
  HOTLORA_VECTOR_LEVELS void SumGroups(const T* x, const float* shift, int64_t pixels, int64_t channels,       \
                                       int64_t groups, float* scratch, double* sums) {                         \
    SumGroupsTile(x, shift, pixels, channels, groups, scratch, sums);                                          \
  }                                                                                                            \
  HOTLORA_VECTOR_LEVELS void ScalePixels(const T* x, const float* scale, const float* shift, bool silu,        \
                                         int64_t pixels, int64_t channels, T* y) {                             \
    ScalePixelsTile(x, scale, shift, silu, pixels, channels, y);                                               \
  }                                                                                                            \
  HOTLORA_VECTOR_LEVELS void AddNormRows(T* x, const T* added, const T* weight, const T* bias, double epsilon, \
                                         int64_t rows, int64_t width, float* scratch, T* y) {                  \
    AddNormRowsTile(x, added, weight, bias, epsilon, rows, width, scratch, y);                                 \
  }                                                                                                            \
  HOTLORA_VECTOR_LEVELS void GegluRows(const T* both, int64_t rows, int64_t hidden, T* y) {                    \
    GegluRowsTile(both, rows, hidden, y);                                                                      \
  }

HOTLORA_FOR_DTYPE(float)
HOTLORA_FOR_DTYPE(c10::BFloat16)

}  // namespace hotlora
