#ifndef HOTLORA_SRC_SCHEDULER_BASE_WATCH_H_
#define HOTLORA_SRC_SCHEDULER_BASE_WATCH_H_

// Checks the base weights, a module at a time, so that nothing waits for long: whenever the step thread has nothing to
// do, now and then between steps, and between all steps while a caller waits for a report.

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/request/model_info.h"

namespace hotlora {

// Thread-safe, but for what is said to be the step thread's.
class BaseWatch {
 public:
  using Done = std::function<void(absl::StatusOr<BaseReport>)>;

  // `on_state` is called, on the step thread, when the base can't be trusted any more (false), and when it can again.
  // `pipeline` and `metrics` outlive this object.
  BaseWatch(Pipeline* pipeline, Metrics* metrics, std::function<void(bool intact)> on_state);

  // Answers when all modules have been checked once from now on; Unavailable (DRAINING) after Close.
  void Report(Done done);

  // Since the start.
  BaseReport total() const;

  // --- the step thread's

  // True if a caller waits for a report, or the last check between steps is long ago.
  bool IsDue() const;

  // Checks the next module. Errors of Pipeline::VerifyNextModule, which end all reports too.
  absl::Status CheckNext();

  // Ends all reports.
  void Close();

 private:
  struct Round {
    BaseReport report;
    Done done;
  };
  // Takes out the rounds that are over.
  std::vector<Round> TakeFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Pipeline* const pipeline_;
  Metrics* const metrics_;
  const std::function<void(bool)> on_state_;

  mutable Mutex mu_;
  BaseReport total_ ABSL_GUARDED_BY(mu_);
  std::vector<Round> rounds_ ABSL_GUARDED_BY(mu_);
  std::vector<bool> corrupt_ ABSL_GUARDED_BY(mu_);  // by the position of a module in the round
  uint32_t next_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time last_check_ ABSL_GUARDED_BY(mu_);  // as SteadyNow
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_BASE_WATCH_H_
