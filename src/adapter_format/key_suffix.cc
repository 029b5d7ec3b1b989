#include "src/adapter_format/key_suffix.h"

#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace hotlora {
namespace {

constexpr std::pair<absl::string_view, KeyPart> kSuffixes[] = {
    {".lora_down.weight", KeyPart::kDown},
    {".lora_up.weight", KeyPart::kUp},
    {".lora_mid.weight", KeyPart::kMid},
    {".alpha", KeyPart::kAlpha},
    {".scale", KeyPart::kScale},
    {".lora_A.weight", KeyPart::kDown},
    {".lora_B.weight", KeyPart::kUp},
    {".lora.down.weight", KeyPart::kDown},
    {".lora.up.weight", KeyPart::kUp},
    {"_lora.down.weight", KeyPart::kDown},
    {"_lora.up.weight", KeyPart::kUp},
    {".lora_linear_layer.down.weight", KeyPart::kDown},
    {".lora_linear_layer.up.weight", KeyPart::kUp},
    {".hada_w1_a", KeyPart::kHadaW1A},
    {".hada_w1_b", KeyPart::kHadaW1B},
    {".hada_w2_a", KeyPart::kHadaW2A},
    {".hada_w2_b", KeyPart::kHadaW2B},
    {".hada_t1", KeyPart::kHadaT1},
    {".hada_t2", KeyPart::kHadaT2},
    {".lokr_w1", KeyPart::kLokrW1},
    {".lokr_w1_a", KeyPart::kLokrW1A},
    {".lokr_w1_b", KeyPart::kLokrW1B},
    {".lokr_w2", KeyPart::kLokrW2},
    {".lokr_w2_a", KeyPart::kLokrW2A},
    {".lokr_w2_b", KeyPart::kLokrW2B},
    {".lokr_t2", KeyPart::kLokrT2},
    {".a1.weight", KeyPart::kGloraA1},
    {".a2.weight", KeyPart::kGloraA2},
    {".b1.weight", KeyPart::kGloraB1},
    {".b2.weight", KeyPart::kGloraB2},
    {".bm.weight", KeyPart::kGloraBm},
    {".oft_blocks", KeyPart::kOftBlocks},
    {".oft_R.weight", KeyPart::kOftR},
    {".rescale", KeyPart::kRescale},
    {".diff", KeyPart::kDiff},
    {".diff_b", KeyPart::kDiffBias},
    {".w_norm", KeyPart::kDiff},
    {".b_norm", KeyPart::kDiffBias},
    {".lora_B.bias", KeyPart::kUpBias},
    {".lora_up.bias", KeyPart::kUpBias},
    {".dora_scale", KeyPart::kDoraScale},
    {".lora_magnitude_vector", KeyPart::kMagnitudeVector},
    {".lora_magnitude_vector.weight", KeyPart::kMagnitudeVector},
};

// "MODULE.lora_A.NAME.weight": PEFT's names with the name of an adapter inside.
struct NamedPart {
  absl::string_view before, after;
  KeyPart part;
};
constexpr NamedPart kNamedParts[] = {
    {".lora_A.", ".weight", KeyPart::kDown},
    {".lora_B.", ".weight", KeyPart::kUp},
    {".lora_B.", ".bias", KeyPart::kUpBias},
    {".oft_R.", ".weight", KeyPart::kOftR},
    {".lora_magnitude_vector.", ".weight", KeyPart::kMagnitudeVector},
    {".lora_magnitude_vector.", "", KeyPart::kMagnitudeVector},
};

constexpr std::pair<absl::string_view, absl::string_view> kUnsupportedSuffixes[] = {
    {".on_input", "IA3"},
    {".magnitude", "DoRA of ai-toolkit, whose files do not say their alpha"},
    {".lora_down.bias", "a bias inside LoRA"},
};

constexpr std::pair<absl::string_view, absl::string_view> kUnsupportedParts[] = {
    {".boft_", "BOFT"},
    {".oft_diag", "OFT of early LyCORIS"},
    {".oft_r", "OFT of early PEFT"},
    {".oft_s", "OFT of early PEFT"},
    {".ia3_l", "IA3"},
    {".vera_lambda_", "VeRA"},
    {".lora_embedding_", "embedding LoRA"},
};

// By KeyPart.
constexpr absl::string_view kPartNames[] = {
    "down",      "up",         "mid",     "hada_w1_a", "hada_w1_b",  //
    "hada_w2_a", "hada_w2_b",  "hada_t1", "hada_t2",   "lokr_w1",    //
    "lokr_w1_a", "lokr_w1_b",  "lokr_w2", "lokr_w2_a", "lokr_w2_b",  //
    "lokr_t2",   "a1",         "a2",      "b1",        "b2",         //
    "bm",        "oft_blocks", "oft_R",   "diff",      "diff_b",     //
    "bias",      "rescale",    "alpha",   "scale",     "dora_scale", "lora_magnitude_vector",
};
static_assert(std::size(kPartNames) == kKeyParts);

// Parts of names that no SDXL module has.
constexpr std::pair<absl::string_view, absl::string_view> kForeignParts[] = {
    {"single_transformer_blocks", "Flux"},
    {"double_blocks", "Flux"},
    {"single_blocks", "Flux"},
    {"joint_blocks", "Stable Diffusion 3"},
    {"lora_te3_", "Stable Diffusion 3 or Flux"},
    {"transformer.transformer_blocks", "Stable Diffusion 3 or another transformer model"},
    {"lora_transformer_transformer_blocks", "Stable Diffusion 3 or another transformer model"},
    {"lora_prior_unet_", "Stable Cascade"},
    {"diffusion_model.blocks.", "a transformer model such as Wan"},
    {"diffusion_model.layers.", "a transformer model such as Lumina"},
    {"down_blocks_3_resnets", "Stable Diffusion 1 or 2"},
    {"down_blocks.3.resnets", "Stable Diffusion 1 or 2"},
    {"down_blocks_0_attentions", "Stable Diffusion 1 or 2"},
    {"down_blocks.0.attentions", "Stable Diffusion 1 or 2"},
    {"up_blocks_3_attentions", "Stable Diffusion 1 or 2"},
    {"up_blocks.3.attentions", "Stable Diffusion 1 or 2"},
    {"input_blocks_1_1_", "Stable Diffusion 1 or 2"},
    {"output_blocks_11_1_", "Stable Diffusion 1 or 2"},
};

}  // namespace

std::optional<SplitKey> SplitAdapterKey(absl::string_view key) {
  for (const auto& [suffix, part] : kSuffixes) {
    if (absl::EndsWith(key, suffix) && key.size() > suffix.size()) {
      return SplitKey{key.substr(0, key.size() - suffix.size()), part, ""};
    }
  }
  for (const auto& [before, after, part] : kNamedParts) {
    absl::string_view head = key;
    if (!absl::ConsumeSuffix(&head, after)) {
      continue;
    }
    const absl::string_view name = head.substr(head.rfind('.') + 1);
    head.remove_suffix(name.size());
    if (!name.empty() && absl::ConsumeSuffix(&head, before) && !head.empty()) {
      return SplitKey{head, part, name};
    }
  }
  return std::nullopt;
}

bool IsEmbeddingKey(absl::string_view key) {
  return absl::StartsWith(key, "bundle_emb.") || key == "clip_l" || key == "clip_g" || key == "emb_params";
}

absl::string_view NameOf(KeyPart part) { return kPartNames[static_cast<size_t>(part)]; }

absl::string_view UnsupportedFormatOf(absl::string_view key) {
  for (const auto& [suffix, format] : kUnsupportedSuffixes) {
    if (absl::EndsWith(key, suffix)) {
      return format;
    }
  }
  if (absl::StrContains(key, ".lora_A.") && absl::EndsWith(key, ".bias")) {
    return "a bias inside LoRA";
  }
  for (const auto& [part, format] : kUnsupportedParts) {
    if (absl::StrContains(key, part)) {
      return format;
    }
  }
  return "";
}

absl::string_view ForeignModelOfKey(absl::string_view key) {
  for (const auto& [part, model] : kForeignParts) {
    if (absl::StrContains(key, part)) {
      return model;
    }
  }
  return "";
}

}  // namespace hotlora
