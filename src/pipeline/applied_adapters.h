#ifndef HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_
#define HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "src/nn/adapter_set.h"
#include "src/nn/weight_merge.h"
#include "src/pipeline/pipeline.h"
#include "src/sdxl/checkpoint_parameters.h"
#include "src/weights/module_table.h"

namespace hotlora {

// Which adapters are merged into which live weights, and how to get from there to another set with the least work: only
// modules whose own list of changes differs are touched, each rebuilt from its clean weight.
//
// Threads  the step thread only
// Memory   holds no adapter: what is in effect is remembered by fingerprint, never by pointer
class AppliedAdapters {
 public:
  // Nothing is in effect. Both arguments outlive this object; one index means the same module in both.
  AppliedAdapters(const ModuleTable& modules, absl::Span<const AdaptableWeight> weights, DoraWeighting dora);

  // Brings `set` into effect and waits until it is. Throws c10::Error (out of memory); the weights are then partly of
  // one set, partly of the other, which the next Apply knows and puts right.
  SwapReport Apply(const AdapterSet& set);

  // True where `module` has no change in effect, so that its live weight must equal the clean one.
  bool IsClean(size_t module) const { return in_effect_[module].has_value() && in_effect_[module]->empty(); }

 private:
  // What a set does to one module.
  struct ModuleChange {
    std::string fingerprint;  // of the changes and their weights, in order; empty: the clean weight
    std::vector<WeightedDelta> deltas;
  };
  std::vector<ModuleChange> ChangesOf(const AdapterSet& set) const;
  void Rebuild(size_t module, const ModuleChange& change);

  const ModuleTable& modules_;
  const absl::Span<const AdaptableWeight> weights_;
  const DoraWeighting dora_;
  std::optional<std::string> set_in_effect_ = "";      // nullopt: an Apply failed half-way
  std::vector<std::optional<std::string>> in_effect_;  // by module; nullopt: a Rebuild failed half-way
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_
