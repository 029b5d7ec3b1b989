#include "src/sdxl/vae_blocks.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>

#include "src/tensor/device.h"
#include "src/tensor/torch_guard.h"

namespace hotlora {

void CheckVaeOutput(const at::Tensor& h) {
  if (!at::isfinite(h).all().item<bool>()) {
    throw NonfiniteError(absl::StrCat("the VAE's output in ", DtypeName(h.scalar_type()), " is not finite",
                                      h.scalar_type() == at::kHalf ? "; --vae-dtype float32 avoids it" : ""));
  }
}

ResnetBlock MakeVaeResnet(const ParameterScope& scope, int64_t in, int64_t out, const VaeConfig& config) {
  return ResnetBlock(scope, {in, out, /*time_width=*/0, config.groups, kVaeNormEpsilon});
}

Conv2d MakePointwiseConv(const ParameterScope& scope, int64_t in, int64_t out) {
  Conv2dOptions options{in, out};
  options.kernel = 1;
  options.padding = 0;
  return Conv2d(scope, options);
}

VaeMidBlock::VaeMidBlock(const ParameterScope& scope, const VaeConfig& config) {
  const int64_t channels = config.channels.back();
  first = MakeVaeResnet(scope.In("resnets.0"), channels, channels, config);
  group_norm = GroupNorm(scope.In("attentions.0.group_norm"), channels, config.groups, kVaeNormEpsilon);
  attention = SelfAttention(scope.In("attentions.0"), channels, /*heads=*/1, Linear::Bias::kPresent);
  second = MakeVaeResnet(scope.In("resnets.1"), channels, channels, config);
}

at::Tensor VaeMidBlock::forward(at::Tensor h) const {
  h = first.forward(h, {});
  const int64_t rows = h.size(0), channels = h.size(1), height = h.size(2), width = h.size(3);
  at::Tensor tokens = group_norm.forward(h);
  tokens = tokens.permute({0, 2, 3, 1}).reshape({rows, height * width, channels});  // a view: channels_last
  tokens = attention.forward(tokens);
  h = tokens.view({rows, height, width, channels}).permute({0, 3, 1, 2}).add_(h);
  return second.forward(h, {});
}

LatentScaling::LatentScaling(const VaeConfig& config, c10::Device device) : factor_(config.scaling_factor) {
  const at::TensorOptions options = at::TensorOptions(device).dtype(at::kFloat);
  if (!config.latents_mean.empty()) {
    mean_ = at::tensor(at::ArrayRef<double>(config.latents_mean), options).view({-1, 1, 1});
    std_ = at::tensor(at::ArrayRef<double>(config.latents_std), options).view({-1, 1, 1});
  }
}

at::Tensor LatentScaling::ToVae(const at::Tensor& latents) const {
  return mean_.defined() ? latents * std_ / factor_ + mean_ : latents / factor_;
}

at::Tensor LatentScaling::FromVae(const at::Tensor& latents) const {
  return mean_.defined() ? (latents - mean_) * factor_ / std_ : latents * factor_;
}

}  // namespace hotlora
