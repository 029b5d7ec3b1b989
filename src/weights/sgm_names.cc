#include "src/weights/sgm_names.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "src/base/name_table.h"

namespace hotlora {
namespace {

constexpr std::pair<absl::string_view, absl::string_view> kOutsideBlocks[] = {
    {"conv_in", "input_blocks.0.0"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
};

constexpr std::pair<absl::string_view, absl::string_view> kInsideResnet[] = {
    {"norm1", "in_layers.0"},  {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"}, {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"},
};

constexpr std::pair<absl::string_view, absl::string_view> kOutsideControlNet[] = {
    {"controlnet_cond_embedding.conv_in", "input_hint_block.0"},
    {"controlnet_cond_embedding.conv_out", "input_hint_block.14"},
    {"controlnet_mid_block", "middle_block_out.0"},
};

constexpr std::pair<absl::string_view, absl::string_view> kInsideVaeAttention[] = {
    {"group_norm", "norm"}, {"to_q", "q"}, {"to_k", "k"}, {"to_v", "v"}, {"to_out.0", "proj_out"}};

constexpr std::pair<absl::string_view, absl::string_view> kOpenClipOutside[] = {
    {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
    {"text_model.final_layer_norm.weight", "ln_final.weight"},
    {"text_model.final_layer_norm.bias", "ln_final.bias"},
    {"text_projection.weight", "text_projection"},
};

constexpr std::pair<absl::string_view, absl::string_view> kOpenClipLayer[] = {
    {"self_attn.out_proj", "attn.out_proj"},
    {"layer_norm1", "ln_1"},
    {"layer_norm2", "ln_2"},
    {"mlp.fc1", "mlp.c_fc"},
    {"mlp.fc2", "mlp.c_proj"},
};

constexpr std::pair<absl::string_view, absl::string_view> kFusedThirds[] = {
    {"self_attn.q_proj", " (q)"}, {"self_attn.k_proj", " (k)"}, {"self_attn.v_proj", " (v)"}};

std::string WithInside(absl::string_view place, absl::string_view kind, const std::vector<std::string>& part,
                       size_t first) {
  const std::string rest = absl::StrJoin(part.begin() + first, part.end(), ".");
  if (kind == "attentions") {
    return absl::StrCat(place, ".", rest);
  }
  const absl::string_view inside = kind == "resnets" ? Translate(kInsideResnet, rest) : absl::string_view();
  return inside.empty() ? "" : absl::StrCat(place, ".", inside);
}

// "a.b.weight" to "a.b" and "weight"; an empty leaf if there is no dot.
std::pair<absl::string_view, absl::string_view> SplitLeaf(absl::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == absl::string_view::npos ? std::make_pair(name, absl::string_view())
                                        : std::make_pair(name.substr(0, dot), name.substr(dot + 1));
}

}  // namespace

SgmUnetNames::SgmUnetNames(int layers_per_block, std::set<std::string> up_blocks_with_attention)
    : group_(layers_per_block + 1), up_blocks_with_attention_(std::move(up_blocks_with_attention)) {}

std::string SgmUnetNames::OfModule(absl::string_view path) const {
  if (const absl::string_view outside = Translate(kOutsideBlocks, path); !outside.empty()) {
    return std::string(outside);
  }
  const std::vector<std::string> part = absl::StrSplit(path, '.');
  if (part[0] == "mid_block" && part.size() >= 4) {
    int index = 0;
    if (!absl::SimpleAtoi(part[2], &index)) {
      return "";
    }
    // resnet 0, attention 0, resnet 1
    const int place = part[1] == "resnets" ? 2 * index : 2 * index + 1;
    return WithInside(absl::StrCat("middle_block.", place), part[1], part, 3);
  }
  int block = 0, slot = 0;
  if (part.size() < 5 || !absl::SimpleAtoi(part[1], &block) || !absl::SimpleAtoi(part[3], &slot)) {
    return "";
  }
  if (part[0] == "down_blocks") {
    if (part[2] == "downsamplers") {
      return absl::StrCat("input_blocks.", group_ * (block + 1), ".0.op");
    }
    return WithInside(absl::StrCat("input_blocks.", group_ * block + slot + 1, part[2] == "attentions" ? ".1" : ".0"),
                      part[2], part, 4);
  }
  if (part[0] == "up_blocks") {
    if (part[2] == "upsamplers") {
      return absl::StrCat("output_blocks.", group_ * (block + 1) - 1,
                          up_blocks_with_attention_.count(part[1]) > 0 ? ".2.conv" : ".1.conv");
    }
    return WithInside(absl::StrCat("output_blocks.", group_ * block + slot, part[2] == "attentions" ? ".1" : ".0"),
                      part[2], part, 4);
  }
  return "";
}

std::string SgmUnetNames::OfParameter(absl::string_view name) const {
  const auto [module, leaf] = SplitLeaf(name);
  const std::string translated = OfModule(module);
  return translated.empty() ? "" : absl::StrCat(translated, ".", leaf);
}

std::string SgmControlNetParameter(absl::string_view name, int layers_per_block) {
  auto [module, leaf] = SplitLeaf(name);
  if (const absl::string_view outside = Translate(kOutsideControlNet, module); !outside.empty()) {
    return absl::StrCat(outside, ".", leaf);
  }
  int index = 0;
  if (absl::ConsumePrefix(&module, "controlnet_down_blocks.")) {
    return absl::StrCat("zero_convs.", module, ".0.", leaf);
  }
  if (absl::ConsumePrefix(&module, "controlnet_cond_embedding.blocks.") && absl::SimpleAtoi(module, &index)) {
    return absl::StrCat("input_hint_block.", 2 * index + 2, ".", leaf);  // between them are activations
  }
  return SgmUnetNames(layers_per_block, {}).OfParameter(name);
}

std::string SgmVaeParameter(absl::string_view name, int levels) {
  const auto [module, leaf] = SplitLeaf(name);
  const std::vector<std::string> part = absl::StrSplit(module, '.');
  const std::string& half = part[0];  // "encoder", "decoder"
  if (part.size() == 2 && part[1] == "conv_norm_out") {
    return absl::StrCat(half, ".norm_out.", leaf);
  }
  int index = 0;
  if (part.size() < 5) {
    return std::string(name);
  }
  const auto inside = [&](size_t first) {
    const std::string rest = absl::StrJoin(part.begin() + first, part.end(), ".");
    return rest == "conv_shortcut" ? "nin_shortcut" : rest;
  };
  if (part[1] == "mid_block" && absl::SimpleAtoi(part[3], &index)) {
    if (part[2] == "resnets") {
      return absl::StrCat(half, ".mid.block_", index + 1, ".", inside(4), ".", leaf);
    }
    return absl::StrCat(half, ".mid.attn_", index + 1, ".", Translate(kInsideVaeAttention, inside(4)), ".", leaf);
  }
  const bool down = part[1] == "down_blocks";
  if ((!down && part[1] != "up_blocks") || !absl::SimpleAtoi(part[2], &index)) {
    return std::string(name);
  }
  const std::string level = down ? absl::StrCat(half, ".down.", index) : absl::StrCat(half, ".up.", levels - 1 - index);
  if (part[3] == "downsamplers" || part[3] == "upsamplers") {
    return absl::StrCat(level, down ? ".downsample" : ".upsample", ".conv.", leaf);
  }
  return part.size() < 6 ? std::string(name) : absl::StrCat(level, ".block.", part[4], ".", inside(5), ".", leaf);
}

std::string OpenClipParameter(absl::string_view name) {
  if (const absl::string_view outside = Translate(kOpenClipOutside, name); !outside.empty()) {
    return std::string(outside);
  }
  auto [module, leaf] = SplitLeaf(name);
  if (!absl::ConsumePrefix(&module, "text_model.encoder.layers.")) {
    return "";
  }
  const size_t dot = module.find('.');
  if (dot == absl::string_view::npos) {
    return "";
  }
  const std::string layer = absl::StrCat("transformer.resblocks.", module.substr(0, dot), ".");
  const absl::string_view rest = module.substr(dot + 1);
  if (const absl::string_view third = Translate(kFusedThirds, rest); !third.empty()) {
    return absl::StrCat(layer, "attn.in_proj_", leaf, third);
  }
  const absl::string_view inside = Translate(kOpenClipLayer, rest);
  return inside.empty() ? "" : absl::StrCat(layer, inside, ".", leaf);
}

}  // namespace hotlora
