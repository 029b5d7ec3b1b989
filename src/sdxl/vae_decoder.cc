#include "src/sdxl/vae_decoder.h"

#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>

namespace hotlora {
namespace {

constexpr double kNormEpsilon = 1e-6;  // of every norm in diffusers' decoder; no config key

at::Tensor PerChannel(const std::vector<double>& values, const at::TensorOptions& options) {
  return at::tensor(at::ArrayRef<double>(values), options).view({-1, 1, 1});
}

}  // namespace

VaeDecoder::VaeDecoder(const ParameterScope& scope, const VaeConfig& config) : config_(config) {
  if (config.post_quant_conv) {
    Conv2dOptions pointwise{config.latent_channels, config.latent_channels};
    pointwise.kernel = 1;
    pointwise.padding = 0;
    post_quant_conv_.emplace(scope.In("post_quant_conv"), pointwise);
  }
  const ParameterScope decoder = scope.In("decoder");
  const int64_t innermost = config.channels.back(), outermost = config.channels.front();
  conv_in_ = Conv2d(decoder.In("conv_in"), {config.latent_channels, innermost});

  const ParameterScope mid = decoder.In("mid_block");
  mid_block_.first = MakeResnet(mid.In("resnets.0"), innermost, innermost);
  mid_block_.group_norm = GroupNorm(mid.In("attentions.0.group_norm"), innermost, config.groups, kNormEpsilon);
  mid_block_.attention = SelfAttention(mid.In("attentions.0"), innermost, /*heads=*/1, Linear::Bias::kPresent);
  mid_block_.second = MakeResnet(mid.In("resnets.1"), innermost, innermost);

  int64_t in = innermost;
  for (size_t i = 0; i < config.channels.size(); ++i) {
    const ParameterScope place = decoder.In("up_blocks", i);
    const int64_t out = config.channels[config.channels.size() - 1 - i];
    UpBlock block;
    for (int64_t j = 0; j <= config.layers_per_block; ++j) {
      block.resnets.push_back(MakeResnet(place.In("resnets", j), in, out));
      in = out;
    }
    if (i + 1 < config.channels.size()) {
      block.upsampler.emplace(place.In("upsamplers.0"), out);
    }
    up_blocks_.push_back(std::move(block));
  }
  conv_norm_out_ = GroupNorm(decoder.In("conv_norm_out"), outermost, config.groups, kNormEpsilon);
  conv_out_ = Conv2d(decoder.In("conv_out"), {outermost, config.out_channels});
  if (!config.latents_mean.empty()) {
    latents_mean_ = PerChannel(config.latents_mean, conv_in_.bias.options());
    latents_std_ = PerChannel(config.latents_std, conv_in_.bias.options());
  }
}

ResnetBlock VaeDecoder::MakeResnet(const ParameterScope& scope, int64_t in, int64_t out) const {
  return ResnetBlock(scope, {in, out, /*time_width=*/0, config_.groups, kNormEpsilon});
}

at::Tensor VaeDecoder::Unscale(const at::Tensor& latents) const {
  at::Tensor z = latents.to(conv_in_.weight.scalar_type());
  if (latents_mean_.defined()) {
    return z * latents_std_ / config_.scaling_factor + latents_mean_;
  }
  return z / config_.scaling_factor;
}

at::Tensor VaeDecoder::RunMidBlock(at::Tensor h) const {
  h = mid_block_.first.forward(h, {});
  const int64_t rows = h.size(0), channels = h.size(1), height = h.size(2), width = h.size(3);
  at::Tensor tokens = mid_block_.group_norm.forward(h);
  tokens = tokens.permute({0, 2, 3, 1}).reshape({rows, height * width, channels});  // a view: channels_last
  tokens = mid_block_.attention.forward(tokens);
  h = tokens.view({rows, height, width, channels}).permute({0, 3, 1, 2}).add_(h);
  return mid_block_.second.forward(h, {});  // [rows, channels, height, width]
}

at::Tensor VaeDecoder::forward(const at::Tensor& latents) const {
  at::Tensor h = Unscale(latents).contiguous(at::MemoryFormat::ChannelsLast);  // [rows, latent channels, height, width]
  if (post_quant_conv_) {
    h = post_quant_conv_->forward(h);
  }
  h = RunMidBlock(conv_in_.forward(h));  // [rows, innermost channels, height, width]
  for (const UpBlock& block : up_blocks_) {
    for (const ResnetBlock& resnet : block.resnets) {
      h = resnet.forward(h, {});
    }
    if (block.upsampler) {
      h = block.upsampler->forward(h, 2 * h.size(2), 2 * h.size(3));
    }
  }
  h = conv_out_.forward(conv_norm_out_.forward_silu(h)).contiguous();  // [rows, 3, height * factor, width * factor]
  TORCH_CHECK(at::isfinite(h).all().item<bool>(), "the VAE put out values that are not finite");
  return h;
}

}  // namespace hotlora
