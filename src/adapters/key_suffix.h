#ifndef HOTLORA_SRC_ADAPTERS_KEY_SUFFIX_H_
#define HOTLORA_SRC_ADAPTERS_KEY_SUFFIX_H_

// What a tensor in an adapter file is, by the end of its name. No LibTorch here.

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace hotlora {

enum class KeyPart { kDown, kUp, kMid, kAlpha, kScale };

// A key such as "unet.conv_in.lora_A.weight", taken apart: module "unet.conv_in", part kDown.
struct SplitKey {
  absl::string_view module;  // a view into the key; KeyMap knows which module it means
  KeyPart part;
};

// Recognises
//   down      .lora_down.weight, .lora_A.weight, .lora_A.default.weight, .lora.down.weight,
//             _lora.down.weight, .lora_linear_layer.down.weight
//   up        the same with up and lora_B
//   mid       .lora_mid.weight
//   scalars   .alpha, .scale
// Nothing where the key ends otherwise.
std::optional<SplitKey> SplitAdapterKey(absl::string_view key);

// The name of the adapter format that hotlora lacks and this key belongs to ("LoHa", "DoRA", "bias
// deltas", ...); empty where the key belongs to none.
absl::string_view UnsupportedFormatOf(absl::string_view key);

// The model family that a key names which SDXL lacks, such as "Flux" or "Stable Diffusion 1 or 2";
// empty where the key does not tell.
absl::string_view ForeignModelOf(absl::string_view key);

// The first names of many, for messages: at most 8, then a count. Names come from files, so each is
// quoted, escaped to printable ASCII and cut at 160 characters.
class NameSample {
 public:
  void Add(absl::string_view name);
  // For text that is already printable, such as a name with a remark.
  void AddPrintable(std::string text);
  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  std::string ToString() const;

 private:
  std::vector<std::string> first_;
  size_t count_ = 0;
};

// `name` quoted, escaped to printable ASCII and cut at 160 characters.
std::string PrintableName(absl::string_view name);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_KEY_SUFFIX_H_
