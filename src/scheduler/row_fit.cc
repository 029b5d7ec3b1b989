#include "src/scheduler/row_fit.h"

#include <algorithm>
#include <string>
#include <vector>

namespace hotlora {

std::optional<RegroupReason> RowFit::KeptOutBy(const ImageTask& task, Pass pass) {
  if (RowCount(runs_) == 0) {
    return std::nullopt;  // its own memory is checked when it starts (RunStart)
  }
  MemoryWork step = StepWork(task.job().options(pass), task.job().controls_at(0, pass));
  for (const std::shared_ptr<ImageRun>& run : runs_) {
    for (const RunningRow& row : run->rows) {
      if (!row.row->denoise().same_size(task.job().options(pass))) {
        return RegroupReason::kSize;
      }
      const MemoryWork other = StepWork(*row.row);
      step.rows += other.rows;
      step.control_rows += other.control_rows;
    }
  }
  if (!FitsAdapters(task, pass)) {
    return RegroupReason::kAdapters;
  }
  const auto [step_fits, first] = step_fits_.try_emplace({step.rows, step.control_rows});
  if (first) {
    step_fits->second = memory_->FitsNow(step);
  }
  return step_fits->second ? std::nullopt : std::optional(RegroupReason::kMemory);
}

// A request whose adapters are those of a row that is as far as it is shares all that this row shares. Merged,
// different sets share nothing. Otherwise the rows of a run are looked at one by one only if their sets change.
bool RowFit::FitsAdapters(const ImageTask& task, Pass pass) const {
  const std::string& fingerprint = task.fingerprint(pass);
  std::vector<const Row*> rows;
  for (const std::shared_ptr<ImageRun>& run : runs_) {
    for (const RunningRow& row : run->rows) {
      const bool constant = row.row->adapters().constant();
      if ((constant || row.row->evaluations() == 0) && row.row->adapters().fingerprint() == fingerprint) {
        return true;
      }
      rows.push_back(row.row.get());
      if (run->HasOneSet(row)) {
        break;
      }
    }
  }
  return task.CheckAdapters(
      [&](const AdapterSchedule& adapters) {
        return std::all_of(rows.begin(), rows.end(), [&](const Row* row) {
          return CanShareSteps(*pipeline_, apply_, row->adapters(), row->evaluations(), adapters, 0);
        });
      },
      pass);
}

bool CanShareSteps(const Pipeline& pipeline, ApplyPolicy apply, const AdapterSchedule& a, uint32_t next_a,
                   const AdapterSchedule& b, uint32_t next_b) {
  const auto fit = [&](const AdapterSchedule::Part& part_a, const AdapterSchedule::Part& part_b) {
    return part_a.fingerprint == part_b.fingerprint ||
           (apply != ApplyPolicy::kMerged && pipeline.CanShareStep(part_a.set, part_b.set));
  };
  return FitFromHere(a, next_a, b, next_b, fit);
}

}  // namespace hotlora
