#include "src/scheduler/adapter_swaps.h"

#include <algorithm>
#include <utility>

#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/scheduler/request_summary.h"

namespace hotlora {

absl::Status AdapterSwaps::AtStart(ImageTask& task, ApplyMode mode, absl::Span<const std::string> running) {
  const AdapterTier coldest = DescribeAdapters(task);
  const AdapterSchedule::Part& first = task.adapter_schedule().at(0);
  const bool was_in_effect =
      in_effect_ == first.fingerprint || std::find(running.begin(), running.end(), first.fingerprint) != running.end();
  const Stopwatch stopwatch;
  const absl::StatusOr<SwapReport> swap = Apply(first, mode);
  task.summary.adapter_seconds = task.load_seconds() + stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kAdapter, task.summary.adapter_seconds);
  ABSL_RETURN_IF_ERROR(swap.status());
  SwapCost& cost = task.summary.swap;
  cost.changed = !was_in_effect;
  cost.merged = mode == ApplyMode::kMerged;
  cost.apply_seconds = swap->apply_seconds;
  cost.restore_seconds = swap->restore_seconds;
  cost.total_seconds = task.summary.adapter_seconds;
  if (cost.changed) {
    metrics_->CountSwap(true);
    ObserveLoading(cost, coldest, *metrics_);
    ObserveSwap(*swap, coldest, cost.total_seconds, *metrics_);
    costs_->AddSwap({coldest, cost.merged}, cost.total_seconds);
  }
  return absl::OkStatus();
}

absl::Status AdapterSwaps::BeforeStep(absl::Span<const std::shared_ptr<ImageRun>> runs, ApplyMode mode) {
  for (const std::shared_ptr<ImageRun>& run : runs) {
    for (const RunningRow& row : run->rows) {
      if (run->HasOneSet(row)) {
        break;
      }
      if (BringsNewSet(*run, row, mode)) {
        ABSL_RETURN_IF_ERROR(Change(*run->task, row.row->next_adapters(), mode));
      }
    }
  }
  return absl::OkStatus();
}

void AdapterSwaps::NoteStep(std::vector<std::string> sets) {
  last_sets_ = std::move(sets);
  if (in_effect_.has_value()) {
    in_effect_ = last_sets_.back();
  }
}

bool AdapterSwaps::IsInEffect(const std::string& fingerprint, ApplyMode mode) const {
  return in_effect_ == fingerprint ||
         (mode == ApplyMode::kSide && std::find(last_sets_.begin(), last_sets_.end(), fingerprint) != last_sets_.end());
}

// Whether the row has had another set in the last step, or none. The first image's first set has taken effect at the
// start of its request; a later image, and a second pass, may begin while its first set is still in effect.
bool AdapterSwaps::ComesToItsSet(const RunningRow& row, ApplyMode mode) const {
  const uint32_t evaluation = row.row->evaluations();
  return evaluation == 0
             ? (row.image > 0 || row.pass == Pass::kSecond) && !IsInEffect(row.row->next_adapters().fingerprint, mode)
             : row.row->adapters().ChangesAt(evaluation);
}

// Whether `row` is the first of the run's rows that come to its set, and no row of the run is there already.
bool AdapterSwaps::BringsNewSet(const ImageRun& run, const RunningRow& row, ApplyMode mode) const {
  const RunningRow* first = nullptr;
  for (const RunningRow& other : run.rows) {
    if (other.pass != row.pass || other.row->next_adapters().begin != row.row->next_adapters().begin) {
      continue;
    }
    if (!ComesToItsSet(other, mode)) {
      return false;
    }
    first = first == nullptr ? &other : first;
  }
  return first == &row;
}

absl::Status AdapterSwaps::Change(ImageTask& task, const AdapterSchedule::Part& adapters, ApplyMode mode) {
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(const SwapReport swap, Apply(adapters, mode));
  const double seconds = stopwatch.Seconds();
  task.summary.adapter_seconds += seconds;
  SwapCost& cost = task.summary.swap;
  cost.changed = true;
  cost.apply_seconds += swap.apply_seconds;
  cost.restore_seconds += swap.restore_seconds;
  cost.total_seconds += seconds;
  metrics_->CountSwap(true);
  ObserveSwap(swap, AdapterTier::kDevice, seconds, *metrics_);
  return absl::OkStatus();
}

absl::StatusOr<SwapReport> AdapterSwaps::Apply(const AdapterSchedule::Part& adapters, ApplyMode mode) {
  absl::StatusOr<SwapReport> swap = pipeline_->Apply(adapters.set, mode);
  if (swap.ok()) {
    in_effect_ = adapters.fingerprint;
    costs_->AddApply(*swap, mode);
  } else {
    in_effect_ = std::nullopt;
    metrics_->CountSwap(false);
  }
  return swap;
}

}  // namespace hotlora
