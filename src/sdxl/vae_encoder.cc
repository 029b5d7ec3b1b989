#include "src/sdxl/vae_encoder.h"

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
  scaling_ = LatentScaling(config, conv_in_.bias.options());
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
  h = conv_out_.forward(conv_norm_out_.forward_silu(mid_block_.forward(std::move(h))));
  if (quant_conv_) {
    h = quant_conv_->forward(h);
  }
  TORCH_CHECK(at::isfinite(h).all().item<bool>(), "the VAE encodes the image to values that are not finite");
  const std::vector<at::Tensor> moments = h.contiguous().chunk(2, 1);  // [rows, latent channels, height, width] each
  return {moments[0], moments[1].clamp(kLeastLogVariance, kMostLogVariance).mul(0.5).exp()};
}

at::Tensor VaeEncoder::Sample(const LatentPosterior& posterior, const at::Tensor& noise) const {
  return scaling_.FromVae(posterior.mean + posterior.std * noise.to(posterior.std.options()));
}

}  // namespace hotlora
