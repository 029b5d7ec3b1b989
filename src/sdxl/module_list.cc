#include "src/sdxl/module_list.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/status_macros.h"
#include "src/sdxl/sdxl_config.h"
#include "src/weights/checkpoint_configs.h"
#include "src/weights/sdxl_base_configs.h"

namespace hotlora {
namespace {

class ModuleLister {
 public:
  explicit ModuleLister(ModuleTable& table) : table_(table) {}

  void TextEncoder(Component component, const TextEncoderConfig& config) {
    component_ = component;
    for (int64_t i = 0; i < config.layers; ++i) {
      const std::string layer = absl::StrCat("text_model.encoder.layers.", i, ".");
      Norm(layer + "layer_norm1", config.width);
      for (const char* const part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
        Linear(absl::StrCat(layer, "self_attn.", part), config.width, config.width);
      }
      Norm(layer + "layer_norm2", config.width);
      Linear(layer + "mlp.fc1", config.width, config.inner_width);
      Linear(layer + "mlp.fc2", config.inner_width, config.width);
    }
    Norm("text_model.final_layer_norm", config.width);
    if (config.projection > 0) {
      Linear("text_projection", config.width, config.projection, /*has_bias=*/false);
    }
  }

  void Unet(const UnetConfig& config) {
    component_ = Component::kUnet;
    const int64_t outermost = config.levels.front().channels;
    Conv("conv_in", config.in_channels, outermost, 3);
    Embedding("time_embedding", outermost, config.time_width());
    Embedding("add_embedding", config.addition_in, config.time_width());
    for (size_t level = 0; level < config.levels.size(); ++level) {
      DownBlock(config, level);
    }
    const UnetLevel& innermost = config.levels.back();
    Resnet(config, "mid_block.resnets.0", innermost.channels, innermost.channels);
    Transformer(config, "mid_block.attentions.0", innermost);
    Resnet(config, "mid_block.resnets.1", innermost.channels, innermost.channels);
    for (size_t i = 0; i < config.levels.size(); ++i) {
      UpBlock(config, i);
    }
    Norm("conv_norm_out", outermost);
    Conv("conv_out", outermost, config.out_channels, 3);
  }

 private:
  void Module(const std::string& path, std::vector<int64_t> shape, bool has_bias) {
    const std::vector<int64_t> bias_shape = {shape[0]};
    table_.modules.push_back({component_, path, std::move(shape)});
    if (has_bias) {
      table_.modules.back().bias = table_.modules.size();
      table_.modules.push_back({component_, path, bias_shape, /*is_bias=*/true});
    }
  }
  void Norm(const std::string& path, int64_t channels) { Module(path, {channels}, true); }
  void Linear(const std::string& path, int64_t in, int64_t out, bool has_bias = true) {
    Module(path, {out, in}, has_bias);
  }
  void Conv(const std::string& path, int64_t in, int64_t out, int64_t kernel) {
    Module(path, {out, in, kernel, kernel}, true);
  }
  void Embedding(const std::string& path, int64_t in, int64_t width) {
    Linear(path + ".linear_1", in, width);
    Linear(path + ".linear_2", width, width);
  }

  void Resnet(const UnetConfig& config, const std::string& path, int64_t in, int64_t out) {
    Norm(path + ".norm1", in);
    Conv(path + ".conv1", in, out, 3);
    Linear(path + ".time_emb_proj", config.time_width(), out);
    Norm(path + ".norm2", out);
    Conv(path + ".conv2", out, out, 3);
    if (in != out) {
      Conv(path + ".conv_shortcut", in, out, 1);
    }
  }

  void Attention(const std::string& path, int64_t width, int64_t context) {
    Linear(path + ".to_q", width, width, /*has_bias=*/false);
    Linear(path + ".to_k", context, width, /*has_bias=*/false);
    Linear(path + ".to_v", context, width, /*has_bias=*/false);
    Linear(path + ".to_out.0", width, width);
  }

  void Transformer(const UnetConfig& config, const std::string& path, const UnetLevel& level) {
    const int64_t width = level.channels;
    Norm(path + ".norm", width);
    Linear(path + ".proj_in", width, width);
    for (int64_t i = 0; i < level.transformer_depth; ++i) {
      const std::string block = absl::StrCat(path, ".transformer_blocks.", i, ".");
      Norm(block + "norm1", width);
      Attention(block + "attn1", width, width);
      Norm(block + "norm2", width);
      Attention(block + "attn2", width, config.cross_attention_width);
      Norm(block + "norm3", width);
      Linear(block + "ff.net.0.proj", width, 8 * width);
      Linear(block + "ff.net.2", 4 * width, width);
    }
    Linear(path + ".proj_out", width, width);
  }

  void DownBlock(const UnetConfig& config, size_t index) {
    const UnetLevel& here = config.levels[index];
    const std::string block = absl::StrCat("down_blocks.", index, ".");
    for (int64_t i = 0; i < config.layers_per_block; ++i) {
      const bool from_above = i == 0 && index > 0;
      Resnet(config, absl::StrCat(block, "resnets.", i), from_above ? config.levels[index - 1].channels : here.channels,
             here.channels);
      if (here.down_attention) {
        Transformer(config, absl::StrCat(block, "attentions.", i), here);
      }
    }
    if (index + 1 < config.levels.size()) {
      Conv(block + "downsamplers.0.conv", here.channels, here.channels, 3);
    }
  }

  // The up blocks count from the innermost level.
  void UpBlock(const UnetConfig& config, size_t index) {
    const size_t level = config.levels.size() - 1 - index;
    const UnetLevel& here = config.levels[level];
    const int64_t below = index == 0 ? here.channels : config.levels[level + 1].channels;
    const int64_t above = level == 0 ? here.channels : config.levels[level - 1].channels;
    const std::string block = absl::StrCat("up_blocks.", index, ".");
    for (int64_t i = 0; i <= config.layers_per_block; ++i) {
      const int64_t skip = i == config.layers_per_block ? above : here.channels;
      Resnet(config, absl::StrCat(block, "resnets.", i), (i == 0 ? below : here.channels) + skip, here.channels);
      if (here.up_attention) {
        Transformer(config, absl::StrCat(block, "attentions.", i), here);
      }
    }
    if (level > 0) {
      Conv(block + "upsamplers.0.conv", here.channels, here.channels, 3);
    }
  }

  ModuleTable& table_;
  Component component_ = Component::kUnet;
};

}  // namespace

ModuleTable ModuleListOf(const SdxlConfig& config) {
  ModuleTable table;
  table.unet_layers_per_block = static_cast<int>(config.unet.layers_per_block);
  ModuleLister lister(table);
  lister.TextEncoder(Component::kTextEncoder, config.text_encoder);
  lister.TextEncoder(Component::kTextEncoder2, config.text_encoder_2);
  lister.Unet(config.unet);
  return table;
}

absl::StatusOr<ModuleTable> ReadModuleList(const std::string& model_config) {
  CheckpointConfigs configs = SdxlBaseConfigs();
  if (!model_config.empty()) {
    ABSL_ASSIGN_OR_RETURN(configs, ReadConfigs(model_config, /*tokenizers_needed=*/false));
  }
  ABSL_ASSIGN_OR_RETURN(const SdxlConfig config, ParseSdxlConfig(configs));
  return ModuleListOf(config);
}

}  // namespace hotlora
