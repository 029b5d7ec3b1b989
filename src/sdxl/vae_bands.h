#ifndef HOTLORA_SRC_SDXL_VAE_BANDS_H_
#define HOTLORA_SRC_SDXL_VAE_BANDS_H_

// The autoencoder's layers on a picture of which only a band of lines exists at a time. The result is that of the
// layers on the whole picture up to rounding: a convolution asks for the lines beyond its band too, and a norm takes
// its statistics from a pass over all bands first. What is not held is made again in each pass: memory is paid for in
// time, by two to three times as many convolutions.
//
// Shapes   pictures have one row: [1, channels, height, width]
// Layout   channels_last
// Dtypes   the autoencoder's; statistics are summed in float64
// Threads  a Lines object belongs to one thread

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/resample.h"
#include "src/nn/resnet_block.h"

namespace hotlora {

// Lines beyond a band that all layers between two held pictures ask for, above and below together, at most.
inline constexpr int64_t kLinesBeyond = 8;

// Values of a band of one layer, without the lines beyond it: 32 MiB in float32.
inline constexpr int64_t kBandValues = int64_t{8} << 20;

// A picture by its lines: `make(begin, end)` is [1, channels, end - begin, width], perhaps a view of what is held.
struct Lines {
  int64_t channels = 0, height = 0, width = 0;
  std::function<at::Tensor(int64_t begin, int64_t end)> make;
};

// `x` as it lies in memory, without a copy.
Lines HeldLines(const at::Tensor& x);

// A convolution of stride 1 that keeps height and width. This function and the next ones keep references to the layers.
Lines ConvLines(const Conv2d& conv, Lines x);

// Twice the height and width, as Upsample2d.
Lines UpsampledLines(const Upsample2d& upsample, Lines x);

// Half the height and width, by a convolution of stride 2 with one pixel of zeros on the right and below.
Lines HalvedLines(const Conv2d& conv, Lines x);

// silu of the group norm. It passes over x at once, for the statistics.
Lines NormSiluLines(const GroupNorm& norm, Lines x, int64_t band_values);

// All lines of `x`, written to `to`: [1, channels, height, width] in any layout.
void WriteLines(const Lines& x, const at::Tensor& to, int64_t band_values);

// x through `resnets`, one or more, the first of which may change the number of channels. One picture of the result's
// size is held: each resnet but the first writes its result over its input.
at::Tensor HoldResnets(const std::vector<ResnetBlock>& resnets, Lines x, int64_t band_values);

// The most bytes that the layers above hold for bands of at most `channels` channels, of a picture `height` x `width`.
// Every band counts as float32, as the norms have theirs.
int64_t BandBytes(int64_t channels, int64_t height, int64_t width, int64_t value_bytes, int64_t band_values);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_VAE_BANDS_H_
