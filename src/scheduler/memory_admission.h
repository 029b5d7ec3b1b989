#ifndef HOTLORA_SRC_SCHEDULER_MEMORY_ADMISSION_H_
#define HOTLORA_SRC_SCHEDULER_MEMORY_ADMISSION_H_

// Is there memory for this step, this decode, this encode? Kernels that run out of memory do not always say so: some
// libraries then use code that they could not make, and the process ends by a signal. So work that may not fit is never
// begun.
//
// What work needs is measured: the most that work of the same size has taken. If there was none yet, it is what the
// work nearest in size has taken, scaled by pixels times rows. Image prompts need at least what their shapes say. All
// get a margin, and head-room for what the measurement does not see. What controls add to a step, before one like it
// was measured, and what embedding them takes follows from shapes (Pipeline::ControlBytesOf).
//
// Decodes and encodes that do not fit alone are done in the VAE's tiled form if that fits. It has figures of its own;
// before a size's first one, what the pipeline says.

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "src/base/mutex.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/request/image_job.h"

namespace hotlora {

// A call of the pipeline. Calls of equal fields need about the same.
struct MemoryWork {
  enum class Kind { kText, kInit, kHint, kImagePrompt, kStep, kDecode };

  Kind kind = Kind::kStep;
  uint32_t width = 0, height = 0;  // pixels; of texts the chunks, and 1; of image prompts the pictures, and 1
  uint32_t rows = 1;               // of the network: an image under guidance has two; of hints the pictures
  uint32_t control_rows = 0;       // of steps: rows for which ControlNets have outputs, one that has two twice
  int64_t answer_bytes = 0;        // of messages that are made of it, beside what the call takes
  int64_t kept_bytes = 0;          // of what the call takes: what stays until later calls; not a matter of the size
  int64_t shape_bytes = 0;         // what shapes say that the call takes beside those, no less; 0: nothing is known
  VaeForm form = VaeForm::kWhole;  // of inits and decodes
};

MemoryWork TextWork(const Prompts& prompts);
MemoryWork InitWork(const DenoiseOptions& options);
MemoryWork HintWork(const DenoiseOptions& options, size_t controls);
MemoryWork ImagePromptWork(const ImagePromptInputs& inputs, const ImagePromptBytes& bytes);
MemoryWork StepWork(const DenoiseOptions& options, uint32_t controls = 0);  // of one image, with so many in force
MemoryWork StepWork(const Row& row);                                        // of its next evaluation
MemoryWork DecodeWork(const DenoiseOptions& options);                       // an image that goes on to the second pass
MemoryWork DecodeWork(const ImageJob& job);                                 // a finished image

// Thread-safe.
class MemoryAdmission {
 public:
  // Over what was measured: calls of one size differ by their adapters and prompts, sizes by what does not grow with
  // them.
  static constexpr double kMargin = 1.25;
  // Beside it, for what the measurement does not see. Under a limit of addresses a thread that allocates for the
  // first time takes 64 MiB for its heap and 8 MiB for its stack: one such thread at any time, and the step and the
  // decode thread (145 MiB were measured) with the code of a size's kernels (8 to 13 MiB for each thread of a step)
  // when a size runs first.
  static constexpr int64_t kHeadRoom = int64_t{96} << 20;
  static constexpr int64_t kFirstHeadRoom = int64_t{256} << 20;
  // The least recently used size beyond so many is forgotten, and counts as new.
  static constexpr size_t kSizes = 512;

  // `pipeline` and `metrics` outlive this object.
  MemoryAdmission(const Pipeline* pipeline, Metrics* metrics);

  // Whether all that an image of the job goes through fits when nothing else runs. ResourceExhausted (OUT_OF_MEMORY)
  // says what does not, what it needs, what is available, and what to do.
  absl::Status CheckAlone(const ImageJob& job);

  // Whether `work` fits beside what runs now.
  bool FitsNow(const MemoryWork& work);

  // For texts, hints, image prompts and steps: `call()` once there is memory for it. What does not fit beside the work
  // of other threads waits in turn until they are done; what does not fit alone is not called: ResourceExhausted
  // (OUT_OF_MEMORY).
  template <typename Function>
  auto Call(const MemoryWork& work, Function call) -> decltype(call()) {
    return CallVae(work, [&](VaeForm) { return call(); });
  }

  // The same for a decode or an encode: `call(form)`, tiled if it would not fit alone otherwise.
  template <typename Function>
  auto CallVae(MemoryWork work, Function call) -> decltype(call(VaeForm::kWhole)) {
    const absl::StatusOr<Begun> begun = Begin(work);
    if (!begun.ok()) {
      return begun.status();
    }
    std::optional<int64_t> peak;
    const absl::Cleanup end = [&] { End(*begun, work, peak); };  // also if something throws
    const std::unique_ptr<PeakMeter> meter = pipeline_->MeasurePeak();
    auto result = call(work.form);
    if (result.ok()) {
      peak = meter->bytes();
    }
    return result;
  }

 private:
  using Size = std::tuple<MemoryWork::Kind, uint32_t, uint32_t, uint32_t, uint32_t, VaeForm>;
  struct Peak {
    int64_t bytes = 0;
    uint64_t last_use = 0;
  };
  struct Need {
    int64_t bytes = 0;
    int64_t head_room = 0;
    int64_t sum() const { return bytes + head_room; }
  };
  using Begun = std::list<Need>::iterator;

  static Size SizeOf(const MemoryWork& work) {
    return {work.kind, work.width, work.height, work.rows, work.control_rows, work.form};
  }

  absl::StatusOr<Begun> Begin(MemoryWork& work);                               // sets its form
  void End(Begun begun, const MemoryWork& work, std::optional<int64_t> peak);  // nullopt: the call failed

  // Whether `work` is to be done in the tiled form if `available` bytes are all there is. Nothing else decides that.
  bool MustTile(const MemoryWork& work, int64_t available) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Need NeedOf(const MemoryWork& work) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What work of a size that was never measured takes.
  int64_t FirstPeak(const MemoryWork& work) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The most that work of this kind without controls took, scaled from the size nearest to `work`'s; 0 if there was
  // none.
  int64_t Scaled(MemoryWork::Kind kind, const MemoryWork& work) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `need` and what all calls under way need.
  int64_t Sum(const Need& need) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What is available now. While no call is under way it is noted, and if it is less than `wanted`, caches are given
  // back.
  int64_t Look(int64_t wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Pipeline* const pipeline_;
  Metrics* const metrics_;

  Mutex mu_;
  CondVar changed_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 0;  // of the next Begin
  uint64_t turn_ ABSL_GUARDED_BY(mu_) = 0;         // the ticket that may begin
  std::list<Need> under_way_ ABSL_GUARDED_BY(mu_);
  std::map<Size, Peak> peaks_ ABSL_GUARDED_BY(mu_);
  uint64_t uses_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t idle_available_ ABSL_GUARDED_BY(mu_) = 0;  // when no call was under way last
  int64_t most_needed_ ABSL_GUARDED_BY(mu_) = 0;     // of what was begun
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_MEMORY_ADMISSION_H_
