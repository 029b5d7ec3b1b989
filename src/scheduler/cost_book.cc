#include "src/scheduler/cost_book.h"

#include <algorithm>
#include <cmath>

namespace hotlora {

void CostBook::Costs::Add(double seconds) {
  last.push_back(seconds);
  if (last.size() > kKept) {
    last.pop_front();
  }
  ++count;
}

double CostBook::Costs::Median() const {
  std::vector<double> sorted(last.begin(), last.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

void CostBook::AddStep(const StepKind& kind, double seconds) {
  MutexLock lock(&mu_);
  Costs& costs = step_costs_[kind];
  costs.Add(seconds);
  costs.seen = ++steps_;
  if (step_costs_.size() > kKinds) {
    step_costs_.erase(std::min_element(step_costs_.begin(), step_costs_.end(),
                                       [](const auto& a, const auto& b) { return a.second.seen < b.second.seen; }));
  }
}

void CostBook::AddSwap(const SwapKind& kind, double seconds) {
  MutexLock lock(&mu_);
  swap_costs_[kind].Add(seconds);
}

void CostBook::AddApply(const SwapReport& report, ApplyMode mode) {
  if (mode == ApplyMode::kMerged && report.modules_merged > 0) {
    MutexLock lock(&mu_);
    merge_costs_.Add(report.restore_seconds + report.apply_seconds);
  }
}

std::optional<double> CostBook::StepSeconds(const StepKind& kind) const {
  const auto found = step_costs_.find(kind);
  if (found == step_costs_.end() || found->second.last.size() < kLeastSteps ||
      steps_ - found->second.seen > kFreshSteps) {
    return std::nullopt;
  }
  return found->second.Median();
}

uint32_t CostBook::StepsBeforeMerging(uint32_t width, uint32_t height, absl::Span<const RowWork> rows) const {
  StepKind merged{width, height, 0, /*side=*/false};
  for (const RowWork& row : rows) {
    merged.network_rows += row.network_rows;
  }
  StepKind side = merged;
  side.side = true;
  MutexLock lock(&mu_);
  const std::optional<double> beside = StepSeconds(side), without = StepSeconds(merged);
  if (!beside.has_value() || !without.has_value() || merge_costs_.last.empty()) {
    steps_before_merging_ = kDefaultStepsBeforeMerging;
    return steps_before_merging_;
  }
  // A loss of 0 or less is worth no merge at all: the quotient is then the limit.
  const double lost = std::max(*beside - *without, 1e-9);
  const double steps = std::ceil(merge_costs_.Median() / lost);
  steps_before_merging_ = static_cast<uint32_t>(std::clamp<double>(steps, 1.0, kMostStepsBeforeMerging));
  return steps_before_merging_;
}

std::optional<double> CostBook::SecondsInCalls(uint32_t width, uint32_t height, absl::Span<const RowWork> rows,
                                               size_t per_call) const {
  double sum = 0.0;
  for (; !rows.empty(); rows.remove_prefix(std::min(per_call, rows.size()))) {
    StepKind call{width, height, 0, false};
    for (const RowWork& row : rows.subspan(0, per_call)) {
      call.network_rows += row.network_rows;
      call.side |= row.side;
    }
    const std::optional<double> seconds = StepSeconds(call);
    if (!seconds.has_value()) {
      return std::nullopt;
    }
    sum += *seconds;
  }
  return sum;
}

size_t CostBook::RowsPerCall(uint32_t width, uint32_t height, absl::Span<const RowWork> rows) {
  if (rows.size() <= 1) {
    return rows.size();
  }
  MutexLock lock(&mu_);
  const std::optional<double> together = SecondsInCalls(width, height, rows, rows.size());
  size_t best = rows.size();
  double least = together.value_or(0.0);
  if (!taking_turns_) {
    least -= std::max(kTurnsGain * least, kTurnsGainSeconds);
  }
  for (size_t per_call = 1; together.has_value() && per_call < rows.size(); ++per_call) {
    const std::optional<double> seconds = SecondsInCalls(width, height, rows, per_call);
    if (seconds.has_value() && *seconds < least) {
      least = *seconds;
      best = per_call;
    }
  }
  taking_turns_ = best < rows.size();
  return best;
}

CostReport CostBook::Report() const {
  MutexLock lock(&mu_);
  CostReport report;
  for (const auto& [kind, costs] : step_costs_) {
    report.steps.push_back({kind, costs.Median(), costs.count});
  }
  for (const auto& [kind, costs] : swap_costs_) {
    report.swaps.push_back({kind, costs.Median(), costs.count});
  }
  report.steps_before_merging = steps_before_merging_;
  report.taking_turns = taking_turns_;
  return report;
}

}  // namespace hotlora
