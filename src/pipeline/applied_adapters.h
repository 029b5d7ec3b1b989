#ifndef HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_
#define HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

#include "src/nn/adapter_set.h"
#include "src/nn/side_branch.h"
#include "src/nn/weight_merge.h"
#include "src/pipeline/pipeline.h"
#include "src/sdxl/checkpoint_parameters.h"
#include "src/weights/module_table.h"

namespace hotlora {

// The modules whose weights a set is merged into, ascending, with their changes in request order.
struct MergePlan {
  struct Module {
    size_t module;
    std::string fingerprint;  // of the changes and their weights, in order
    std::vector<WeightedDelta> deltas;
  };
  std::vector<Module> modules;
  std::string fingerprint;  // of all of them; empty: the clean weights
};

// A set in side mode: what runs beside the weights, and what has no such form and is merged all the same. Keeps the
// adapters it came from where they are.
struct SidePlan {
  AdapterSet set;
  SideTable table;
  MergePlan merge;
};

// Which adapters are merged into which live weights, and how to get from there to another set with the least work: only
// modules whose own list of changes differs are touched, each rebuilt from its clean weight, on all threads.
//
// Threads  the step thread only
// Memory   holds no adapter: what is in effect is remembered by fingerprint, never by pointer
class AppliedAdapters {
 public:
  // Nothing is in effect. `modules` and `weights` outlive this object; one index means the same module in both.
  AppliedAdapters(const ModuleTable& modules, absl::Span<const AdaptableWeight> weights, DoraWeighting dora);

  // Brings `set` into effect and waits until it is. Throws c10::Error (out of memory); the weights are then partly of
  // one set, partly of the other, which the next call knows and puts right.
  SwapReport Apply(const AdapterSet& set, ApplyMode mode);

  // How `set` runs in side mode. As long as a caller holds it, the next call with this set returns it.
  std::shared_ptr<const SidePlan> SideOf(const AdapterSet& set);

  // Makes the live weights what the plan needs; as Apply.
  SwapReport Merge(const MergePlan& plan);

  // MergePlan::fingerprint of the set in side mode, without the work of a plan.
  std::string SideMergeFingerprint(const AdapterSet& set) const {
    return Plan(set, ApplyMode::kSide, nullptr).fingerprint;
  }

  // The live weight of `module` may be anything: the next call rebuilds it, whatever the set.
  void Forget(size_t module) {
    ++repairs_;
    in_effect_[module] = std::nullopt;
    merged_ = std::nullopt;
    last_applied_ = std::nullopt;
  }

  // How often Forget was called: what was computed under a set before has perhaps not met its weights.
  uint64_t repairs() const { return repairs_; }

  // True if `module` has no change in effect, so that its live weight must equal the clean one.
  bool IsClean(size_t module) const { return in_effect_[module].has_value() && in_effect_[module]->empty(); }

 private:
  // What to merge in that mode; the rest goes into `table`, if there is one.
  MergePlan Plan(const AdapterSet& set, ApplyMode mode, SideTable* table) const;

  // What a module is to become: nullptr: the clean weight.
  struct Change {
    size_t module;
    const MergePlan::Module* merged;
  };
  double Rebuild(absl::Span<const Change> changes);  // all in one pass; returns its seconds

  const ModuleTable& modules_;
  const std::vector<Component> components_;  // by module
  const absl::Span<const AdaptableWeight> weights_;
  const DoraWeighting dora_;
  std::optional<std::string> last_applied_ =
      "";                                   // what Apply brought into effect, with its mode; nullopt: undone since
  std::optional<std::string> merged_ = "";  // MergePlan::fingerprint in effect; nullopt: a Merge failed half-way
  std::vector<std::optional<std::string>> in_effect_;  // by module; nullopt: its rebuild failed half-way
  uint64_t repairs_ = 0;
  absl::flat_hash_map<std::string, std::weak_ptr<const SidePlan>> side_plans_;  // by the set's fingerprint
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_APPLIED_ADAPTERS_H_
