#include "src/sdxl/vae_bands.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/ATen.h>

#include "src/sdxl/vae_blocks.h"

namespace hotlora {
namespace {

constexpr int64_t kLeastLines = 4;   // of a band: below that, most work would be on the lines beyond it
constexpr int64_t kResnetReach = 2;  // lines beyond a band that its two convolutions of 3x3 ask for
constexpr int64_t kBandsAtOnce = 5;  // tensors of a band that exist at the same time

int64_t BandLines(int64_t channels, int64_t width, int64_t band_values) {
  return std::max(kLeastLines, band_values / (channels * width));
}

// Calls work(begin, end) for all bands from the top down.
template <typename Work>
void ForBands(const Lines& x, int64_t band_values, const Work& work) {
  const int64_t lines = BandLines(x.channels, x.width, band_values);
  for (int64_t begin = 0; begin < x.height; begin += lines) {
    work(begin, std::min(begin + lines, x.height));
  }
}

// Keeps the last band that was made, so that a part of it need not be made again.
Lines Remembered(Lines x) {
  struct Band {
    int64_t begin = 0, end = 0;
    at::Tensor lines;
  };
  Lines y = x;
  y.make = [x = std::move(x), last = std::make_shared<Band>()](int64_t begin, int64_t end) {
    if (!last->lines.defined() || begin < last->begin || end > last->end) {
      last->lines.reset();  // before the next one takes memory
      last->lines = x.make(begin, end);
      last->begin = begin;
      last->end = end;
    }
    return last->lines.narrow(2, begin - last->begin, end - begin);
  };
  return y;
}

Lines ResnetLines(const ResnetBlock& resnet, Lines x, int64_t band_values) {
  const Lines in = Remembered(std::move(x));
  const Lines middle = ConvLines(resnet.conv1, NormSiluLines(resnet.norm1, in, band_values));
  const Lines added = ConvLines(resnet.conv2, NormSiluLines(resnet.norm2, middle, band_values));
  Lines y = added;
  y.make = [in, added, &resnet](int64_t begin, int64_t end) {
    at::Tensor h = added.make(begin, end);
    const at::Tensor own = in.make(begin, end);
    return h.add_(resnet.conv_shortcut ? resnet.conv_shortcut->forward(own) : own);
  };
  return y;
}

}  // namespace

Lines HeldLines(const at::Tensor& x) {
  return {x.size(1), x.size(2), x.size(3), [x](int64_t begin, int64_t end) { return x.narrow(2, begin, end - begin); }};
}

Lines ConvLines(const Conv2d& conv, Lines x) {
  Lines y = x;
  y.channels = conv.options.out;
  y.make = [x = std::move(x), &conv](int64_t begin, int64_t end) {
    const int64_t reach = conv.options.padding;
    const int64_t above = std::max<int64_t>(begin - reach, 0), below = std::min(end + reach, x.height);
    // The convolution lays zeros around the band. That is right at the picture's edges, and only there.
    return conv.forward(x.make(above, below)).narrow(2, begin - above, end - begin);
  };
  return y;
}

Lines UpsampledLines(const Upsample2d& upsample, Lines x) {
  Lines twice = {x.channels, 2 * x.height, 2 * x.width, {}};
  twice.make = [x = std::move(x)](int64_t begin, int64_t end) {
    const int64_t first = begin / 2;
    const at::Tensor low = x.make(first, (end + 1) / 2);
    return at::upsample_nearest2d(low, {2 * low.size(2), 2 * low.size(3)}).narrow(2, begin - 2 * first, end - begin);
  };
  return ConvLines(upsample.conv, std::move(twice));
}

Lines HalvedLines(const Conv2d& conv, Lines x) {
  Lines y = {conv.options.out, x.height / 2, x.width / 2, {}};
  y.make = [x = std::move(x), &conv](int64_t begin, int64_t end) {
    const int64_t below = std::min(2 * end + 1, x.height);
    return conv.forward(at::constant_pad_nd(x.make(2 * begin, below), {0, 1, 0, 2 * end + 1 - below}));
  };
  return y;
}

Lines NormSiluLines(const GroupNorm& norm, Lines x, int64_t band_values) {
  at::Tensor sums = at::zeros({2, x.channels}, norm.weight.options().dtype(at::kDouble));
  ForBands(x, band_values, [&](int64_t begin, int64_t end) {
    const at::Tensor band = x.make(begin, end).to(at::kFloat);
    const auto [variance, mean] = at::var_mean(band, at::IntArrayRef({0, 2, 3}), /*correction=*/at::Scalar(0));
    const at::Tensor means = mean.to(at::kDouble);
    sums.add_(at::stack({means, variance.to(at::kDouble) + means * means}), band.numel() / x.channels);
  });
  const auto values = static_cast<double>(x.height * x.width * (x.channels / norm.groups));
  const at::Tensor of_groups = sums.view({2, norm.groups, -1}).sum(-1, /*keepdim=*/true) / values;  // [2, groups, 1]
  const at::Tensor mean = of_groups[0];
  const at::Tensor inverse = (of_groups[1] - mean * mean).clamp_min(0).add(norm.epsilon).rsqrt();
  const at::Tensor scale = inverse * norm.weight.to(at::kDouble).view({norm.groups, -1});  // [groups, their channels]
  const at::Tensor shift = norm.bias.to(at::kDouble).view({norm.groups, -1}) - mean * scale;
  Lines y = x;
  y.make = [x = std::move(x), scale = scale.to(at::kFloat).view({-1, 1, 1}),
            shift = shift.to(at::kFloat).view({-1, 1, 1})](int64_t begin, int64_t end) {
    const at::Tensor band = x.make(begin, end);
    at::Tensor normed = (band * scale).add_(shift);  // float32
    return at::silu_(normed).to(band.scalar_type());
  };
  return y;
}

void WriteLines(const Lines& x, const at::Tensor& to, int64_t band_values) {
  ForBands(x, band_values,
           [&](int64_t begin, int64_t end) { to.narrow(2, begin, end - begin).copy_(x.make(begin, end)); });
}

at::Tensor HoldResnets(const std::vector<ResnetBlock>& resnets, Lines x, int64_t band_values) {
  const int64_t height = x.height, channels = resnets.front().conv1.options.out;
  // Each picture lies kResnetReach lines above the one it is made of: a band is written over lines that no later band
  // asks for.
  int64_t first = kResnetReach * (static_cast<int64_t>(resnets.size()) - 1);
  const at::Tensor held = at::empty({1, channels, height + first, x.width}, resnets.front().conv1.weight.options(),
                                    at::MemoryFormat::ChannelsLast);
  for (const ResnetBlock& resnet : resnets) {
    const at::Tensor to = held.narrow(2, first, height);
    WriteLines(ResnetLines(resnet, std::move(x), band_values), to, band_values);
    x = HeldLines(to);
    first -= kResnetReach;
  }
  return held.narrow(2, 0, height);
}

int64_t BandBytes(int64_t channels, int64_t height, int64_t width, int64_t value_bytes, int64_t band_values) {
  const int64_t lines = std::min(BandLines(channels, width, band_values) + kLinesBeyond, height);
  return lines * channels * width * (kBandsAtOnce * kFloatBytes + UnfoldedBytes(value_bytes));
}

}  // namespace hotlora
