#ifndef HOTLORA_SRC_ADAPTER_FORMAT_PEFT_SCALING_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_PEFT_SCALING_H_

// What PEFT keeps outside an adapter's tensors: the scale of LoRA's modules, the map of OFT's. No LibTorch here.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapter_format/module_patterns.h"
#include "src/base/enum_size.h"
#include "src/weights/module_table.h"

namespace hotlora {

// How OFT's numbers become a rotation, of peft_type OFT. Source: PEFT tuners/oft/layer.py (OFTRotationModule)
struct PeftOft {
  // 0: Cayley's map itself. Otherwise the sum of so many terms instead of it (use_cayley_neumann).
  int neumann_terms = 0;
  bool block_share = false;  // one block for all
};

// What one PEFT configuration, or several in one file, say of ranks and alphas:
//
//   scale = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora
//
// rank_pattern and alpha_pattern override r and lora_alpha, as ModulePatterns says.
//
// Every key of a configuration is either read, or known to change nothing that the tensors do not say (which modules
// were trained, and how), or null, false or empty, as PEFT writes the options that are not used. Any other key may mean
// that the adapter is more than its tensors, so it is an error that names it; so is an init_lora_weights that is not
// known to leave the base weights alone (true, false, gaussian, orthogonal, eva, mica; in any case of letters).
//
// Source   PEFT tuners/lora/config.py, tuners/lora/layer.py (update_layer), tuners/oft/config.py, config.py
// Threads  immutable, thread-safe
class PeftScaling {
 public:
  PeftScaling() = default;

  // `lora_adapter_metadata` of a safetensors header: one JSON object whose keys begin with "unet.", "text_encoder." or
  // "text_encoder_2.", as diffusers' save_lora_weights writes it, or are a configuration's own, for all components, as
  // its save_lora_adapter does. A component without keys has no scale here.
  // FailedPrecondition
  //   ADAPTER_INVALID       not such JSON, numbers out of range, unsound patterns or more than PatternBudget allows
  //   ADAPTER_UNSUPPORTED   more than LoRA, DoRA and OFT: another peft_type, a key or an init_lora_weights (PiSSA, ...)
  //                         that may change more than the tensors say
  static absl::StatusOr<PeftScaling> FromMetadata(absl::string_view json);

  // `adapter_config.json` of a PEFT folder, for all components. The same errors.
  static absl::StatusOr<PeftScaling> FromConfig(absl::string_view json);

  // Whether FromMetadata found one configuration for all components. SimpleTuner writes its last component's so, beside
  // alpha tensors, which are then what counts.
  bool is_shared() const { return is_shared_; }

  // The scale of one module whose tensors have `rank`; nothing if no configuration speaks of its
  // component. FailedPrecondition (ADAPTER_INVALID) if the configuration says another rank.
  absl::StatusOr<std::optional<double>> ScaleOf(const AdaptableModule& module, int64_t rank) const;

  // Nothing if no configuration makes the module's component OFT's.
  const std::optional<PeftOft>& OftOf(const AdaptableModule& module) const;

  // Whether a configuration says that every module of the component has a magnitude (use_dora).
  bool UsesDora(const AdaptableModule& module) const;

 private:
  struct Config {
    std::optional<double> rank;
    double alpha = 8.0;  // PEFT's default if the key is missing
    bool rslora = false;
    bool dora = false;
    std::optional<PeftOft> oft;
    ModulePatterns ranks, alphas;
  };

  template <typename Json>
  static absl::StatusOr<Config> ReadConfig(const Json& json, PatternBudget& budget);
  template <typename Json>
  static absl::StatusOr<PeftOft> ReadOft(const Json& json);
  std::optional<Config> configs_[kEnumSize<Component>];  // by Component
  bool is_shared_ = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_PEFT_SCALING_H_
