#ifndef HOTLORA_SRC_SCHEDULER_RUN_START_H_
#define HOTLORA_SRC_SCHEDULER_RUN_START_H_

// What happens between taking a request from the queue and its first step: its adapters take effect, its texts are
// encoded, the pictures of its controls and image prompts go through their networks, what that took goes into its
// summary and the metrics, and its images get rows, also for a second pass.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/adapter_swaps.h"
#include "src/scheduler/image_run.h"
#include "src/scheduler/memory_admission.h"

namespace hotlora {

// Not thread-safe: the step thread's.
class RunStart {
 public:
  // All arguments outlive this object.
  RunStart(Pipeline* pipeline, MemoryAdmission* memory, AdapterSwaps* swaps, Metrics* metrics)
      : pipeline_(pipeline), memory_(memory), swaps_(swaps), metrics_(metrics) {}

  // Gives `run` its conditioning, the task's init latents, its controls and its image prompts. `running`: fingerprints
  // of the sets that have rows. After an error the run must end:
  //   Cancelled, DeadlineExceeded   the request is not wanted any more (ImageTask::Wanted)
  //   ResourceExhausted             OUT_OF_MEMORY
  //   others                        of Pipeline::Apply and Encode
  absl::Status Prepare(ImageRun& run, ApplyMode mode, absl::Span<const std::string> running);

  // Gives the next image of `run` a row. An error becomes the run's status; a run that has failed already gets no row.
  // REQUIRES: run.has_images_to_start().
  void StartRow(ImageRun& run);

  // The same of the second pass of an image. REQUIRES: run.to_refine is not empty.
  void StartSecondPass(ImageRun& run);

 private:
  void AddRow(ImageRun& run, uint32_t image, Pass pass, std::shared_ptr<const InitLatents> init);
  absl::Status Encode(ImageRun& run, ApplyMode mode);
  // Null if the request has none.
  absl::StatusOr<std::shared_ptr<const Controls>> EmbedControls(const ImageTask& task, Pass pass,
                                                                std::vector<RgbImage> pictures);
  absl::StatusOr<std::shared_ptr<const ImagePrompts>> EncodeImagePrompts(ImageTask& task);

  Pipeline* const pipeline_;
  MemoryAdmission* const memory_;
  AdapterSwaps* const swaps_;
  Metrics* const metrics_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_RUN_START_H_
