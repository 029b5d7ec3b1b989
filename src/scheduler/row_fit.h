#ifndef HOTLORA_SRC_SCHEDULER_ROW_FIT_H_
#define HOTLORA_SRC_SCHEDULER_ROW_FIT_H_

// Does a row of a request fit beside the rows that run?

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "absl/types/span.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_run.h"
#include "src/scheduler/memory_admission.h"

namespace hotlora {

// Whether two images can go through all their steps to come together, one evaluation of each at a time. Where their
// sets differ, they need side branches that the pipeline can mix, which `apply` must allow.
bool CanShareSteps(const Pipeline& pipeline, ApplyPolicy apply, const AdapterSchedule& a, uint32_t next_a,
                   const AdapterSchedule& b, uint32_t next_b);

// Judges all candidates of one free row; for the next row make another. Invariant: all rows that run have one size, and
// any two of them can share their steps to come, whatever sets they come to. A row that fits keeps it so, since it is
// compared with all of them. Every step evaluates all rows once, so rows stay as far apart as they are.
class RowFit {
 public:
  // Nothing of the arguments may change while this object is used.
  RowFit(absl::Span<const std::shared_ptr<ImageRun>> runs, ApplyPolicy apply, const Pipeline* pipeline,
         MemoryAdmission* memory)
      : runs_(runs), apply_(apply), pipeline_(pipeline), memory_(memory) {}

  // Why a row of that pass of `task` may not start now; nullopt if it may.
  std::optional<RegroupReason> KeptOutBy(const ImageTask& task, Pass pass = Pass::kFirst);

 private:
  bool FitsAdapters(const ImageTask& task, Pass pass) const;

  const absl::Span<const std::shared_ptr<ImageRun>> runs_;
  const ApplyPolicy apply_;
  const Pipeline* const pipeline_;
  MemoryAdmission* const memory_;

  // Whether a step of so many rows of the network, and so many with controls, fits: to look takes some tens of
  // microseconds.
  std::map<std::pair<uint32_t, uint32_t>, bool> step_fits_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_ROW_FIT_H_
