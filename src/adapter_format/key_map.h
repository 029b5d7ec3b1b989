#ifndef HOTLORA_SRC_ADAPTER_FORMAT_KEY_MAP_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_KEY_MAP_H_

// Which module an adapter file means by a name. No LibTorch here.

#include <cstddef>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/weights/module_table.h"

namespace hotlora {

// Every accepted spelling of every module of one model, in one hash table. "_" is ambiguous in
// kohya's names (`to_out_0`, `ff_net_0_proj`), so nothing is ever converted back: the spellings are
// made from the model's own module list.
//
// A UNet module P, with under(x) = x with "." as "_", and SGM(P) its name in single files:
//   diffusers, PEFT   P, unet.P, base_model.model.P, base_model.model.unet.P,
//                     unet.base_model.model.P
//   SimpleTuner       diffusion_model.P
//   single files      SGM(P), diffusion_model.SGM(P), model.diffusion_model.SGM(P)
//   OMI               unet.SGM(P)
//   kohya, LyCORIS    lora_unet_, lycoris_ or oft_unet_, then under(P) or under(SGM(P)); the last "." of P may stay
//   old diffusers     in attention layers `.processor` before to_q, to_k, to_v, to_out;
//                     `to_out` for `to_out.0`
// A text encoder's module P, each with and without the leading "text_model.":
//   diffusers, PEFT   text_encoder.P, text_encoder_2.P, with base_model.model. as above
//   kohya             lora_te1_ or lora_te_, or lora_te2_, then under(P); the last "." of P may stay
//   OMI               clip_l.P, clip_g.P
//   ComfyUI           text_encoders.clip_l.transformer.P, text_encoders.clip_g.transformer.P
//   old diffusers     to_q, to_k, to_v, to_out for q_proj, k_proj, v_proj, out_proj
// torch.compile's "_orig_mod" between the parts of a name means nothing.
//
// Source   docs/adapters.md names each writer and the version that was read
// Threads  immutable, thread-safe
class KeyMap {
 public:
  // FailedPrecondition if one spelling would mean two modules, naming all three.
  static absl::StatusOr<KeyMap> Build(const ModuleTable& table);

  // The index of the module's weight in the table, or nothing.
  std::optional<size_t> Find(absl::string_view spelling) const;

  // Whether it is a text encoder's module, and the spelling does not say of which: P, base_model.model.P,
  // lycoris_under(P).
  bool LeavesTextEncoderOpen(absl::string_view spelling) const;

  // How many spellings there are.
  size_t size() const { return modules_.size(); }

 private:
  absl::flat_hash_map<std::string, size_t> modules_;
  absl::flat_hash_set<std::string> open_text_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_KEY_MAP_H_
