#ifndef HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_FILE_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_FILE_H_

// What an adapter file says, checked against the model but not yet made into tensors. No LibTorch
// here.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapter_format/adapter_metadata.h"
#include "src/adapter_format/delta_reader.h"
#include "src/adapter_format/key_map.h"
#include "src/weights/module_table.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// An adapter that is sound and fits the model. Immutable.
struct ParsedAdapter {
  SafetensorsFile file;
  std::vector<ParsedDelta> deltas;  // in the order of the module table
  uint64_t tensor_bytes = 0;        // of the tensors as they are stored; F64 becomes float32
  uint32_t matched_modules = 0;
  // "dora" if a module has a magnitude; else "oft", "glora", "lokr", "loha", "locon" (a low-rank change of a kernel
  // larger than 1x1), "lora", "full", "norm" (a difference of biases or norms): the first of these that a module has.
  std::string format;
  uint32_t rank_max = 0;
  std::vector<std::string> targets;         // components, sorted
  std::vector<std::string> unmatched_keys;  // at most kMaxListedKeys, then one entry with a count
  std::vector<std::string> notes;           // sentences: metadata that name another model than keys and shapes do
  AdapterMetadata metadata;
};

inline constexpr size_t kMaxListedKeys = 256;

// The longest header. kohya writes its training tags there; a few MiB are common.
inline constexpr uint64_t kMaxAdapterHeaderBytes = uint64_t{32} << 20;

struct AdapterFileOptions {
  bool allow_unmatched_keys = false;
  // Text of adapter_config.json, for a PEFT folder.
  std::optional<std::string> peft_config;
};

// Checks an adapter file against the model and says what it changes.
//
// Names     KeyMap and SplitAdapterKey. A module may be spelled in one way only.
// Shapes    trailing dimensions of 1 may be missing; a linear layer has kh = kw = 1
//   LoRA    down [r, in, kh, kw], up [out, r]; with mid [r, r, kh, kw] (Tucker) down is [r, in]
//   LoHa    hada_w1_a, hada_w2_a [out, r]; hada_w1_b, hada_w2_b [r, in * kh * kw] or [r, in, kh, kw]; with hada_t1 and
//           hada_t2 [r, r, kh, kw] w*_a are [r, out] and w*_b [r, in]
//   LoKr    lokr_w1 [A, B] or lokr_w1_a [A, r], lokr_w1_b [r, B]; lokr_w2 [C, D, kh, kw] or lokr_w2_a [C, r],
//           lokr_w2_b [r, D * kh * kw] or [r, D, kh, kw]; with lokr_t2 [r, r, kh, kw] w2_a is [r, C], w2_b [r, D];
//           A * C = out, B * D = in
//   GLoRA   a1 [in, r], a2 [r, in], b1 [out, r], b2 [r, in, kh, kw] or [r, in * kh * kw], perhaps bm [r, r, kh, kw];
//           or LyCORIS' first layout, a1 [r, in], a2 [in, r], b1 [r, in], b2 [out, r]
//   OFT     oft_blocks [blocks, size, size], blocks * size = out; perhaps rescale [out]
//   full    diff as the weight; of norms too, also as w_norm
//   bias    diff_b or b_norm [out]; or [out] of LoRA's up, which has its scale
//   DoRA    with any of these but OFT: dora_scale [out] or [out, 1] for norms of outputs, [1, in] for norms of inputs;
//           lora_magnitude_vector [out] or [1, out]
// Dtypes    F32, F16, BF16, F64 (becomes F32); every value finite.
//           Alpha and scale: one finite number, integers too
// Scale     `.scale` if there is one, else alpha / r, else what PEFT's configuration says
//           (adapter_config.json, or `lora_adapter_metadata` of the header), else 1.
//           r is of the module: LoHa's, or of LoKr's second factor, else of its first. If nothing is a product (LoKr
//           with both factors whole, full) a stored alpha says nothing and is not read.
//           A stored alpha of 0 means alpha = r, as kohya's loader has it. OFT's alpha is a bound: the norm of all
//           skew blocks of the module together is at most alpha * out, or anything if alpha is 0 or missing
//           Alpha tensors beside a PEFT configuration must agree with it, but for one of the header that is for all
//           components (PeftScaling::is_shared): there the tensors alone count
// Errors    FailedPrecondition, with what is wrong and which keys (at most 8, then a count)
//   ADAPTER_UNSUPPORTED   keys of another format (BOFT, IA3, ...); without allow_unmatched_keys an embedding
//   ADAPTER_INVALID       a half that is missing, two formats in one module, ranks that disagree, values that are not
//                         finite, other dtypes
//   ADAPTER_MISMATCH      keys or shapes that this model lacks. Even with allow_unmatched_keys if no key names a
//                         module, or if the keys of the UNet are another model's. Metadata that name another model
//                         refuse nothing: they explain a refusal, or are a note
// Source    kohya networks/lora.py (LoRAModule, create_network_from_weights); diffusers utils/state_dict_utils.py;
//           LyCORIS functional/loha.py, lokr.py, diag_oft.py, modules/glora.py, norms.py; kohya networks/oft.py; PEFT
//           tuners/lora/dora.py
absl::StatusOr<ParsedAdapter> ParseAdapter(SafetensorsFile file, const KeyMap& keys, const ModuleTable& table,
                                           const AdapterFileOptions& options);

// The adapter's identity, AdapterInfo::content_sha256. `file` was read whole.
std::string ContentHash(const SafetensorsFile& file, const std::optional<std::string>& peft_config);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_FILE_H_
