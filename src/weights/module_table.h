#ifndef HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_
#define HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_

// The parameters of one checkpoint that an adapter may change, as a plain value: sdxl makes it from the checkpoint's
// configs, adapters build their table of names from it, nn merges by its indices. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "src/base/enum_size.h"

namespace hotlora {

enum class Component { kTextEncoder, kTextEncoder2, kUnet };

// "text_encoder", "text_encoder_2", "unet".
inline const char* NameOf(Component component) {
  constexpr const char* kNames[] = {"text_encoder", "text_encoder_2", "unet"};
  static_assert(std::size(kNames) == kEnumSize<Component>);
  return kNames[static_cast<size_t>(component)];
}

// One parameter of a linear layer, a convolution or a norm: its weight, or its bias, which is an entry of its own.
struct AdaptableModule {
  Component component;
  // The diffusers or transformers module path inside its component, such as
  // "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q" or "text_model.encoder.layers.3.mlp.fc1".
  std::string path;
  // Weights: linear [out, in]; convolution [out, in, height, width]; norm [channels]. Biases [out] or [channels].
  std::vector<int64_t> shape;
  bool is_bias = false;
  std::optional<size_t> bias;  // of a weight: the entry of the module's bias, if it has one
};

struct ModuleTable {
  std::vector<AdaptableModule> modules;  // an adapter's changes refer to entries by their index here
  int unet_layers_per_block = 2;         // for the SGM spelling of UNet names
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_
