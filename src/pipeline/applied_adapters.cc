#include "src/pipeline/applied_adapters.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

#include "src/tensor/device.h"

namespace hotlora {

AppliedAdapters::AppliedAdapters(const ModuleTable& modules, absl::Span<const AdaptableWeight> weights,
                                 DoraWeighting dora)
    : modules_(modules), weights_(weights), dora_(dora), in_effect_(weights.size(), "") {}

SwapReport AppliedAdapters::Apply(const AdapterSet& set) {
  SwapReport report;
  std::string fingerprint = set.Fingerprint();
  if (set_in_effect_ == fingerprint) {
    return report;
  }
  report.changed = true;
  set_in_effect_ = std::nullopt;
  const std::vector<ModuleChange> changes = ChangesOf(set);
  const auto rebuild_where = [&](bool merged, uint32_t& count) {
    const absl::Time start = absl::Now();
    for (size_t module = 0; module < changes.size(); ++module) {
      if (in_effect_[module] != changes[module].fingerprint && changes[module].deltas.empty() != merged) {
        Rebuild(module, changes[module]);
        ++count;
      }
    }
    if (count > 0) {
      Synchronize(weights_.front().live.device());
    }
    return absl::ToDoubleSeconds(absl::Now() - start);
  };
  report.restore_seconds = rebuild_where(false, report.modules_restored);
  report.apply_seconds = rebuild_where(true, report.modules_merged);
  set_in_effect_ = std::move(fingerprint);
  return report;
}

std::vector<AppliedAdapters::ModuleChange> AppliedAdapters::ChangesOf(const AdapterSet& set) const {
  std::vector<ModuleChange> changes(weights_.size());
  for (const WeightedAdapter& adapter : set.adapters) {
    const auto named = [&adapter](double weight) { return absl::StrFormat("%s:%a;", adapter.content_sha256, weight); };
    const std::string on_unet = named(adapter.weight), on_text = named(adapter.text_encoder_weight);
    for (const ModuleDelta& delta : adapter.weights->deltas) {
      const bool unet = modules_.modules[delta.module].component == Component::kUnet;
      const double weight = unet ? adapter.weight : adapter.text_encoder_weight;
      if (weight != 0.0) {
        changes[delta.module].deltas.push_back({&delta, weight});
        changes[delta.module].fingerprint += unet ? on_unet : on_text;
      }
    }
  }
  return changes;
}

void AppliedAdapters::Rebuild(size_t module, const ModuleChange& change) {
  in_effect_[module] = std::nullopt;
  at::Tensor live = weights_[module].live;
  MergeWeight(live, weights_[module].clean, change.deltas, dora_);
  in_effect_[module] = change.fingerprint;
}

}  // namespace hotlora
