#ifndef HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_
#define HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_

// Which rows run in the next denoising step? ("Scheduler" here batches steps; noise schedules live in sampling/.) One
// step thread takes ready requests from the queue, brings their adapters into effect, encodes, and fills each batch
// plan, for now with the rows of one request at a time. Finished rows go to the decode thread.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#include "src/admission/request_queue.h"
#include "src/base/serial_executor.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_task.h"

namespace hotlora {

struct StepSchedulerOptions {
  uint32_t max_batch = 4;                   // rows per step
  ApplyPolicy apply = ApplyPolicy::kAuto;   // --apply
  std::function<void()> on_device_failure;  // runs once, when the device is lost
};

class StepScheduler {
 public:
  // Starts the threads, which warm up first. All arguments outlive the scheduler.
  StepScheduler(StepSchedulerOptions options, RequestQueue* queue, Pipeline* pipeline, Metrics* metrics);
  ~StepScheduler();  // after RequestQueue::Stop: finishes what is decoding, joins

  // Blocks until the warm-up is over: a short generation without adapters, with and without guidance, that gives the
  // step baselines of one row at the model's native size.
  absl::Status AwaitWarmUp();

  // Ends a task that does not run (cancelled while it waited, its adapters failed) or that has run to its end. No
  // effect where another thread ends it already.
  void End(const std::shared_ptr<ImageTask>& task, const absl::Status& status, double run_seconds = 0.0);

 private:
  struct Run;  // a task on the step thread and, later, on the decode thread

  // One request runs at a time, so its set has the device to itself.
  ApplyMode mode() const { return ModeFor(options_.apply, /*mixed=*/false); }

  void StepThread();
  void VerifyWhileIdle();
  absl::Status WarmUp();
  absl::Status MeasureBaseline(bool cfg);

  void RunTask(const std::shared_ptr<ImageTask>& task);
  absl::Status Prepare(Run& run);
  absl::Status ApplyAdapters(Run& run);
  absl::Status Denoise(const std::shared_ptr<Run>& run);
  absl::Status DenoiseRows(Run& run, uint32_t first_image, std::vector<std::unique_ptr<Row>>& rows);
  absl::StatusOr<std::string> Preview(const Row& row);
  void Decode(Run& run, uint32_t image, std::unique_ptr<Row> row);
  void FinishRun(Run& run, const absl::Status& status);
  void NoticeDeviceFailure(const absl::Status& status);

  const StepSchedulerOptions options_;
  RequestQueue* const queue_;
  Pipeline* const pipeline_;
  Metrics* const metrics_;

  absl::Notification warmed_up_;
  absl::Status warm_up_status_;  // set before warmed_up_

  absl::Mutex mu_;
  uint32_t decoding_ ABSL_GUARDED_BY(mu_) = 0;  // runs on the decode thread
  bool device_failed_ ABSL_GUARDED_BY(mu_) = false;

  SerialExecutor decode_thread_;
  std::thread step_thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_STEP_SCHEDULER_H_
