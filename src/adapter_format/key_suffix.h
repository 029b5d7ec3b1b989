#ifndef HOTLORA_SRC_ADAPTER_FORMAT_KEY_SUFFIX_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_KEY_SUFFIX_H_

// What a tensor in an adapter file is, by the end of its name. No LibTorch here.

#include <cstddef>
#include <optional>

#include "absl/strings/string_view.h"

#include "src/base/enum_size.h"

namespace hotlora {

// What a tensor is to its module. Changes of the weight: LoRA and LoCon, LoHa, LoKr, GLoRA, OFT, a full difference; of
// the bias; then what goes with any change of a weight.
enum class KeyPart {
  kDown,
  kUp,
  kMid,
  kHadaW1A,
  kHadaW1B,
  kHadaW2A,
  kHadaW2B,
  kHadaT1,
  kHadaT2,
  kLokrW1,
  kLokrW1A,
  kLokrW1B,
  kLokrW2,
  kLokrW2A,
  kLokrW2B,
  kLokrT2,
  kGloraA1,
  kGloraA2,
  kGloraB1,
  kGloraB2,
  kGloraBm,
  kOftBlocks,
  kOftR,  // PEFT's
  kDiff,
  kDiffBias,
  kUpBias,  // of LoRA's up, which PEFT can have
  kRescale,
  kAlpha,
  kScale,
  kDoraScale,        // LyCORIS and kohya
  kMagnitudeVector,  // PEFT
};
inline constexpr size_t kKeyParts = kEnumSize<KeyPart>;

// A key such as "unet.conv_in.lora_A.weight", taken apart: module "unet.conv_in", part kDown.
struct SplitKey {
  absl::string_view module;  // a view into the key; KeyMap knows which module it means
  KeyPart part;
  absl::string_view adapter;  // PEFT's name of the adapter if the key has one: "default" of ".lora_A.default.weight"
};

// Recognises
//   down      .lora_down.weight, .lora_A.weight, .lora_A.NAME.weight, .lora.down.weight,
//             _lora.down.weight, .lora_linear_layer.down.weight
//   up        the same with up and lora_B
//   mid       .lora_mid.weight
//   LoHa      .hada_w1_a, .hada_w1_b, .hada_w2_a, .hada_w2_b, .hada_t1, .hada_t2
//   LoKr      .lokr_w1 or .lokr_w1_a and .lokr_w1_b; the same with w2; .lokr_t2
//   GLoRA     .a1.weight, .a2.weight, .b1.weight, .b2.weight, .bm.weight
//   OFT       .oft_blocks, .rescale; .oft_R.weight, .oft_R.NAME.weight
//   full      .diff, .w_norm; of the bias .diff_b, .b_norm
//   up bias   .lora_B.bias, .lora_B.NAME.bias, .lora_up.bias
//   DoRA      .dora_scale; .lora_magnitude_vector, also with .weight, .NAME or .NAME.weight
//   scalars   .alpha, .scale
// Nothing if the key ends otherwise.
std::optional<SplitKey> SplitAdapterKey(absl::string_view key);

// The part's own word in a key, for messages: "down", "hada_w1_a", ...
absl::string_view NameOf(KeyPart part);

// Whether it is a vector of an embedding that travels with an adapter: bundle_emb.NAME.* (OneTrainer, LyCORIS' tools,
// AUTOMATIC1111), or clip_l, clip_g, emb_params alone (ai-toolkit).
bool IsEmbeddingKey(absl::string_view key);

// The name of the adapter format that hotlora lacks and this key belongs to ("BOFT", "IA3", ...); empty if the key
// belongs to none.
absl::string_view UnsupportedFormatOf(absl::string_view key);

// The model family that a key names which SDXL lacks, such as "Flux" or "Stable Diffusion 1 or 2";
// empty if the key does not tell.
absl::string_view ForeignModelOfKey(absl::string_view key);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_KEY_SUFFIX_H_
