#include "src/nn/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/zeros.h>
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
// LibTorch keeps a kernel for each shape of a product, and never drops one. So the queries of a tile and the keys of
// a block are rounded up to few numbers: for heads of one size no thread makes more than about two hundred kernels,
// whatever the sizes of images.
constexpr int64_t kFewQueries = 16;
constexpr int64_t kFewKeys = 128, kSmallStep = 16, kLargeStep = 64;

int64_t StepOf(int64_t keys) { return keys <= kFewKeys ? kSmallStep : kLargeStep; }

// `keys` of a block, rounded up.
int64_t RoundUp(int64_t keys) { return (keys + StepOf(keys) - 1) / StepOf(keys) * StepOf(keys); }

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
        packed_(at::zeros({2, size * (keys / kBlockKeys * kBlockKeys + RoundUp(keys % kBlockKeys))},
                          c10::CppTypeToScalarType<T>::value)),
        packed_keys_(packed_.mutable_data_ptr<T>()),
        packed_values_(packed_keys_ + packed_.size(1)),
        queries_(static_cast<size_t>(kTileQueries * size)),
        scores_(static_cast<size_t>(kTileQueries * RoundUp(std::min(keys, kBlockKeys)))),
        weights_(kPairs ? scores_.size() : 0),
        sums_(queries_.size()),
        of_queries_(static_cast<size_t>(3 * kTileQueries)) {}
  ~HeadTiles() { at::native::cpublas::brgemm_release(/*is_vnni=*/kPairs); }
  HeadTiles(const HeadTiles&) = delete;
  HeadTiles& operator=(const HeadTiles&) = delete;

  // The head's keys and values: [keys, size], `stride` values from one to the next.
  void SetHead(const T* keys, int64_t key_stride, const T* values, int64_t value_stride) {
    for (int64_t first = 0; first < keys_; first += kBlockKeys) {
      const int64_t count = std::min(kBlockKeys, keys_ - first);
      TransposeWords(reinterpret_cast<const uint32_t*>(keys + first * key_stride), count, size_ / kOperand,
                     key_stride / kOperand, reinterpret_cast<uint32_t*>(packed_keys_ + first * size_), RoundUp(count));
    }
    for (int64_t key = 0; key < keys_; key += kOperand) {
      const T* const value = values + key * value_stride;
      T* const packed = packed_values_ + key * size_;
      if constexpr (kPairs) {
        const auto* const first = reinterpret_cast<const uint16_t*>(value);
        PairValues(first, key + 1 < keys_ ? first + value_stride : nullptr, size_, reinterpret_cast<uint32_t*>(packed));
      } else {
        std::copy(value, value + size_, packed);
      }
    }
  }

  // y [queries, size] = attention of q.
  void Attend(const T* q, int64_t q_stride, int64_t queries, T* y, int64_t y_stride) {
    const int64_t rows = queries <= kFewQueries ? kFewQueries : kTileQueries;
    if (rows != queries) {
      for (int64_t r = 0; r < queries; ++r) {
        std::copy(q + r * q_stride, q + r * q_stride + size_, queries_.data() + r * size_);
      }
      q = queries_.data();
      q_stride = size_;
    }
    float* const largest = of_queries_.data();
    float* const total = largest + kTileQueries;
    float* const shrink = total + kTileQueries;
    std::fill(largest, largest + queries, -std::numeric_limits<float>::infinity());
    std::fill(total, total + queries, 0.0F);
    for (int64_t first = 0; first < keys_; first += kBlockKeys) {
      const int64_t count = std::min(kBlockKeys, keys_ - first), columns = RoundUp(count);
      Multiply(rows, columns, size_, q, q_stride, packed_keys_ + first * size_, columns, scores_.data(), columns,
               /*add=*/false);
      SoftmaxBlock(scores_.data(), queries, count, columns, scale_, largest, total, shrink);
      for (int64_t r = 0; r < queries && first > 0; ++r) {
        float* const sums = sums_.data() + r * size_;
        std::transform(sums, sums + size_, sums, [factor = shrink[r]](float sum) { return sum * factor; });
      }
      AddValues(rows, first, count, columns);
    }
    for (int64_t r = 0; r < queries; ++r) {
      float* const sums = sums_.data() + r * size_;
      std::transform(sums, sums + size_, sums, [factor = 1.0F / total[r]](float sum) { return sum * factor; });
      if constexpr (kPairs) {
        NarrowToBfloat16(sums, reinterpret_cast<uint16_t*>(y + r * y_stride), size_);
      } else {
        std::copy(sums, sums + size_, y + r * y_stride);
      }
    }
  }

 private:
  // sums = or += the terms of `count` keys from `first` on, of which a row has `columns`, times their values.
  void AddValues(int64_t rows, int64_t first, int64_t count, int64_t columns) {
    auto score = scores_.begin();
    for (int64_t r = 0; r < rows; ++r, score += columns) {
      std::fill(score + count, score + columns, 0.0F);  // what lies beyond the keys weighs nothing
    }
    const T* weights;
    if constexpr (kPairs) {
      NarrowToBfloat16(scores_.data(), reinterpret_cast<uint16_t*>(weights_.data()), rows * columns);
      weights = weights_.data();
    } else {
      weights = scores_.data();
    }
    Multiply(rows, size_, columns, weights, columns, packed_values_ + first * size_, size_, sums_.data(), size_,
             /*add=*/first > 0);
  }

  // c [m, n] = or += a [m, k] b [k / operand, n, operand].
  static void Multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride,
                       float* c, int64_t c_stride, bool add) {
    at::native::cpublas::brgemm(m, n, k, a_stride, b_stride, c_stride, add, a, b, c, /*is_vnni=*/kPairs);
  }

  const int64_t size_, keys_;
  const float scale_;
  const at::Tensor packed_;        // both of these: of many tokens, so from LibTorch's allocator, which counts them
  T* const packed_keys_;           // of each block of keys [size / operand, keys, operand]
  T* const packed_values_;         // [keys / operand, size, operand]; zeros beyond the keys
  std::vector<T> queries_;         // [queries, size]: those of a last tile
  std::vector<float> scores_;      // [queries, keys of a block]
  std::vector<T> weights_;         // the same in bfloat16
  std::vector<float> sums_;        // [queries, size]
  std::vector<float> of_queries_;  // of each the largest score, the sum of the weights, a factor
};

template <typename T>
void AttendAll(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y) {
  const int64_t size = q.size(2) / heads, tokens = q.size(1), tiles = (tokens + kTileQueries - 1) / kTileQueries;
  const auto at_head = [size](const at::Tensor& tensor, int64_t row, int64_t head) {
    return tensor.const_data_ptr<T>() + row * tensor.stride(0) + head * size;
  };
  ParallelFor(0, q.size(0) * heads * tiles, 1, [&](int64_t begin, int64_t end) {
    const at::DisableRecordFunctionGuard one_call;  // observers of the caller see no operator of another thread
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
    return tensor.scalar_type() == q.scalar_type() && tensor.stride(2) == 1 && tensor.stride(0) % 2 == 0 &&
           tensor.stride(1) % 2 == 0 && reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % sizeof(uint32_t) == 0;
  };
  return q.is_cpu() && HasPackedProducts(q.scalar_type()) && size % 2 == 0 && size <= kMostHeadSize && q.numel() > 0 &&
         k.size(1) > 0 && fits(q) && fits(k) && fits(v);
}

void AttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y) {
  RECORD_FUNCTION("hotlora::attention", {});
  TORCH_CHECK(CanAttendByTiles(q, k, v, heads), "attention of ", heads, " heads of q ", q.sizes(), " ",
              q.scalar_type());
  TORCH_CHECK(q.size(2) % heads == 0 && k.sizes() == v.sizes() && k.size(0) == q.size(0) && k.size(2) == q.size(2) &&
                  y.sizes() == q.sizes() && y.scalar_type() == q.scalar_type() && y.stride(2) == 1,
              "q is ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(), ", y ", y.sizes());
  if (q.scalar_type() == at::kFloat) {
    AttendAll<float>(q, k, v, heads, y);
  } else {
    AttendAll<c10::BFloat16>(q, k, v, heads, y);
  }
}

}  // namespace hotlora
