#include "src/sdxl/unet.h"

#include <algorithm>
#include <string>

#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

namespace hotlora {
namespace {

void AddResiduals(const ControlledRows& control, std::vector<at::Tensor>& skips, at::Tensor& mid) {
  const ControlResiduals& residuals = control.residuals;
  TORCH_CHECK(residuals.down.size() == skips.size(), residuals.down.size(), " residuals for ", skips.size(),
              " skip connections");
  const auto add = [&control](at::Tensor& to, const at::Tensor& residual) {
    to.narrow(0, control.first, residual.size(0)).add_(residual);
  };
  for (size_t i = 0; i < skips.size(); ++i) {
    add(skips[i], residuals.down[i]);
  }
  add(mid, residuals.mid);
}

}  // namespace

Unet::Unet(const ParameterScope& scope, const UnetConfig& config) : config_(config), encoder_(scope, config) {
  const int64_t outermost = config.levels.front().channels;
  for (size_t i = 0; i < config.levels.size(); ++i) {
    up_blocks_.push_back(MakeUpBlock(scope.In("up_blocks", i), config.levels.size() - 1 - i));
  }
  conv_norm_out_ = GroupNorm(scope.In("conv_norm_out"), outermost, config.groups, config.norm_epsilon);
  conv_out_ = Conv2d(scope.In("conv_out"), {outermost, config.out_channels});
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
    block.resnets.push_back(MakeResnet(scope.In("resnets", i), config_, in + skip, level));
    if (here.up_attention) {
      block.attentions.push_back(MakeTransformer(scope.In("attentions", i), config_, here));
    }
  }
  if (level > 0) {
    block.upsampler.emplace(scope.In("upsamplers.0"), here.channels);
  }
  return block;
}

template <typename Call>
void Unet::ForResnets(const Call& call) const {
  encoder_.ForResnets(call);
  for (const UpBlock& block : up_blocks_) {
    std::for_each(block.resnets.begin(), block.resnets.end(), call);
  }
}

template <typename Call>
void Unet::ForAttentions(const Call& call) const {
  encoder_.ForAttentions(call);
  for (const UpBlock& block : up_blocks_) {
    std::for_each(block.attentions.begin(), block.attentions.end(), call);
  }
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
      width += block.attn2.to_kv.outputs();
    }
  });
  return width;
}

at::Tensor Unet::ProjectTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                             SideBranch side, const StageTap& tap) const {
  at::Tensor time = encoder_.EmbedTime(timesteps, pooled, time_ids, side, tap);
  time = at::silu_(time);
  std::vector<at::Tensor> shifts;
  ForResnets([&](const ResnetBlock& resnet) { shifts.push_back(resnet.ProjectTime(time, side)); });
  return at::cat(shifts, 1);
}

at::Tensor Unet::forward(const UnetInput& input, const StageTap& tap, SideBranch side) const {
  return Predict(Project(input, tap, side), tap, side);
}

UnetStep Unet::Project(const UnetInput& input, const StageTap& tap, SideBranch side) const {
  UnetStep step;
  step.sample = input.sample;
  step.shifts = ProjectTime(input.timesteps, input.pooled, input.time_ids, side, tap);
  step.text = ProjectText(input.encoder_hidden_states, side);
  step.control = input.control;
  step.image = input.image;
  return step;
}

at::Tensor Unet::Predict(const UnetStep& step, const StageTap& tap, SideBranch side) const {
  BlockRunner runner(step, side);
  auto [skips, h] = encoder_.forward(encoder_.Enter(step.sample, side), runner, tap, side);
  for (const ControlledRows& control : step.control) {
    AddResiduals(control, skips, h);
  }
  for (size_t level = 0; level < up_blocks_.size(); ++level) {
    const UpBlock& block = up_blocks_[level];
    for (size_t i = 0; i < block.resnets.size(); ++i) {
      h = at::cat({h, skips.back()}, 1);
      skips.pop_back();
      h = runner.Run(block.resnets[i], h);
      if (!block.attentions.empty()) {
        h = runner.Run(block.attentions[i], h);
      }
    }
    if (block.upsampler) {
      h = block.upsampler->forward(h, skips.back().size(2), skips.back().size(3), side);
    }
    if (tap) {
      tap("up_blocks." + std::to_string(level), h);
    }
  }
  runner.Finish();
  return conv_out_.forward(conv_norm_out_.forward_silu(h), side).contiguous();  // [rows, out channels, height, width]
}

}  // namespace hotlora
