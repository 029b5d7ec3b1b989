#include "src/pipeline/applied_adapters.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <ATen/ops/empty.h>

#include "src/base/stopwatch.h"
#include "src/nn/block_layout.h"
#include "src/nn/grouped_merge.h"
#include "src/tensor/device.h"

namespace hotlora {
namespace {

// One change of one module by one adapter of a set.
struct SetChange {
  size_t module;
  size_t adapter;  // index in the set
  WeightedDelta delta;
};

// By module, then in request order.
std::vector<SetChange> ChangesOf(const AdapterSet& set, const ModuleTable& table,
                                 absl::Span<const Component> components) {
  std::vector<SetChange> changes;
  for (size_t i = 0; i < set.adapters.size(); ++i) {
    const WeightedAdapter& adapter = set.adapters[i];
    changes.reserve(changes.size() + adapter.weights->deltas.size());
    for (const ModuleDelta& delta : adapter.weights->deltas) {
      const bool unet = components[delta.module] == Component::kUnet;
      double weight = unet ? adapter.weight : adapter.text_encoder_weight;
      if (unet && !adapter.blocks.empty()) {
        weight = WeightOfModule(adapter.blocks, adapter.weight, table.modules[delta.module].path);
      }
      if (weight != 0.0) {
        changes.push_back({delta.module, i, {&delta, weight}});
      }
    }
  }
  if (set.adapters.size() > 1) {
    std::stable_sort(changes.begin(), changes.end(),
                     [](const SetChange& a, const SetChange& b) { return a.module < b.module; });
  }
  return changes;
}

// The modules' components side by side: a swap looks at hundreds of them.
std::vector<Component> ComponentsOf(const ModuleTable& table) {
  std::vector<Component> components;
  components.reserve(table.modules.size());
  for (const AdaptableModule& module : table.modules) {
    components.push_back(module.component);
  }
  return components;
}

// The set with every adapter on `device`. One that is in the host tier alone (--adapter-device-bytes 0) is copied there
// as one block, which lives as long as the result.
AdapterSet OnDevice(const AdapterSet& set, c10::Device device) {
  AdapterSet there = set;
  for (WeightedAdapter& adapter : there.adapters) {
    const at::Tensor& block = adapter.weights->block;
    if (block.defined() && block.device() != device) {
      adapter.weights = CopyToSlab(*adapter.weights, at::empty(block.sizes(), block.options().device(device)), 0);
    }
  }
  return there;
}

}  // namespace

AppliedAdapters::AppliedAdapters(const ModuleTable& modules, absl::Span<const AdaptableWeight> weights,
                                 DoraWeighting dora)
    : modules_(modules),
      components_(ComponentsOf(modules)),
      weights_(weights),
      dora_(dora),
      in_effect_(weights.size(), "") {}

SwapReport AppliedAdapters::Apply(const AdapterSet& set, ApplyMode mode) {
  const bool side = mode == ApplyMode::kSide;
  std::string wanted = set.Fingerprint();
  if (side && !wanted.empty()) {
    wanted.insert(0, "side;");
  }
  if (merged_.has_value() && last_applied_ == wanted) {
    return {};
  }
  MergePlan plan = side ? Plan(set, mode, nullptr) : MergePlan();
  AdapterSet there;                      // the plan points into it
  if (!side || !plan.modules.empty()) {  // otherwise there is nothing to merge, and SideOf copies the set
    there = OnDevice(set, weights_.front().live.device());
    plan = Plan(there, mode, nullptr);
  }
  SwapReport report = Merge(std::move(plan));
  report.changed = true;
  last_applied_ = std::move(wanted);
  return report;
}

std::shared_ptr<const SidePlan> AppliedAdapters::SideOf(const AdapterSet& set) {
  absl::erase_if(side_plans_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<const SidePlan>& known = side_plans_[set.Fingerprint()];
  std::shared_ptr<const SidePlan> plan = known.lock();
  if (plan == nullptr) {
    auto made = std::make_shared<SidePlan>();
    made->set = OnDevice(set, weights_.front().live.device());
    made->merge = Plan(made->set, ApplyMode::kSide, &made->table);
    plan = std::move(made);
    known = plan;
  }
  return plan;
}

MergePlan AppliedAdapters::Plan(const AdapterSet& set, ApplyMode mode, SideTable* table) const {
  const std::vector<SetChange> changes = ChangesOf(set, modules_, components_);
  MergePlan plan;
  if (table != nullptr) {
    table->Reserve(changes.size());
  }
  std::vector<WeightedDelta> deltas;
  for (size_t begin = 0, end; begin < changes.size(); begin = end) {
    const size_t module = changes[begin].module;
    deltas.clear();
    for (end = begin; end < changes.size() && changes[end].module == module; ++end) {
      deltas.push_back(changes[end].delta);
    }
    if (mode == ApplyMode::kSide && HasSideForm(deltas)) {
      if (table != nullptr) {
        table->Add(module, deltas, weights_[module].clean, dora_);
      }
      continue;
    }
    MergePlan::Module& merged = plan.modules.emplace_back(MergePlan::Module{module, "", deltas});
    for (size_t i = begin; i < end; ++i) {
      absl::StrAppendFormat(&merged.fingerprint, "%s:%a;", set.adapters[changes[i].adapter].content_sha256,
                            changes[i].delta.weight);
    }
    if (mode == ApplyMode::kSide) {
      absl::StrAppend(&plan.fingerprint, module, "=", merged.fingerprint);
    }
  }
  if (mode == ApplyMode::kMerged) {
    plan.fingerprint = set.Fingerprint();
  }
  return plan;
}

SwapReport AppliedAdapters::Merge(const MergePlan& plan) {
  SwapReport report;
  if (merged_ == plan.fingerprint) {
    return report;
  }
  report.changed = true;
  merged_ = std::nullopt;
  last_applied_ = std::nullopt;
  std::vector<Change> changes;
  double elements[2] = {0.0, 0.0};  // to restore, to merge
  size_t next = 0;
  for (size_t module = 0; module < in_effect_.size(); ++module) {
    const bool planned = next < plan.modules.size() && plan.modules[next].module == module;
    const MergePlan::Module* const merged = planned ? &plan.modules[next++] : nullptr;
    if (in_effect_[module] != (planned ? merged->fingerprint : std::string())) {
      changes.push_back({module, merged});
      elements[planned ? 1 : 0] += static_cast<double>(weights_[module].live.numel());
      ++(planned ? report.modules_merged : report.modules_restored);
    }
  }
  const double seconds = Rebuild(changes);
  const double all = elements[0] + elements[1];
  report.restore_seconds = all > 0.0 ? seconds * elements[0] / all : 0.0;
  report.apply_seconds = all > 0.0 ? seconds * elements[1] / all : 0.0;
  merged_ = plan.fingerprint;
  return report;
}

double AppliedAdapters::Rebuild(absl::Span<const Change> changes) {
  if (changes.empty()) {
    return 0.0;
  }
  const Stopwatch stopwatch;
  std::vector<WeightToMerge> merges;
  merges.reserve(changes.size());
  for (const auto& [module, merged] : changes) {
    in_effect_[module] = std::nullopt;
    merges.push_back({weights_[module].live, weights_[module].clean,
                      merged == nullptr ? absl::Span<const WeightedDelta>() : absl::MakeConstSpan(merged->deltas)});
  }
  MergeWeights(merges, dora_);
  Synchronize(weights_.front().live.device());
  for (const auto& [module, merged] : changes) {
    in_effect_[module] = merged == nullptr ? "" : merged->fingerprint;
  }
  return stopwatch.Seconds();
}

}  // namespace hotlora
