#include "src/sdxl/vae_decoder.h"

#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>

namespace hotlora {

VaeDecoder::VaeDecoder(const ParameterScope& scope, const VaeConfig& config) : config_(config) {
  if (config.post_quant_conv) {
    post_quant_conv_ = MakePointwiseConv(scope.In("post_quant_conv"), config.latent_channels, config.latent_channels);
  }
  const ParameterScope decoder = scope.In("decoder");
  const int64_t innermost = config.channels.back(), outermost = config.channels.front();
  conv_in_ = Conv2d(decoder.In("conv_in"), {config.latent_channels, innermost});

  mid_block_ = VaeMidBlock(decoder.In("mid_block"), config);
  int64_t in = innermost;
  for (size_t i = 0; i < config.channels.size(); ++i) {
    const ParameterScope place = decoder.In("up_blocks", i);
    const int64_t out = config.channels[config.channels.size() - 1 - i];
    UpBlock block;
    for (int64_t j = 0; j <= config.layers_per_block; ++j) {
      block.resnets.push_back(MakeVaeResnet(place.In("resnets", j), in, out, config));
      in = out;
    }
    if (i + 1 < config.channels.size()) {
      block.upsampler.emplace(place.In("upsamplers.0"), out);
    }
    up_blocks_.push_back(std::move(block));
  }
  conv_norm_out_ = GroupNorm(decoder.In("conv_norm_out"), outermost, config.groups, kVaeNormEpsilon);
  conv_out_ = Conv2d(decoder.In("conv_out"), {outermost, config.out_channels});
  scaling_ = LatentScaling(config, conv_in_.bias.options());
}

at::Tensor VaeDecoder::forward(const at::Tensor& latents) const {
  at::Tensor h = scaling_.ToVae(latents.to(conv_in_.weight.scalar_type()));  // [rows, latent channels, height, width]
  h = h.contiguous(at::MemoryFormat::ChannelsLast);
  if (post_quant_conv_) {
    h = post_quant_conv_->forward(h);
  }
  h = mid_block_.forward(conv_in_.forward(h));  // [rows, innermost channels, height, width]
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
