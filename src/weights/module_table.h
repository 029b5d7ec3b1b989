#ifndef HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_
#define HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_

// The modules of one checkpoint that an adapter may change, as a plain value: sdxl makes it from the checkpoint's
// configs, adapters build their table of names from it, nn merges by its indices. No LibTorch here.

#include <cstdint>
#include <string>
#include <vector>

namespace hotlora {

enum class Component { kTextEncoder, kTextEncoder2, kUnet };

struct AdaptableModule {
  Component component;
  // The diffusers or transformers module path inside its component, such as
  // "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q" or "text_model.encoder.layers.3.mlp.fc1".
  std::string path;
  // Linear [out, in]; convolution [out, in, height, width].
  std::vector<int64_t> weight_shape;
  bool has_bias = false;
};

struct ModuleTable {
  std::vector<AdaptableModule> modules;  // an adapter's changes refer to modules by their index here
  int unet_layers_per_block = 2;         // for the SGM spelling of UNet names
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_MODULE_TABLE_H_
