#include "src/nn/packed_product.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>

#include "src/nn/packed_weight.h"
#include "src/nn/widen.h"
#include "src/tensor/parallel_for.h"

namespace hotlora {
namespace {

constexpr int64_t kTileRows = 128;

// So many bytes of each output's weights are multiplied at a time: 80 KiB of a block of 64, a part of the L2 cache.
constexpr int64_t kChunkBytes = 1280;

// How many of the rows the next product takes. LibTorch keeps a kernel for each shape of a product, and never drops
// one, so there are few: multiples of 16, and 8, 4, 2 and 1.
int64_t RowsOfKernel(int64_t rows) {
  if (rows >= 16) {
    return rows / 16 * 16;
  }
  return rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The sums of one tile of a result after the other: in the result if it is float32, else apart, to be rounded once.
template <typename T>
class TileSums {
 public:
  static constexpr bool kInPlace = std::is_same_v<T, float>;
  static constexpr int64_t kChunk = kChunkBytes / static_cast<int64_t>(sizeof(T));  // inputs

  TileSums(int64_t most_rows, int64_t outputs) : outputs_(outputs) {
    if (!kInPlace) {
      apart_.resize(static_cast<size_t>(most_rows * outputs));
    }
  }
  ~TileSums() { at::native::cpublas::brgemm_release(/*is_vnni=*/!kInPlace); }
  TileSums(const TileSums&) = delete;
  TileSums& operator=(const TileSums&) = delete;

  // The tile of `rows` rows of the result that begins at `to`. `bias` is that of its outputs, or null.
  void Begin(T* to, int64_t stride, int64_t rows, const T* bias, Result result) {
    to_ = to;
    stride_ = stride;
    rows_ = rows;
    for (int64_t r = 0; r < rows; ++r) {
      float* const sums = Sums(r);
      const T* const before = to + r * stride;
      for (int64_t i = 0; i < outputs_; ++i) {
        const float added = bias == nullptr ? 0.0F : static_cast<float>(bias[i]);
        sums[i] = result == Result::kSum ? static_cast<float>(before[i]) + added : added;
      }
    }
  }

  // Adds a [rows, inputs] times packed weights to the tile's rows from `first` on.
  void Add(int64_t first, int64_t rows, const T* a, int64_t a_stride, const T* weights, int64_t inputs) {
    for (int64_t count; rows > 0; rows -= count, first += count, a += count * a_stride) {
      count = RowsOfKernel(rows);
      at::native::cpublas::brgemm(count, outputs_, inputs, a_stride, outputs_, kInPlace ? stride_ : outputs_,
                                  /*add_C=*/true, a, weights, Sums(first), /*is_vnni=*/!kInPlace);
    }
  }

  void End() {
    if constexpr (!kInPlace) {
      for (int64_t r = 0; r < rows_; ++r) {
        NarrowToBfloat16(Sums(r), reinterpret_cast<uint16_t*>(to_ + r * stride_), outputs_);
      }
    }
  }

 private:
  float* Sums(int64_t row) {
    if constexpr (kInPlace) {
      return to_ + row * stride_;
    } else {
      return apart_.data() + row * outputs_;
    }
  }

  const int64_t outputs_;
  std::vector<float> apart_;
  T* to_ = nullptr;
  int64_t stride_ = 0, rows_ = 0;
};

template <typename T>
const T* BiasOf(const at::Tensor& bias, int64_t first_output) {
  return bias.defined() ? bias.const_data_ptr<T>() + first_output : nullptr;
}

template <typename T>
void Multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& y) {
  const int64_t rows = x.size(0), in = x.size(1), block_size = weight.size(1);
  const int64_t row_tiles = CeilDiv(rows, kTileRows), x_stride = x.stride(0), y_stride = y.stride(0);
  const T* const from = x.const_data_ptr<T>();
  const T* const weights = weight.const_data_ptr<T>();
  T* const to = y.mutable_data_ptr<T>();
  ParallelFor(0, weight.size(0) * row_tiles, 1, [&](int64_t begin, int64_t end) {
    TileSums<T> sums(std::min(rows, kTileRows), block_size);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t block = tile / row_tiles, row = tile % row_tiles * kTileRows;
      const int64_t count = std::min(kTileRows, rows - row), output = block * block_size;
      sums.Begin(to + row * y_stride + output, y_stride, count, BiasOf<T>(bias, output), Result::kNew);
      for (int64_t i = 0; i < in; i += sums.kChunk) {
        sums.Add(0, count, from + row * x_stride + i, x_stride, weights + output * in + i * block_size,
                 std::min(sums.kChunk, in - i));
      }
      sums.End();
    }
  });
}

// The values of a row of the window, kernel pixels of all channels, lie side by side, and those of the next pixel's
// window begin a stride further: they are a matrix whose rows overlap.
template <typename T>
void Convolve(const at::Tensor& padded, const at::Tensor& weight, const at::Tensor& bias, const Window& window,
              Result result, const at::Tensor& y) {
  const int64_t in = padded.size(3), block_size = weight.size(1), out = y.size(1), height = y.size(2),
                width = y.size(3);
  const int64_t line = padded.stride(1), window_row = window.kernel * in;
  const int64_t tile_height = std::max<int64_t>(1, kTileRows / width), down_tiles = CeilDiv(height, tile_height);
  const int64_t tiles = y.size(0) * down_tiles;  // of a block
  const T* const from = padded.const_data_ptr<T>();
  const T* const weights = weight.const_data_ptr<T>();
  T* const to = y.mutable_data_ptr<T>();
  ParallelFor(0, weight.size(0) * tiles, 1, [&](int64_t begin, int64_t end) {
    TileSums<T> sums(std::min(tile_height, height) * width, block_size);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t block = tile / tiles, row = tile % tiles / down_tiles, top = tile % down_tiles * tile_height;
      const int64_t lines = std::min(tile_height, height - top), output = block * block_size;
      sums.Begin(to + (row * height + top) * width * out + output, out, lines * width, BiasOf<T>(bias, output), result);
      for (int64_t k = 0; k < window.kernel; ++k) {
        for (int64_t i = 0; i < window_row; i += sums.kChunk) {
          const T* const chunk = weights + output * window.kernel * window_row + (k * window_row + i) * block_size;
          for (int64_t l = 0; l < lines; ++l) {
            const T* const a = from + row * padded.stride(0) + ((top + l) * window.stride + k) * line + i;
            sums.Add(l * width, width, a, window.stride * in, chunk, std::min(sums.kChunk, window_row - i));
          }
        }
      }
      sums.End();
    }
  });
}

// What products and convolutions ask alike: x [rows, in, ...], y [rows, out, ...], windows of `window` pixels.
void Check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t dims, int64_t window,
           const at::Tensor& y) {
  TORCH_CHECK(x.dim() == dims && IsPacked(weight) && x.size(1) == weight.size(2) * weight.size(3) &&
                  weight.size(4) == window && y.dim() == dims && y.size(0) == x.size(0) &&
                  y.size(1) == OutputsOf(weight),
              "x is ", x.sizes(), ", the packed weight ", weight.sizes(), ", y ", y.sizes());
  TORCH_CHECK(x.scalar_type() == weight.scalar_type() && y.scalar_type() == weight.scalar_type(), "x is ",
              x.scalar_type(), ", the weight ", weight.scalar_type(), ", y ", y.scalar_type());
  TORCH_CHECK(!bias.defined() || (bias.numel() == OutputsOf(weight) && bias.is_contiguous()), "bias is ", bias.sizes(),
              " for ", OutputsOf(weight), " outputs");
}

}  // namespace

void PackedProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& y) {
  RECORD_FUNCTION("hotlora::linear", {});
  Check(x, weight, bias, /*dims=*/2, /*window=*/1, y);
  TORCH_CHECK(x.stride(1) == 1 && y.stride(1) == 1, "strides of x are ", x.strides(), ", of y ", y.strides());
  if (x.size(0) == 0) {
    return;
  }
  if (weight.scalar_type() == at::kFloat) {
    Multiply<float>(x, weight, bias, y);
  } else {
    Multiply<c10::BFloat16>(x, weight, bias, y);
  }
}

void PackedConvolutionInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Window& window,
                           Result result, const at::Tensor& y) {
  RECORD_FUNCTION("hotlora::convolution", {});
  Check(x, weight, bias, /*dims=*/4, window.kernel * window.kernel, y);
  TORCH_CHECK(y.is_contiguous(at::MemoryFormat::ChannelsLast), "y is not channels_last");
  const int64_t p = window.padding;
  for (const int64_t side : {2, 3}) {
    TORCH_CHECK(y.size(side) == (x.size(side) + 2 * p - window.kernel) / window.stride + 1, "x is ", x.sizes(), ", y ",
                y.sizes(), " by a window of ", window.kernel, " in steps of ", window.stride);
  }
  const at::Tensor pixels = x.permute({0, 2, 3, 1});  // [rows, height, width, in]
  const at::Tensor padded = p > 0 ? at::constant_pad_nd(pixels, {0, 0, p, p, p, p}).contiguous() : pixels.contiguous();
  if (weight.scalar_type() == at::kFloat) {
    Convolve<float>(padded, weight, bias, window, result, y);
  } else {
    Convolve<c10::BFloat16>(padded, weight, bias, window, result, y);
  }
}

}  // namespace hotlora
