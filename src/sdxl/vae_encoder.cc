#include "src/sdxl/vae_encoder.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

constexpr int64_t kImageChannels = 3;
constexpr double kLeastLogVariance = -30.0, kMostLogVariance = 20.0;

}  // namespace

VaeEncoder::VaeEncoder(const ParameterScope& scope, const VaeConfig& config) {
  const ParameterScope encoder = scope.In("encoder");
  const int64_t innermost = config.channels.back(), moments = 2 * config.latent_channels;
  conv_in_ = Conv2d(encoder.In("conv_in"), {kImageChannels, config.channels.front()});
  int64_t in = config.channels.front();
  for (size_t i = 0; i < config.channels.size(); ++i) {
    const ParameterScope place = encoder.In("down_blocks", i);
    const int64_t out = config.channels[i];
    DownBlock block;
    for (int64_t j = 0; j < config.layers_per_block; ++j) {
      block.resnets.push_back(MakeVaeResnet(place.In("resnets", j), in, out, config));
      in = out;
    }
    if (i + 1 < config.channels.size()) {
      Conv2dOptions halving{out, out};
      halving.stride = 2;
      halving.padding = 0;
      block.downsampler.emplace(place.In("downsamplers.0.conv"), halving);
    }
    down_blocks_.push_back(std::move(block));
  }
  mid_block_ = VaeMidBlock(encoder.In("mid_block"), config);
  conv_norm_out_ = GroupNorm(encoder.In("conv_norm_out"), innermost, config.groups, kVaeNormEpsilon);
  conv_out_ = Conv2d(encoder.In("conv_out"), {innermost, moments});
  if (config.quant_conv) {
    quant_conv_ = MakePointwiseConv(scope.In("quant_conv"), moments, moments);
  }
  scaling_ = LatentScaling(config, conv_in_.bias.device());
}

LatentPosterior VaeEncoder::forward(const at::Tensor& image) const {
  at::Tensor h = image.to(conv_in_.weight.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
  h = conv_in_.forward(h);
  for (const DownBlock& block : down_blocks_) {
    for (const ResnetBlock& resnet : block.resnets) {
      h = resnet.forward(h, {});
    }
    if (block.downsampler) {
      h = block.downsampler->forward(at::constant_pad_nd(h, {0, 1, 0, 1}));
    }
  }
  return End(std::move(h));
}

LatentPosterior VaeEncoder::forward_tiled(const at::Tensor& image, int64_t band_values) const {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : image.split(1)) {
    rows.push_back(TileRow(row, band_values));
  }
  at::Tensor h = rows.size() == 1 ? rows.front() : at::cat(rows).contiguous(at::MemoryFormat::ChannelsLast);
  rows.clear();
  return End(std::move(h));
}

at::Tensor VaeEncoder::TileRow(const at::Tensor& image, int64_t band_values) const {
  const at::ScalarType dtype = conv_in_.weight.scalar_type();
  Lines x = ConvLines(conv_in_, HeldLines(image.to(dtype).contiguous(at::MemoryFormat::ChannelsLast)));
  at::Tensor h;
  for (const DownBlock& block : down_blocks_) {
    h = HoldResnets(block.resnets, std::move(x), band_values);
    if (block.downsampler) {
      const Lines half = HalvedLines(*block.downsampler, HeldLines(h));
      const at::Tensor held =
          at::empty({1, half.channels, half.height, half.width}, h.options(), at::MemoryFormat::ChannelsLast);
      WriteLines(half, held, band_values);
      h = held;
    }
    x = HeldLines(h);
  }
  return h;
}

int64_t VaeEncoder::TiledBytes(int64_t height, int64_t width, int64_t band_values) const {
  const auto value_bytes = static_cast<int64_t>(conv_in_.weight.element_size());
  const int64_t image = conv_in_.options.in * height * width;
  int64_t channels = conv_in_.options.out, held = 0, most = 0;
  for (const DownBlock& block : down_blocks_) {
    const int64_t out = block.resnets.back().conv2.options.out;
    const int64_t result = out * (height + kLinesBeyond) * width;
    const int64_t half = block.downsampler ? out * (height / 2) * (width / 2) : 0;
    most = std::max(most, (result + std::max(held, half)) * value_bytes +
                              BandBytes(std::max(channels, out), height, width, value_bytes, band_values));
    channels = out;
    held = half;
    height /= block.downsampler ? 2 : 1;
    width /= block.downsampler ? 2 : 1;
  }
  most = std::max(most, channels * height * width * (kMidBlockPictures * value_bytes + UnfoldedBytes(value_bytes)));
  return most + image * (2 * kFloatBytes + value_bytes);  // as bytes, as values of -1 to 1, and in the layout inside
}

LatentPosterior VaeEncoder::End(at::Tensor h) const {
  h = conv_out_.forward(conv_norm_out_.forward_silu(mid_block_.forward(std::move(h))));
  if (quant_conv_) {
    h = quant_conv_->forward(h);
  }
  CheckVaeOutput(h);
  const std::vector<at::Tensor> moments =
      h.contiguous().to(at::kFloat).chunk(2, 1);  // [rows, latent channels, height, width] each
  return {moments[0], moments[1].clamp(kLeastLogVariance, kMostLogVariance).mul(0.5).exp()};
}

at::Tensor VaeEncoder::Sample(const LatentPosterior& posterior, const at::Tensor& noise) const {
  return scaling_.FromVae(posterior.mean + posterior.std * noise.to(posterior.std.options()));
}

}  // namespace hotlora
