#include "src/sdxl/vae_decoder.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

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
  scaling_ = LatentScaling(config, conv_in_.bias.device());
}

at::Tensor VaeDecoder::Begin(const at::Tensor& latents) const {
  at::Tensor h = scaling_.ToVae(latents.to(at::kFloat));  // [rows, latent channels, height, width]
  h = h.to(conv_in_.weight.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
  if (post_quant_conv_) {
    h = post_quant_conv_->forward(h);
  }
  return mid_block_.forward(conv_in_.forward(h));  // [rows, innermost channels, height, width]
}

at::Tensor VaeDecoder::forward(const at::Tensor& latents) const {
  at::Tensor h = Begin(latents);
  for (const UpBlock& block : up_blocks_) {
    for (const ResnetBlock& resnet : block.resnets) {
      h = resnet.forward(h, {});
    }
    if (block.upsampler) {
      h = block.upsampler->forward(h, 2 * h.size(2), 2 * h.size(3));
    }
  }
  h = conv_out_.forward(conv_norm_out_.forward_silu(h)).contiguous();  // [rows, 3, height * factor, width * factor]
  CheckVaeOutput(h);
  return h.to(at::kFloat);
}

at::Tensor VaeDecoder::forward_tiled(const at::Tensor& latents, int64_t band_values) const {
  std::vector<at::Tensor> images;
  for (const at::Tensor& row : latents.split(1)) {
    images.push_back(TileRow(Begin(row), band_values));
  }
  at::Tensor h = images.size() == 1 ? images.front() : at::cat(images);
  CheckVaeOutput(h);
  return h.to(at::kFloat);
}

at::Tensor VaeDecoder::TileRow(at::Tensor h, int64_t band_values) const {
  Lines x = HeldLines(std::exchange(h, {}));
  for (const UpBlock& block : up_blocks_) {
    x = HeldLines(HoldResnets(block.resnets, std::move(x), band_values));
    if (block.upsampler) {
      x = UpsampledLines(*block.upsampler, std::move(x));
    }
  }
  x = ConvLines(conv_out_, NormSiluLines(conv_norm_out_, std::move(x), band_values));
  const at::Tensor image = at::empty({1, x.channels, x.height, x.width}, conv_out_.weight.options());
  WriteLines(x, image, band_values);
  return image;
}

int64_t VaeDecoder::TiledBytes(int64_t height, int64_t width, int64_t band_values) const {
  const auto value_bytes = static_cast<int64_t>(conv_in_.weight.element_size());
  int64_t channels = config_.channels.back(), held = height * width * channels;
  int64_t most = held * (kMidBlockPictures * value_bytes + UnfoldedBytes(value_bytes));
  for (const UpBlock& block : up_blocks_) {
    const int64_t out = block.resnets.back().conv2.options.out;
    const int64_t result = out * (height + kLinesBeyond) * width;
    most = std::max(most, (held + result) * value_bytes +
                              BandBytes(std::max(channels, out), height, width, value_bytes, band_values));
    channels = out;
    held = result;
    height *= block.upsampler ? 2 : 1;
    width *= block.upsampler ? 2 : 1;
  }
  const int64_t image = config_.out_channels * height * width;
  return most + image * (value_bytes + kFloatBytes);  // also its copies in float32 and of bytes
}

}  // namespace hotlora
