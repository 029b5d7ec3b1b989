#include "tests/adapters/sdxl_modules.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

class TableMaker {
 public:
  explicit TableMaker(const SdxlShape& shape) : shape_(shape) {}

  ModuleTable Make() && {
    const std::vector<int64_t>& c = shape_.channels;
    const int64_t embed = 4 * c[0];
    Conv("conv_in", c[0], 4, 3);
    Linear("time_embedding.linear_1", embed, c[0]);
    Linear("time_embedding.linear_2", embed, embed);
    Linear("add_embedding.linear_1", embed, shape_.added_width);
    Linear("add_embedding.linear_2", embed, embed);
    for (int b = 0; b < 3; ++b) {
      const std::string block = absl::StrCat("down_blocks.", b, ".");
      for (int i = 0; i < 2; ++i) {
        Resnet(absl::StrCat(block, "resnets.", i), c[b], i == 0 ? c[std::max(b - 1, 0)] : c[b]);
        Attention(absl::StrCat(block, "attentions.", i), c[b], shape_.depth[b]);
      }
      if (b < 2) {
        Conv(absl::StrCat(block, "downsamplers.0.conv"), c[b], c[b], 3);
      }
    }
    Resnet("mid_block.resnets.0", c[2], c[2]);
    Attention("mid_block.attentions.0", c[2], shape_.depth[2]);
    Resnet("mid_block.resnets.1", c[2], c[2]);
    for (int b = 0; b < 3; ++b) {
      const std::string block = absl::StrCat("up_blocks.", b, ".");
      const int level = 2 - b;
      for (int i = 0; i < 3; ++i) {
        const int64_t skip = i == 2 ? c[std::max(level - 1, 0)] : c[level];
        const int64_t below = i == 0 ? c[std::min(level + 1, 2)] : c[level];
        Resnet(absl::StrCat(block, "resnets.", i), c[level], below + skip);
        Attention(absl::StrCat(block, "attentions.", i), c[level], shape_.depth[level]);
      }
      if (b < 2) {
        Conv(absl::StrCat(block, "upsamplers.0.conv"), c[level], c[level], 3);
      }
    }
    Conv("conv_out", 4, c[0], 3);
    for (int encoder = 0; encoder < 2; ++encoder) {
      component_ = encoder == 0 ? Component::kTextEncoder : Component::kTextEncoder2;
      const int64_t width = shape_.text_width[encoder];
      for (int i = 0; i < shape_.text_layers[encoder]; ++i) {
        const std::string layer = absl::StrCat("text_model.encoder.layers.", i, ".");
        for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
          Linear(absl::StrCat(layer, "self_attn.", part), width, width);
        }
        Linear(absl::StrCat(layer, "mlp.fc1"), 4 * width, width);
        Linear(absl::StrCat(layer, "mlp.fc2"), width, 4 * width);
      }
    }
    Linear("text_projection", shape_.text_width[1], shape_.text_width[1]);
    return std::move(table_);
  }

 private:
  void Linear(const std::string& path, int64_t out, int64_t in) {
    table_.modules.push_back({component_, path, {out, in}, true});
  }
  void Conv(const std::string& path, int64_t out, int64_t in, int64_t kernel) {
    table_.modules.push_back({component_, path, {out, in, kernel, kernel}, true});
  }
  void Resnet(const std::string& path, int64_t out, int64_t in) {
    Conv(path + ".conv1", out, in, 3);
    Linear(path + ".time_emb_proj", out, 4 * shape_.channels[0]);
    Conv(path + ".conv2", out, out, 3);
    if (in != out) {
      Conv(path + ".conv_shortcut", out, in, 1);
    }
  }
  void Attention(const std::string& path, int64_t width, int depth) {
    if (depth == 0) {
      return;
    }
    Linear(path + ".proj_in", width, width);
    for (int d = 0; d < depth; ++d) {
      const std::string block = absl::StrCat(path, ".transformer_blocks.", d, ".");
      for (const char* attention : {"attn1", "attn2"}) {
        const int64_t from = attention[4] == '1' ? width : shape_.context;
        Linear(absl::StrCat(block, attention, ".to_q"), width, width);
        Linear(absl::StrCat(block, attention, ".to_k"), width, from);
        Linear(absl::StrCat(block, attention, ".to_v"), width, from);
        Linear(absl::StrCat(block, attention, ".to_out.0"), width, width);
      }
      Linear(block + "ff.net.0.proj", 8 * width, width);
      Linear(block + "ff.net.2", width, 4 * width);
    }
    Linear(path + ".proj_out", width, width);
  }

  const SdxlShape& shape_;
  Component component_ = Component::kUnet;
  ModuleTable table_;
};

}  // namespace

ModuleTable MakeModules(const SdxlShape& shape) { return TableMaker(shape).Make(); }

}  // namespace hotlora
