#include "src/scheduler/row_fit.h"

#include <algorithm>
#include <string>
#include <vector>

namespace hotlora {

std::optional<RegroupReason> RowFit::KeptOutBy(const ImageTask& task) {
  if (RowCount(runs_) == 0) {
    return std::nullopt;  // its own memory is checked when it starts (RunStart)
  }
  MemoryWork step = StepWork(task.job().denoise);
  for (const std::shared_ptr<ImageRun>& run : runs_) {
    if (run->rows.empty()) {
      continue;
    }
    if (!run->job().denoise.same_size(task.job().denoise)) {
      return RegroupReason::kSize;
    }
    step.rows += StepWork(run->job().denoise).rows * static_cast<uint32_t>(run->rows.size());
  }
  if (!CanShareSteps(task)) {
    return RegroupReason::kAdapters;
  }
  const auto [step_fits, first] = step_fits_.try_emplace(step.rows);
  if (first) {
    step_fits->second = memory_->FitsNow(step);
  }
  return step_fits->second ? std::nullopt : std::optional(RegroupReason::kMemory);
}

// A set that has rows already shares their steps with all the others. Merged, it can share them with no other.
bool RowFit::CanShareSteps(const ImageTask& task) const {
  const auto has_same_set = [&task](const std::shared_ptr<ImageRun>& run) {
    return !run->rows.empty() && run->task->fingerprint() == task.fingerprint();
  };
  if (std::any_of(runs_.begin(), runs_.end(), has_same_set)) {
    return true;
  }
  return apply_ != ApplyPolicy::kMerged && task.CheckSet([this](const AdapterSet& set) {
    return std::all_of(runs_.begin(), runs_.end(), [&](const std::shared_ptr<ImageRun>& run) {
      return run->rows.empty() || pipeline_->CanShareStep(run->task->adapter_set(), set);
    });
  });
}

}  // namespace hotlora
