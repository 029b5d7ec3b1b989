#include "src/nn/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <ATen/native/CPUBlas.h>
#include <ATen/record_function.h>

#include "src/nn/fused_kernels.h"
#include "src/nn/packed_weight.h"
#include "src/nn/widen.h"
#include "src/tensor/parallel_for.h"

namespace hotlora {
namespace {

constexpr int64_t kTileQueries = 64;
constexpr int64_t kBlockKeys = 512;     // scores of a tile by a block: 128 KiB
constexpr int64_t kMostHeadSize = 160;  // of UNets: beyond, LibTorch's operator is as fast

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// The attention of one head of one row, of which all queries see the same keys and values.
template <typename T>
class HeadTiles {
 public:
  static constexpr bool kPairs = !std::is_same_v<T, float>;  // of values lie side by side
  static constexpr int64_t kOperand = kPairs ? 2 : 1;

  HeadTiles(int64_t size, int64_t keys)
      : size_(size),
        keys_(keys),
        scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)))),
        packed_keys_(static_cast<size_t>(size * keys)),
        packed_values_(static_cast<size_t>(kPairs ? RoundUp(keys, kOperand) * size : 0)),
        scores_(static_cast<size_t>(kTileQueries * std::min(keys, kBlockKeys))),
        weights_(static_cast<size_t>(kPairs ? kTileQueries * RoundUp(std::min(keys, kBlockKeys), kOperand) : 0)),
        sums_(static_cast<size_t>(kTileQueries * size)),
        row_(static_cast<size_t>(3 * kTileQueries)) {}
  ~HeadTiles() { at::native::cpublas::brgemm_release(/*is_vnni=*/kPairs); }
  HeadTiles(const HeadTiles&) = delete;
  HeadTiles& operator=(const HeadTiles&) = delete;

  // The head's keys and values: [keys, size], `stride` values from one to the next. Both stay where they are.
  void SetHead(const T* keys, int64_t key_stride, const T* values, int64_t value_stride) {
    TransposeWords(reinterpret_cast<const uint32_t*>(keys), keys_, size_ / kOperand, key_stride / kOperand,
                   reinterpret_cast<uint32_t*>(packed_keys_.data()), keys_);
    if constexpr (kPairs) {
      for (int64_t key = 0; key < keys_; key += 2) {
        const auto* const first = reinterpret_cast<const uint16_t*>(values + key * value_stride);
        PairValues(first, key + 1 < keys_ ? first + value_stride : nullptr, size_,
                   reinterpret_cast<uint32_t*>(packed_values_.data() + key * size_));
      }
    } else {
      values_ = values;
      value_stride_ = value_stride;
    }
  }

  // y [queries, size] = attention of q.
  void Attend(const T* q, int64_t q_stride, int64_t queries, T* y, int64_t y_stride) {
    float* const largest = row_.data();
    float* const total = largest + kTileQueries;
    float* const shrink = total + kTileQueries;
    std::fill(largest, largest + queries, -std::numeric_limits<float>::infinity());
    std::fill(total, total + queries, 0.0F);
    for (int64_t first = 0; first < keys_; first += kBlockKeys) {
      const int64_t count = std::min(kBlockKeys, keys_ - first), padded = RoundUp(count, kOperand);
      at::native::cpublas::brgemm(queries, count, size_, q_stride, keys_, count, /*add_C=*/false, q,
                                  packed_keys_.data() + first * kOperand, scores_.data(), /*is_vnni=*/kPairs);
      SoftmaxBlock(scores_.data(), queries, count, scale_, largest, total, shrink);
      if (first > 0) {
        for (int64_t r = 0; r < queries; ++r) {
          std::transform(sums_.data() + r * size_, sums_.data() + (r + 1) * size_, sums_.data() + r * size_,
                         [factor = shrink[r]](float sum) { return sum * factor; });
        }
      }
      at::native::cpublas::brgemm(queries, size_, padded, padded, ValueStride(), size_, /*add_C=*/first > 0,
                                  Weights(queries, count), Values(first), sums_.data(), /*is_vnni=*/kPairs);
    }
    for (int64_t r = 0; r < queries; ++r) {
      float* const sums = sums_.data() + r * size_;
      const float factor = 1.0F / total[r];
      if constexpr (kPairs) {
        std::transform(sums, sums + size_, sums, [factor](float sum) { return sum * factor; });
        NarrowToBfloat16(sums, reinterpret_cast<uint16_t*>(y + r * y_stride), size_);
      } else {
        std::transform(sums, sums + size_, y + r * y_stride, [factor](float sum) { return sum * factor; });
      }
    }
  }

 private:
  // What the values are weighted by, [queries, count], in bfloat16 an even number.
  const T* Weights(int64_t queries, int64_t count) {
    if constexpr (kPairs) {
      const int64_t padded = RoundUp(count, kOperand);
      for (int64_t r = 0; r < queries; ++r) {
        NarrowToBfloat16(scores_.data() + r * count, reinterpret_cast<uint16_t*>(weights_.data() + r * padded), count);
        std::fill(weights_.data() + r * padded + count, weights_.data() + (r + 1) * padded, T(0.0F));
      }
      return weights_.data();
    } else {
      return scores_.data();
    }
  }
  const T* Values(int64_t first) const {
    return kPairs ? packed_values_.data() + first * size_ : values_ + first * value_stride_;
  }
  int64_t ValueStride() const { return kPairs ? size_ : value_stride_; }

  const int64_t size_, keys_;
  const float scale_;
  std::vector<T> packed_keys_;    // [size / operand, keys, operand]
  std::vector<T> packed_values_;  // [keys / 2, size, 2]
  std::vector<float> scores_;     // [queries, keys of a block]
  std::vector<T> weights_;        // the same in bfloat16, an even number of keys
  std::vector<float> sums_;       // [queries, size]
  std::vector<float> row_;        // of each query: the largest score, the sum of the weights, a factor
  const T* values_ = nullptr;
  int64_t value_stride_ = 0;
};

template <typename T>
void AttendAll(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y) {
  const int64_t size = q.size(2) / heads, tokens = q.size(1), tiles = (tokens + kTileQueries - 1) / kTileQueries;
  const auto at_head = [size](const at::Tensor& tensor, int64_t row, int64_t head) {
    return tensor.const_data_ptr<T>() + row * tensor.stride(0) + head * size;
  };
  ParallelFor(0, q.size(0) * heads * tiles, 1, [&](int64_t begin, int64_t end) {
    HeadTiles<T> head_tiles(size, k.size(1));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / tiles / heads, head = i / tiles % heads, first = i % tiles * kTileQueries;
      if (i == begin || first == 0) {
        head_tiles.SetHead(at_head(k, row, head), k.stride(1), at_head(v, row, head), v.stride(1));
      }
      T* const to = y.mutable_data_ptr<T>() + row * y.stride(0) + first * y.stride(1) + head * size;
      head_tiles.Attend(at_head(q, row, head) + first * q.stride(1), q.stride(1),
                        std::min(kTileQueries, tokens - first), to, y.stride(1));
    }
  });
}

}  // namespace

bool CanAttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads) {
  const int64_t size = q.size(2) / heads;
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == q.scalar_type() && tensor.stride(2) == 1 && tensor.stride(1) % 2 == 0;
  };
  return q.is_cpu() && HasPackedProducts(q.scalar_type()) && size % 2 == 0 && size <= kMostHeadSize && q.numel() > 0 &&
         k.size(1) > 0 && fits(q) && fits(k) && fits(v);
}

void AttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y) {
  RECORD_FUNCTION("hotlora::attention", {});
  if (q.scalar_type() == at::kFloat) {
    AttendAll<float>(q, k, v, heads, y);
  } else {
    AttendAll<c10::BFloat16>(q, k, v, heads, y);
  }
}

}  // namespace hotlora
