#ifndef HOTLORA_SRC_SCHEDULER_IMAGE_RUN_H_
#define HOTLORA_SRC_SCHEDULER_IMAGE_RUN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "src/base/mutex.h"
#include "src/base/stopwatch.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_task.h"

namespace hotlora {

// One image that is being denoised.
struct RunningRow {
  uint32_t image = 0;
  Pass pass = Pass::kFirst;
  std::unique_ptr<Row> row;
  double step_seconds = 0.0;  // since its last step was done
};

// An image whose first pass is done, and what its second one begins with.
struct RefinedImage {
  uint32_t image = 0;
  absl::StatusOr<std::shared_ptr<const InitLatents>> init;
  Stopwatch since_ready;
};

// Where the decode thread puts refined images, and the step thread takes them. Thread-safe.
class RefinedImages {
 public:
  void Put(RefinedImage image) {
    MutexLock lock(&mu_);
    images_.push_back(std::move(image));
  }
  std::vector<RefinedImage> TakeAll() {
    MutexLock lock(&mu_);
    return std::exchange(images_, {});
  }

 private:
  Mutex mu_;
  std::vector<RefinedImage> images_ ABSL_GUARDED_BY(mu_);
};

// A request from the moment it was taken from the queue. Belongs to the step thread until it is handed to the decode
// line to be finished, but for what is said to be the decode thread's.
struct ImageRun {
  explicit ImageRun(std::shared_ptr<ImageTask> of_task) : task(std::move(of_task)) {}

  const ImageJob& job() const { return task->job(); }
  bool has_images_to_start() const { return next_image < job().num_images; }

  // Whether an image has its second pass before it.
  bool has_second_passes() const { return refining > 0 || !to_refine.empty(); }
  // Whether a row could start now.
  bool wants_row() const { return has_images_to_start() || !to_refine.empty(); }
  // Whether all its rows have the set of `row`, which is one of them, in all their evaluations.
  bool HasOneSet(const RunningRow& row) const { return row.row->adapters().constant() && !job().hires.has_value(); }
  // How long the image that is next in that pass has waited for a row. REQUIRES: there is one.
  absl::Duration Waited(Pass pass) const {
    return absl::Seconds(pass == Pass::kFirst ? task->seconds_since_admitted()
                                              : to_refine.front().since_ready.Seconds());
  }

  std::shared_ptr<ImageTask> task;
  std::shared_ptr<const Conditioning> conditioning;
  std::shared_ptr<const Conditioning> hires_conditioning;  // of the second pass
  std::shared_ptr<const InitLatents> init;                 // nullptr: from noise alone
  std::shared_ptr<const Controls> controls;                // nullptr: none
  std::shared_ptr<const Controls> hires_controls;          // of the second pass
  std::shared_ptr<const ImagePrompts> image_prompts;       // of both passes; nullptr: none
  std::vector<RunningRow> rows;
  uint32_t next_image = 0;  // from here on images have no row yet
  uint32_t refining = 0;    // images on their way through `refined`
  RefinedImages refined;
  std::vector<RefinedImage> to_refine;  // that wait for a row of the second pass
  absl::Status status;                  // why it ends early
  absl::Status decode_status;           // of the first image that failed; the decode thread's
  Stopwatch since_start;
};

// A row with the request it belongs to, and what the row had done when this was made. Valid until the run's rows
// change.
struct RowRef {
  ImageRun* run;
  RunningRow* row;
  uint32_t steps_before = 0;
  uint32_t evaluations_before = 0;
};

// The rows of `runs`, those of one run together.
std::vector<RowRef> RowsOf(absl::Span<const std::shared_ptr<ImageRun>> runs);
size_t RowCount(absl::Span<const std::shared_ptr<ImageRun>> runs);

// Fingerprints of the adapter sets in effect in the rows' next evaluations, each once.
std::vector<std::string> SetsWithRows(absl::Span<const std::shared_ptr<ImageRun>> runs);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_IMAGE_RUN_H_
