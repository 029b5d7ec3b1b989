#include "src/sdxl/unet_encoder.h"

#include <ATen/ops/cat.h>

namespace hotlora {

at::Tensor BlockRunner::Run(const ResnetBlock& resnet, const at::Tensor& x) {
  const int64_t width = resnet.conv1.options.out;
  shifts_used_ += width;
  return resnet.forward(x, shifts_.narrow(1, shifts_used_ - width, width), side_);
}

at::Tensor BlockRunner::Run(const Transformer2d& attention, const at::Tensor& x) {
  const size_t blocks = attention.blocks.size();
  const c10::ArrayRef<at::Tensor> text = text_.slice(0, blocks);
  const c10::ArrayRef<ImageBranch> image = no_image_ ? image_ : image_.slice(0, blocks);
  text_ = text_.slice(blocks);
  image_ = image_.slice(image.size());
  return attention.forward(x, text, side_, image);
}

void BlockRunner::Finish() const {
  TORCH_CHECK(image_.empty(), "image prompts for more cross attentions than there are");
}

ResnetBlock MakeResnet(const ParameterScope& scope, const UnetConfig& config, int64_t in, size_t level) {
  const bool innermost = level + 1 == config.levels.size();  // the fewest pixels, the largest weights
  return ResnetBlock(scope, {in, config.levels[level].channels, config.time_width(), config.groups, config.norm_epsilon,
                             innermost ? WeightOrder::kPacked : WeightOrder::kPlain});
}

Transformer2d MakeTransformer(const ParameterScope& scope, const UnetConfig& config, const UnetLevel& level) {
  return Transformer2d(
      scope, {level.channels, config.cross_attention_width, level.heads, level.transformer_depth, config.groups});
}

UnetEncoder::UnetEncoder(const ParameterScope& scope, const UnetConfig& config) {
  const int64_t outermost = config.levels.front().channels;
  conv_in_ = Conv2d(scope.In("conv_in"), {config.in_channels, outermost});
  time_embedding_ = TimestepEmbedding(scope.In("time_embedding"), outermost, config.time_width());
  add_embedding_ = TimestepEmbedding(scope.In("add_embedding"), config.addition_in, config.time_width());
  SinusoidOptions sinusoid{outermost, config.cosine_first, config.frequency_shift};
  timesteps_ = SinusoidEmbedding(sinusoid, conv_in_.weight.device());
  sinusoid.width = config.size_id_width;
  size_ids_ = SinusoidEmbedding(sinusoid, conv_in_.weight.device());
  for (size_t level = 0; level < config.levels.size(); ++level) {
    down_blocks_.push_back(MakeDownBlock(scope.In("down_blocks", level), config, level));
  }
  mid_block_ = MakeMidBlock(scope.In("mid_block"), config);
}

UnetEncoder::DownBlock UnetEncoder::MakeDownBlock(const ParameterScope& scope, const UnetConfig& config, size_t level) {
  const UnetLevel& here = config.levels[level];
  int64_t in = level == 0 ? here.channels : config.levels[level - 1].channels;
  DownBlock block;
  for (int64_t i = 0; i < config.layers_per_block; ++i) {
    block.resnets.push_back(MakeResnet(scope.In("resnets", i), config, in, level));
    if (here.down_attention) {
      block.attentions.push_back(MakeTransformer(scope.In("attentions", i), config, here));
    }
    in = here.channels;
  }
  if (level + 1 < config.levels.size()) {
    block.downsampler.emplace(scope.In("downsamplers.0"), here.channels);
  }
  return block;
}

UnetEncoder::MidBlock UnetEncoder::MakeMidBlock(const ParameterScope& scope, const UnetConfig& config) {
  const size_t level = config.levels.size() - 1;
  const UnetLevel& here = config.levels[level];
  MidBlock block;
  block.first = MakeResnet(scope.In("resnets.0"), config, here.channels, level);
  if (config.mid_attention) {
    block.attention = MakeTransformer(scope.In("attentions.0"), config, here);
    block.second = MakeResnet(scope.In("resnets.1"), config, here.channels, level);
  }
  return block;
}

at::Tensor UnetEncoder::EmbedTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                                  SideBranch side, const StageTap& tap) const {
  const at::ScalarType dtype = pooled.scalar_type();
  const int64_t rows = timesteps.size(0);
  at::Tensor time = time_embedding_.forward(timesteps_.forward(timesteps).to(dtype), side);  // [rows, time width]
  at::Tensor sizes = size_ids_.forward(time_ids.flatten()).to(dtype);  // [rows * 6, size id width]
  at::Tensor added = add_embedding_.forward(at::cat({pooled, sizes.view({rows, -1})}, 1), side);  // [rows, time width]
  if (tap) {
    tap("time_embedding", time);
    tap("add_embedding", added);
  }
  return time.add_(added);
}

at::Tensor UnetEncoder::Enter(const at::Tensor& sample, SideBranch side) const {
  return conv_in_.forward(sample.contiguous(at::MemoryFormat::ChannelsLast), side);
}

UnetEncoder::Output UnetEncoder::forward(const at::Tensor& entered, BlockRunner& runner, const StageTap& tap,
                                         SideBranch side) const {
  auto watch = [&tap](const std::string& stage, const at::Tensor& output) {
    if (tap) {
      tap(stage, output);
    }
  };
  at::Tensor h = entered;
  watch("conv_in", h);
  std::vector<at::Tensor> skips{h};
  for (size_t level = 0; level < down_blocks_.size(); ++level) {
    const DownBlock& block = down_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = runner.Run(block.resnets[i], h);
      if (!block.attentions.empty()) {
        h = runner.Run(block.attentions[i], h);
      }
      skips.push_back(h);  // [rows, c, height >> level, width >> level]
    }
    if (block.downsampler) {
      h = block.downsampler->forward(h, side);
      skips.push_back(h);
    }
    watch("down_blocks." + std::to_string(level), h);
  }
  h = runner.Run(mid_block_.first, h);
  if (mid_block_.attention) {
    h = runner.Run(*mid_block_.attention, h);
    h = runner.Run(mid_block_.second, h);
  }
  watch("mid_block", h);
  return {std::move(skips), std::move(h)};
}

}  // namespace hotlora
