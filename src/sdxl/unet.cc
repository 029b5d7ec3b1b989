#include "src/sdxl/unet.h"

#include <algorithm>
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

template <typename Call>
void Unet::ForResnets(const Call& call) const {
  const auto for_all = [&call](const auto& blocks) {
    for (const auto& block : blocks) {
      std::for_each(block.resnets.begin(), block.resnets.end(), call);
    }
  };
  for_all(down_blocks_);
  call(mid_block_.first);
  call(mid_block_.second);
  for_all(up_blocks_);
}

template <typename Call>
void Unet::ForAttentions(const Call& call) const {
  const auto for_all = [&call](const auto& blocks) {
    for (const auto& block : blocks) {
      std::for_each(block.attentions.begin(), block.attentions.end(), call);
    }
  };
  for_all(down_blocks_);
  call(mid_block_.attention);
  for_all(up_blocks_);
}

std::vector<at::Tensor> Unet::ProjectText(const at::Tensor& encoder_hidden_states, SideBranch side) const {
  std::vector<at::Tensor> text;
  ForAttentions([&](const Transformer2d& attention) { attention.ProjectText(encoder_hidden_states, side, text); });
  return text;
}

int64_t Unet::text_width() const {
  int64_t width = 0;
  ForAttentions([&width](const Transformer2d& attention) {
    for (const TransformerBlock& block : attention.blocks) {
      width += block.attn2.to_kv.weight.size(0);
    }
  });
  return width;
}

at::Tensor Unet::ProjectTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                             SideBranch side, const Tap& tap) const {
  const at::ScalarType dtype = pooled.scalar_type();
  const int64_t rows = timesteps.size(0);
  at::Tensor time = time_embedding_.forward(timesteps_.forward(timesteps).to(dtype), side);  // [rows, time width]
  at::Tensor sizes = size_ids_.forward(time_ids.flatten()).to(dtype);  // [rows * 6, size id width]
  at::Tensor added = add_embedding_.forward(at::cat({pooled, sizes.view({rows, -1})}, 1), side);  // [rows, time width]
  if (tap) {
    tap("time_embedding", time);
    tap("add_embedding", added);
  }
  time.add_(added);
  time = at::silu_(time);
  std::vector<at::Tensor> shifts;
  ForResnets([&](const ResnetBlock& resnet) { shifts.push_back(resnet.ProjectTime(time, side)); });
  return at::cat(shifts, 1);
}

at::Tensor Unet::forward(const UnetInput& input, const Tap& tap, SideBranch side) const {
  UnetStep step;
  step.sample = input.sample;
  step.shifts = ProjectTime(input.timesteps, input.pooled, input.time_ids, side, tap);
  step.text = ProjectText(input.encoder_hidden_states, side);
  return Predict(step, tap, side);
}

at::Tensor Unet::Predict(const UnetStep& step, const Tap& tap, SideBranch side) const {
  const auto watch = [&tap](const std::string& stage, const at::Tensor& output) {
    if (tap) {
      tap(stage, output);
    }
  };
  int64_t shifts_used = 0;
  const auto run = [&](const ResnetBlock& resnet, const at::Tensor& x) {
    const int64_t width = resnet.conv1.options.out;
    shifts_used += width;
    return resnet.forward(x, step.shifts.narrow(1, shifts_used - width, width), side);
  };
  c10::ArrayRef<at::Tensor> text_left = step.text;
  const auto attend = [&](const Transformer2d& attention, const at::Tensor& x) {
    const c10::ArrayRef<at::Tensor> text = std::exchange(text_left, text_left.slice(attention.blocks.size()));
    return attention.forward(x, text.slice(0, attention.blocks.size()), side);
  };

  at::Tensor h =
      conv_in_.forward(step.sample.contiguous(at::MemoryFormat::ChannelsLast), side);  // [rows, c0, height, width]
  watch("conv_in", h);
  std::vector<at::Tensor> skips{h};
  for (size_t level = 0; level < down_blocks_.size(); ++level) {
    const DownBlock& block = down_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = run(block.resnets[i], h);
      if (!block.attentions.empty()) {
        h = attend(block.attentions[i], h);
      }
      skips.push_back(h);  // [rows, c, height >> level, width >> level]
    }
    if (block.downsampler) {
      h = block.downsampler->forward(h, side);
      skips.push_back(h);
    }
    watch("down_blocks." + std::to_string(level), h);
  }

  h = run(mid_block_.first, h);
  h = attend(mid_block_.attention, h);
  h = run(mid_block_.second, h);
  watch("mid_block", h);

  for (size_t level = 0; level < up_blocks_.size(); ++level) {
    const UpBlock& block = up_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = at::cat({h, skips.back()}, 1);
      skips.pop_back();
      h = run(block.resnets[i], h);
      if (!block.attentions.empty()) {
        h = attend(block.attentions[i], h);
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
