#ifndef HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_
#define HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_

// Which rows run in the next denoising step? ("Scheduler" here batches steps; noise schedules live in sampling/.) One
// step thread pulls ready requests from the queue at every step boundary, brings their adapters into effect, encodes,
// and steps the rows of all that run in one call of the network, each at its own timestep. Finished rows go to the
// decode line. With a hires pass, it makes of them what the second pass begins with, and they come back for a row.
//
// Rows of one size share a step, up to max_batch of them. While adapters are merged they are of one adapter set, which
// may change from step to step; with side branches of any sets that the pipeline can mix. batch_policy.h decides which
// request gets a free row.

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"

#include "src/base/mutex.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/adapter_swaps.h"
#include "src/scheduler/apply_mode_chooser.h"
#include "src/scheduler/base_watch.h"
#include "src/scheduler/batch_policy.h"
#include "src/scheduler/cost_book.h"
#include "src/scheduler/decode_line.h"
#include "src/scheduler/image_run.h"
#include "src/scheduler/image_task.h"
#include "src/scheduler/memory_admission.h"
#include "src/scheduler/request_queue.h"
#include "src/scheduler/run_start.h"
#include "src/scheduler/step_report.h"

namespace hotlora {

class StepScheduler {
 public:
  // Functions that the scheduler's threads call; each may be empty.
  struct Events {
    std::function<void()> on_device_failure;         // once, when the device is lost
    std::function<void(bool intact)> on_base_state;  // BaseWatch
    std::function<void()> on_release;                // a request has given its files back; must not wait
  };

  // Starts the threads, which warm up first. `queue`, `pipeline` and `metrics` outlive the scheduler.
  StepScheduler(const BatchOptions& options, Events events, RequestQueue* queue, Pipeline* pipeline, Metrics* metrics);
  ~StepScheduler();  // after RequestQueue::Stop: finishes what is decoding, joins

  // Blocks until the warm-up is over.
  absl::Status AwaitWarmUp();

  // Whether there is memory for what a request does.
  MemoryAdmission& memory() { return memory_; }

  // What steps and swaps have cost.
  CostReport costs() const { return costs_.Report(); }

  // Where init images are encoded.
  DecodeLine& decode_line() { return decode_line_; }

  // Checks of the base weights.
  BaseWatch& base_watch() { return base_watch_; }
  const BaseWatch& base_watch() const { return base_watch_; }

  // Ends a task that does not run (cancelled while it waited, its adapters failed) or that has run to its end. No
  // effect if another thread has ended it.
  void End(const std::shared_ptr<ImageTask>& task, const absl::Status& status, double run_seconds = 0.0);

 private:
  using RunPtr = std::shared_ptr<ImageRun>;
  struct Candidate;  // a request that may get a free row: one that runs, or one that is ready

  void StepThread();
  void AwaitWork();
  bool DecodesPileUp() const;
  void CheckBase();

  // --- who runs
  void FillRows();
  std::vector<Candidate> Candidates() const;
  void CountRegroup(ImageTask& task, RegroupReason reason);
  RunPtr Start(const std::shared_ptr<ImageTask>& task);
  void TakeRefined();
  void DropEnded();

  // --- how adapters take effect
  void ChooseModeFor(const ImageTask& joining, Pass pass = Pass::kFirst);
  bool AnotherSetIsReady(const ImageTask& joining, Pass pass) const;
  void TakeUpMode();

  // --- steps
  void StepAll();
  void StepTogether(absl::Span<const RowRef> rows);
  void HandOnFinishedRows();
  void NoticeDeviceFailure(const absl::Status& status);

  const BatchOptions options_;
  const Events events_;
  RequestQueue* const queue_;
  Pipeline* const pipeline_;
  Metrics* const metrics_;

  absl::Notification warmed_up_;
  absl::Status warm_up_status_;  // set before warmed_up_

  // The step thread's.
  std::vector<RunPtr> runs_;  // that have rows, images to start, or images between their passes
  ApplyModeChooser mode_chooser_;
  uint32_t row_limit_;  // rows in one call; less than max_batch after one ran out of memory

  Mutex mu_;
  bool device_failed_ ABSL_GUARDED_BY(mu_) = false;

  MemoryAdmission memory_;
  CostBook costs_;
  AdapterSwaps swaps_;
  RunStart run_start_;
  StepReport step_report_;
  BaseWatch base_watch_;
  DecodeLine decode_line_;
  std::thread step_thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_
