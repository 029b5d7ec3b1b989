#include "src/sdxl/controlnet.h"

#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>

namespace hotlora {
namespace {

constexpr int64_t kPictureChannels = 3;

// What each row's outputs are multiplied by; undefined if all scales are 1. The scales of several pictures of an image
// have had their effect before (ControlTypes).
at::Tensor OutputScales(c10::ArrayRef<ControlledImage> images, const at::Tensor& sample) {
  at::Tensor scales;
  int64_t first = 0;
  for (const ControlledImage& image : images) {
    const double scale = image.hints.size() == 1 ? image.hints.front().scale : 1.0;
    if (scale != 1.0) {
      scales = scales.defined() ? scales : at::ones({sample.size(0), 1, 1, 1}, sample.options());
      scales.narrow(0, first, image.rows).fill_(scale);
    }
    first += image.rows;
  }
  return scales;
}

}  // namespace

ControlNet::ControlNet(const ParameterScope& scope, const ControlNetConfig& config)
    : config_(config), encoder_(scope, config.encoder) {
  const UnetConfig& unet = config.encoder;
  const int64_t outermost = unet.levels.front().channels;
  const ParameterScope hint = scope.In("controlnet_cond_embedding");
  const std::vector<int64_t>& channels = config.hint_channels;
  hint_convolutions_.emplace_back(hint.In("conv_in"), Conv2dOptions{kPictureChannels, channels.front()});
  for (size_t i = 0; i + 1 < channels.size(); ++i) {
    hint_convolutions_.emplace_back(hint.In("blocks", 2 * i), Conv2dOptions{channels[i], channels[i]});
    Conv2dOptions halving{channels[i], channels[i + 1]};
    halving.stride = 2;
    hint_convolutions_.emplace_back(hint.In("blocks", 2 * i + 1), halving);
  }
  hint_convolutions_.emplace_back(hint.In("conv_out"), Conv2dOptions{channels.back(), outermost});
  if (config.types.has_value()) {
    types_.emplace(scope, *config.types, outermost, unet.size_id_width, unet.time_width());
  }
  const auto add_projection = [&](int64_t width) {
    down_projections_.emplace_back(scope.In("controlnet_down_blocks", down_projections_.size()),
                                   Conv2dOptions{width, width, /*kernel=*/1, /*stride=*/1, /*padding=*/0});
  };
  add_projection(outermost);
  for (size_t level = 0; level < unet.levels.size(); ++level) {
    const bool halves = level + 1 < unet.levels.size();
    for (int64_t i = 0; i < unet.layers_per_block + (halves ? 1 : 0); ++i) {
      add_projection(unet.levels[level].channels);
    }
  }
  const int64_t innermost = unet.levels.back().channels;
  mid_projection_ = Conv2d(scope.In("controlnet_mid_block"), {innermost, innermost, 1, 1, 0});
}

at::Tensor ControlNet::EmbedHint(const at::Tensor& picture) const {
  at::Tensor h = picture.contiguous(at::MemoryFormat::ChannelsLast);
  for (size_t i = 0; i < hint_convolutions_.size(); ++i) {
    h = hint_convolutions_[i].forward(h);
    if (i + 1 < hint_convolutions_.size()) {
      at::silu_(h);
    }
  }
  return h;
}

at::Tensor ControlNet::EnterWithHints(const UnetInput& input, c10::ArrayRef<ControlledImage> images) const {
  at::Tensor entered = encoder_.Enter(input.sample);  // [rows, channels, height, width]
  int64_t first = 0;
  for (const ControlledImage& image : images) {
    TORCH_CHECK(types_.has_value() ? !image.hints.empty() : image.hints.size() == 1, image.hints.size(),
                " control pictures for an image");
    entered.narrow(0, first, image.rows)
        .add_(types_.has_value() ? types_->Fuse(image.hints) : image.hints.front().embedded);
    first += image.rows;
  }
  TORCH_CHECK(first == entered.size(0), "images of ", first, " rows for an input of ", entered.size(0));
  return entered;
}

ControlResiduals ControlNet::forward(const UnetInput& input, c10::ArrayRef<ControlledImage> images) const {
  TORCH_CHECK(input.control.empty() && input.image.empty(), "a ControlNet cannot be controlled");
  at::Tensor time = encoder_.EmbedTime(input.timesteps, input.pooled, input.time_ids);
  if (types_.has_value()) {
    time.add_(types_->EmbedTypes(images, encoder_.size_ids()));
  }
  time = at::silu_(time);
  std::vector<at::Tensor> shifts;
  encoder_.ForResnets([&](const ResnetBlock& resnet) { shifts.push_back(resnet.ProjectTime(time)); });
  UnetStep step;
  step.shifts = at::cat(shifts, 1);
  encoder_.ForAttentions(
      [&](const Transformer2d& attention) { attention.ProjectText(input.encoder_hidden_states, {}, step.text); });
  BlockRunner runner(step, {});
  auto [skips, mid] = encoder_.forward(EnterWithHints(input, images), runner);
  const at::Tensor scales = OutputScales(images, input.sample);
  const auto project = [&scales](const Conv2d& projection, const at::Tensor& x) {
    at::Tensor y = projection.forward(x);
    return scales.defined() ? y.mul_(scales) : y;
  };
  ControlResiduals residuals;
  for (size_t i = 0; i < skips.size(); ++i) {
    residuals.down.push_back(project(down_projections_[i], skips[i]));
    skips[i].reset();
  }
  residuals.mid = project(mid_projection_, mid);
  return residuals;
}

}  // namespace hotlora
