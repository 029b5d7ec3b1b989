#include "src/sdxl/unet.h"

#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

namespace hotlora {

Unet::Unet(const ParameterScope& scope, const UnetConfig& config) : config_(config) {
  const int64_t outermost = config.levels.front().channels;
  conv_in_ = Conv2d(scope.In("conv_in"), {config.in_channels, outermost});
  time_embedding_ = TimestepEmbedding(scope.In("time_embedding"), outermost, config.time_width());
  add_embedding_ = TimestepEmbedding(scope.In("add_embedding"), config.addition_in, config.time_width());
  SinusoidOptions sinusoid{outermost, config.cosine_first, config.frequency_shift};
  timesteps_ = SinusoidEmbedding(sinusoid, conv_in_.weight.device());
  sinusoid.width = config.size_id_width;
  size_ids_ = SinusoidEmbedding(sinusoid, conv_in_.weight.device());
  for (size_t level = 0; level < config.levels.size(); ++level) {
    down_blocks_.push_back(MakeDownBlock(scope.In("down_blocks", level), level));
  }
  mid_block_ = MakeMidBlock(scope.In("mid_block"));
  for (size_t i = 0; i < config.levels.size(); ++i) {
    up_blocks_.push_back(MakeUpBlock(scope.In("up_blocks", i), config.levels.size() - 1 - i));
  }
  conv_norm_out_ = GroupNorm(scope.In("conv_norm_out"), outermost, config.groups, config.norm_epsilon);
  conv_out_ = Conv2d(scope.In("conv_out"), {outermost, config.out_channels});
}

ResnetBlock Unet::MakeResnet(const ParameterScope& scope, int64_t in, int64_t out) const {
  return ResnetBlock(scope, {in, out, config_.time_width(), config_.groups, config_.norm_epsilon});
}

Transformer2d Unet::MakeTransformer(const ParameterScope& scope, const UnetLevel& level) const {
  return Transformer2d(
      scope, {level.channels, config_.cross_attention_width, level.heads, level.transformer_depth, config_.groups});
}

Unet::DownBlock Unet::MakeDownBlock(const ParameterScope& scope, size_t level) const {
  const UnetLevel& here = config_.levels[level];
  int64_t in = level == 0 ? here.channels : config_.levels[level - 1].channels;
  DownBlock block;
  for (int64_t i = 0; i < config_.layers_per_block; ++i) {
    block.resnets.push_back(MakeResnet(scope.In("resnets", i), in, here.channels));
    if (here.down_attention) {
      block.attentions.push_back(MakeTransformer(scope.In("attentions", i), here));
    }
    in = here.channels;
  }
  if (level + 1 < config_.levels.size()) {
    block.downsampler.emplace(scope.In("downsamplers.0"), here.channels);
  }
  return block;
}

Unet::MidBlock Unet::MakeMidBlock(const ParameterScope& scope) const {
  const UnetLevel& here = config_.levels.back();
  MidBlock block;
  block.first = MakeResnet(scope.In("resnets.0"), here.channels, here.channels);
  block.attention = MakeTransformer(scope.In("attentions.0"), here);
  block.second = MakeResnet(scope.In("resnets.1"), here.channels, here.channels);
  return block;
}

Unet::UpBlock Unet::MakeUpBlock(const ParameterScope& scope, size_t level) const {
  const UnetLevel& here = config_.levels[level];
  const bool innermost = level + 1 == config_.levels.size();
  const int64_t below = innermost ? here.channels : config_.levels[level + 1].channels;
  const int64_t above = level == 0 ? here.channels : config_.levels[level - 1].channels;
  UpBlock block;
  for (int64_t i = 0; i <= config_.layers_per_block; ++i) {
    const int64_t in = i == 0 ? below : here.channels;
    // The last skip of a level was taken before its first resnet, so it still has the channels of
    // the level above.
    const int64_t skip = i == config_.layers_per_block ? above : here.channels;
    block.resnets.push_back(MakeResnet(scope.In("resnets", i), in + skip, here.channels));
    if (here.up_attention) {
      block.attentions.push_back(MakeTransformer(scope.In("attentions", i), here));
    }
  }
  if (level > 0) {
    block.upsampler.emplace(scope.In("upsamplers.0"), here.channels);
  }
  return block;
}

at::Tensor Unet::EmbedTime(const UnetInput& input, const Tap& tap, SideBranch side) const {
  const at::ScalarType dtype = input.sample.scalar_type();
  const int64_t rows = input.sample.size(0);
  at::Tensor time = time_embedding_.forward(timesteps_.forward(input.timesteps).to(dtype), side);  // [rows, time width]
  at::Tensor sizes = size_ids_.forward(input.time_ids.flatten()).to(dtype);  // [rows * 6, size id width]
  at::Tensor added =
      add_embedding_.forward(at::cat({input.pooled, sizes.view({rows, -1})}, 1), side);  // [rows, time width]
  if (tap) {
    tap("time_embedding", time);
    tap("add_embedding", added);
  }
  return time.add_(added);
}

at::Tensor Unet::forward(const UnetInput& input, const Tap& tap, SideBranch side) const {
  auto watch = [&tap](const std::string& stage, const at::Tensor& output) {
    if (tap) {
      tap(stage, output);
    }
  };
  const at::Tensor& context = input.encoder_hidden_states;
  at::Tensor time = EmbedTime(input, tap, side);
  time = at::silu_(time);

  at::Tensor h =
      conv_in_.forward(input.sample.contiguous(at::MemoryFormat::ChannelsLast), side);  // [rows, c0, height, width]
  watch("conv_in", h);
  std::vector<at::Tensor> skips{h};
  for (size_t level = 0; level < down_blocks_.size(); ++level) {
    const DownBlock& block = down_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = block.resnets[i].forward(h, time, side);
      if (!block.attentions.empty()) {
        h = block.attentions[i].forward(h, context, side);
      }
      skips.push_back(h);  // [rows, c, height >> level, width >> level]
    }
    if (block.downsampler) {
      h = block.downsampler->forward(h, side);
      skips.push_back(h);
    }
    watch("down_blocks." + std::to_string(level), h);
  }

  h = mid_block_.first.forward(h, time, side);
  h = mid_block_.attention.forward(h, context, side);
  h = mid_block_.second.forward(h, time, side);
  watch("mid_block", h);

  for (size_t level = 0; level < up_blocks_.size(); ++level) {
    const UpBlock& block = up_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = at::cat({h, skips.back()}, 1);
      skips.pop_back();
      h = block.resnets[i].forward(h, time, side);
      if (!block.attentions.empty()) {
        h = block.attentions[i].forward(h, context, side);
      }
    }
    if (block.upsampler) {
      h = block.upsampler->forward(h, skips.back().size(2), skips.back().size(3), side);
    }
    watch("up_blocks." + std::to_string(level), h);
  }
  return conv_out_.forward(conv_norm_out_.forward_silu(h), side).contiguous();  // [rows, out channels, height, width]
}

}  // namespace hotlora
