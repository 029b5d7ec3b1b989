#include "tests/gpu/shapes.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include <ATen/ATen.h>

#include "src/weights/sdxl_base_configs.h"

namespace hotlora {
namespace {

constexpr int64_t kTokens = 77;

// Thin networks with SDXL's blocks.
void Shrink(SdxlConfig& config) {
  for (TextEncoderConfig* encoder : {&config.text_encoder, &config.text_encoder_2}) {
    encoder->width = 32;
    encoder->inner_width = 64;
    encoder->layers = 2;
    encoder->heads = 2;
    encoder->projection = encoder->projection > 0 ? 32 : 0;
  }
  UnetConfig& unet = config.unet;
  unet.cross_attention_width = 64;
  unet.groups = 8;
  unet.size_id_width = 16;
  unet.addition_in = 32 + 6 * unet.size_id_width;
  int64_t channels = 16;
  for (UnetLevel& level : unet.levels) {
    level.channels = channels;
    level.heads = level.heads > 0 ? 2 : 0;
    level.transformer_depth = level.transformer_depth > 0 ? 1 : 0;
    channels *= 2;
  }
  config.vae.channels = {16, 16, 32, 32};
  config.vae.groups = 8;
}

}  // namespace

SdxlConfig ShapesOf(const Probe& probe) {
  SdxlConfig config = ParseSdxlConfig(SdxlBaseConfigs()).value();
  if (probe.tiny()) {
    Shrink(config);
  }
  return config;
}

int64_t SizeOf(const Probe& probe, int64_t pixels) { return probe.tiny() ? pixels / 16 : pixels; }

SeededParameters::SeededParameters(c10::Device device, c10::ScalarType dtype, AdaptableModules* modules)
    : options_(at::TensorOptions(dtype).device(device)), modules_(modules) {
  at::manual_seed(1);
}

at::Tensor SeededParameters::Draw(const std::string& name, at::IntArrayRef shape) const {
  if (shape.size() == 1) {
    return at::full(shape, absl::EndsWith(name, ".bias") ? 0.0 : 1.0, options_);
  }
  int64_t inputs = 1;
  for (const int64_t size : shape.slice(1)) {
    inputs *= size;
  }
  return at::randn(shape, options_).mul_(1.0 / std::sqrt(static_cast<double>(inputs)));
}

at::Tensor SeededParameters::Take(const std::string& name, at::IntArrayRef shape) { return Draw(name, shape); }

AdaptableParameter SeededParameters::TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) {
  at::Tensor live = Draw(name, shape);
  if (shape.size() == 4) {
    live = live.contiguous(at::MemoryFormat::ChannelsLast);
  }
  const size_t index = modules_ == nullptr ? AdaptableParameter::kNotListed : modules_->weights.size();
  List(name, live);
  return {live, index};
}

AdaptableParameter SeededParameters::TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                                 WeightOrder) {
  const size_t first = modules_ == nullptr ? AdaptableParameter::kNotListed : modules_->weights.size();
  std::vector<at::Tensor> drawn;
  for (const std::string& name : names) {
    drawn.push_back(Draw(name, shape));
  }
  const at::Tensor stack = at::cat(drawn);
  for (size_t i = 0; i < names.size(); ++i) {
    List(names[i], stack.narrow(0, static_cast<int64_t>(i) * shape[0], shape[0]));
  }
  return {stack, first};
}

void SeededParameters::List(const std::string& name, const at::Tensor& live) {
  if (modules_ == nullptr) {
    return;
  }
  const size_t dot = name.rfind('.');
  modules_->table.modules.push_back(
      {Component::kUnet, name.substr(0, dot), live.sizes().vec(), name.substr(dot) == ".bias"});
  modules_->weights.push_back({live, live.clone(at::MemoryFormat::Contiguous)});
}

UnetInput MakeUnetInput(const UnetConfig& config, int64_t rows, int64_t latent_size, c10::Device device,
                        c10::ScalarType dtype) {
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  const at::TensorOptions floats = options.dtype(at::kFloat);
  const int64_t pooled = config.addition_in - 6 * config.size_id_width;
  return {at::randn({rows, config.in_channels, latent_size, latent_size}, options), at::full({rows}, 500.0, floats),
          at::randn({rows, kTokens, config.cross_attention_width}, options), at::randn({rows, pooled}, options),
          at::full({rows, 6}, 1024.0, floats)};
}

AdapterWeights MakeAdapter(const ModuleTable& table, int64_t rank, c10::ScalarType dtype, c10::Device device) {
  AdapterWeights adapter;
  const auto draw = [&](int64_t rows, int64_t columns) {
    return at::randn({rows, columns}, at::TensorOptions(dtype).device(device)).cpu();
  };
  for (size_t i = 0; i < table.modules.size(); ++i) {
    const AdaptableModule& module = table.modules[i];
    if (module.shape.size() != 2 || !absl::StrContains(module.path, ".attentions.")) {
      continue;
    }
    ModuleDelta delta;
    delta.module = i;
    delta.scale = 0.01;
    delta.change = LowRank{draw(rank, module.shape[1]), draw(module.shape[0], rank), at::Tensor()};
    adapter.deltas.push_back(std::move(delta));
  }
  return adapter;
}

}  // namespace hotlora
