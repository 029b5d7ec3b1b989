#include "src/nn/adapter_schedule.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

// What of `ranged` is in effect in that evaluation.
AdapterSet SetAt(const AdapterSet& ranged, uint32_t evaluation, uint32_t evaluations) {
  AdapterSet set;
  for (WeightedAdapter adapter : ranged.adapters) {
    if (!adapter.range.HoldsAny(evaluations)) {
      continue;
    }
    if (!adapter.range.Holds(evaluation, evaluations)) {
      adapter.weight = 0.0;
      adapter.blocks.clear();
    }
    adapter.range = {};
    if (adapter.HasEffect()) {
      set.adapters.push_back(std::move(adapter));
    }
  }
  return set;
}

}  // namespace

AdapterSchedule::AdapterSchedule(AdapterSet set) {
  fingerprint_ = set.Fingerprint();
  parts_.push_back({0, std::move(set), fingerprint_});
}

AdapterSchedule::AdapterSchedule(const AdapterSet& ranged, uint32_t evaluations) {
  const bool whole = std::all_of(ranged.adapters.begin(), ranged.adapters.end(),
                                 [](const WeightedAdapter& adapter) { return adapter.range.whole(); });
  if (whole) {
    *this = AdapterSchedule(ranged);
    return;
  }
  for (uint32_t evaluation = 0; evaluation < evaluations; ++evaluation) {
    const bool as_before =
        evaluation > 0 &&
        std::all_of(ranged.adapters.begin(), ranged.adapters.end(), [&](const WeightedAdapter& adapter) {
          return adapter.range.Holds(evaluation, evaluations) == adapter.range.Holds(evaluation - 1, evaluations);
        });
    if (as_before) {
      continue;
    }
    AdapterSet set = SetAt(ranged, evaluation, evaluations);
    std::string fingerprint = set.Fingerprint();
    if (parts_.empty() || parts_.back().fingerprint != fingerprint) {
      parts_.push_back({evaluation, std::move(set), std::move(fingerprint)});
    }
  }
  fingerprint_ = parts_.front().fingerprint;
  for (size_t i = 1; i < parts_.size(); ++i) {
    absl::StrAppend(&fingerprint_, "@", parts_[i].begin, ":", parts_[i].fingerprint);
  }
}

uint32_t AdapterSchedule::NextChange(uint32_t evaluation) const {
  const auto next =
      std::find_if(parts_.begin(), parts_.end(), [=](const Part& part) { return part.begin > evaluation; });
  return next == parts_.end() ? kNever : next->begin;
}

const AdapterSchedule::Part& AdapterSchedule::at(uint32_t evaluation) const {
  size_t part = parts_.size() - 1;
  while (parts_[part].begin > evaluation) {
    --part;
  }
  return parts_[part];
}

bool FitFromHere(const AdapterSchedule& a, uint32_t next_a, const AdapterSchedule& b, uint32_t next_b,
                 absl::FunctionRef<bool(const AdapterSchedule::Part&, const AdapterSchedule::Part&)> fit) {
  uint32_t passed = 0;
  while (fit(a.at(next_a + passed), b.at(next_b + passed))) {
    const uint32_t change_a = a.NextChange(next_a + passed), change_b = b.NextChange(next_b + passed);
    if (change_a == AdapterSchedule::kNever && change_b == AdapterSchedule::kNever) {
      return true;
    }
    passed = std::min(change_a - next_a, change_b - next_b);
  }
  return false;
}

}  // namespace hotlora
