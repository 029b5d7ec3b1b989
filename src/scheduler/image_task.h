#ifndef HOTLORA_SRC_SCHEDULER_IMAGE_TASK_H_
#define HOTLORA_SRC_SCHEDULER_IMAGE_TASK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "src/adapters/adapter_store.h"
#include "src/adapters/embedding_store.h"
#include "src/base/mutex.h"
#include "src/base/stopwatch.h"
#include "src/image/middle_square.h"
#include "src/nn/adapter_schedule.h"
#include "src/pipeline/pipeline.h"
#include "src/request/image_events.h"
#include "src/request/image_job.h"

namespace hotlora {

// An adapter lent to a request, with the weights the request put on it.
struct LeasedAdapter {
  AdapterUse use;
  std::unique_ptr<AdapterLease> lease;
};

// A ControlNet lent to a request, and how the request uses it.
struct LeasedControl {
  const ControlUse* use;  // of the task's job
  std::shared_ptr<const AdapterLease> lease;
};

// An image prompt lent to a request, and how the request uses it.
struct LeasedImagePrompt {
  const ImagePromptUse* use;  // of the task's job
  std::shared_ptr<const AdapterLease> lease;
};

// What a request's files turned into, once they were read.
struct LoadedFiles {
  std::vector<LeasedAdapter> adapters;
  std::vector<Embedding> embeddings;                  // as many as the job names, in its order
  std::vector<LeasedControl> controls;                // likewise
  std::vector<LeasedImagePrompt> image_prompts;       // likewise
  std::shared_ptr<const AdapterLease> image_encoder;  // which fits each of them; null without image prompts
};

// The decoded pictures of a request's controls, at the size of each pass, and the room that they take in the queue.
struct ControlPictures {
  std::vector<RgbImage> first, second;  // as in RequestPictures
  std::shared_ptr<const void> room;     // PictureRoom
};

// The pictures of each of a request's image prompts, as the image encoder sees them.
struct ImagePromptPictures {
  std::vector<std::vector<RgbImage>> squares;
  MiddleSquare seen;  // that they were cut to
};

// One request from admission to its end: who listens, whether it is still wanted, and what it holds of files.
// Thread-safe, but for the summary. The decode thread writes encode_seconds while it encodes an image to begin with,
// and decode_seconds. The step thread writes all else, encode_seconds too, from the start of the request to its last
// step; at that time the decode thread writes encode_seconds only between the passes of an image.
class ImageTask {
 public:
  // `longest`: how long it may take from now on, if the job has no earlier deadline.
  ImageTask(ImageJob job, std::shared_ptr<ImageListener> listener, absl::Duration longest);

  const ImageJob& job() const { return job_; }

  // Position in the order of admission. REQUIRES: admitted.
  uint64_t sequence() const { return sequence_; }

  double seconds_since_admitted() const { return since_admitted_.Seconds(); }

  // Tells this request from a later one of the same id.
  bool IsHeardBy(const ImageListener* listener) const { return listener == listener_identity_; }

  // The first status that is given stays. The task ends with it within one step.
  void Cancel(absl::Status status);

  // OK while the request is wanted; else why not (cancelled, or past its deadline).
  absl::Status Wanted() const;

  // One thread works on the task's files from here to PauseLoading or EndLoading, and no other thread can end the task.
  // False if the task has ended already.
  bool BeginLoading();
  // The files are not complete; BeginLoading will be called again. `seconds`: how long files were read.
  void PauseLoading(double seconds = 0.0);
  void EndLoading(LoadedFiles loaded, double seconds);

  // The init image as latents. REQUIRES: between BeginLoading and PauseLoading or EndLoading.
  void SetInit(std::shared_ptr<const InitLatents> init);
  // REQUIRES as SetInit.
  void SetControlPictures(ControlPictures pictures);
  // REQUIRES as SetInit.
  void SetImagePromptPictures(ImagePromptPictures pictures);
  MiddleSquare image_prompts_seen() const;
  // Whether all pictures that the job sends are there, the init image as latents.
  bool has_pictures() const;

  // What EndLoading was given. REQUIRES: the task was taken from the queue.
  const std::vector<LeasedAdapter>& adapters() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return loaded_.adapters; }
  const std::vector<Embedding>& embeddings() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return loaded_.embeddings; }
  const std::vector<LeasedControl>& controls() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return loaded_.controls; }
  const std::vector<LeasedImagePrompt>& image_prompts() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return loaded_.image_prompts;
  }
  const std::shared_ptr<const AdapterLease>& image_encoder() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return loaded_.image_encoder;
  }
  // The job's prompts with the vectors that stand in them. REQUIRES: the task was taken from the queue.
  Prompts prompts() const;
  // Null if the job has no init image.
  std::shared_ptr<const InitLatents> TakeInit();
  ControlPictures TakeControlPictures();
  ImagePromptPictures TakeImagePromptPictures();
  const AdapterSchedule& adapter_schedule(Pass pass = Pass::kFirst) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return pass == Pass::kFirst ? schedule_ : hires_schedule_;
  }
  double load_seconds() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return load_seconds_; }

  // Names adapter_schedule(pass). REQUIRES: the task is ready.
  const std::string& fingerprint(Pass pass = Pass::kFirst) const {
    return pass == Pass::kFirst ? fingerprint_ : hires_fingerprint_;
  }

  // What `check` says of the adapters of a task that only waits; false if it has ended. Nothing of them may be kept.
  bool CheckAdapters(absl::FunctionRef<bool(const AdapterSchedule&)> check, Pass pass = Pass::kFirst) const;

  // Calls the listener, unless the task has ended; calls never overlap.
  void Tell(absl::FunctionRef<void(ImageListener&)> call);

  // OnWaiting, if the last one (or admission) is at least `every` ago.
  void TellWaiting(const ImageWaiting& waiting, absl::Duration every);

  bool loading() const;

  // True for the first caller, who must go on to ReleaseFiles and TellEnd; false for all others and while loading.
  bool ClaimEnd();

  // Gives back what was loaded, also latents that were not taken. REQUIRES: ClaimEnd was true; nothing of the pipeline
  // holds the adapters' weights any more.
  void ReleaseFiles();

  // The last call to the listener. REQUIRES: ClaimEnd was true, and what was to be released and counted is.
  void TellEnd(const absl::Status& status);

  // TellEnd at once, though a thread that may be stuck still works on the task. The task itself ends if that goes on.
  void EndForCaller(const absl::Status& status);

  ImageSummary summary;
  uint8_t regroups_counted = 0;  // bits of RegroupReason; the step thread's

 private:
  friend class RequestQueue;  // sets sequence_ and ready_

  void TellLast(const absl::Status& status, const ImageSummary& told);

  const ImageJob job_;
  uint64_t sequence_ = 0;  // constant from admission on
  bool ready_ = false;     // guarded by the queue's mutex
  const Stopwatch since_admitted_;
  const absl::Time limit_;                        // as SteadyNow, like all times here
  const ImageListener* const listener_identity_;  // never followed

  mutable Mutex mu_;
  absl::Status cancel_status_ ABSL_GUARDED_BY(mu_);
  bool loading_ ABSL_GUARDED_BY(mu_) = false;
  bool end_claimed_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<const InitLatents> init_ ABSL_GUARDED_BY(mu_);
  ControlPictures control_pictures_ ABSL_GUARDED_BY(mu_);
  ImagePromptPictures image_prompt_pictures_ ABSL_GUARDED_BY(mu_);
  LoadedFiles loaded_ ABSL_GUARDED_BY(mu_);
  AdapterSchedule schedule_ ABSL_GUARDED_BY(mu_);
  AdapterSchedule hires_schedule_ ABSL_GUARDED_BY(mu_);  // of the second pass, if there is one
  double load_seconds_ ABSL_GUARDED_BY(mu_) = 0.0;
  std::string fingerprint_, hires_fingerprint_;  // constant from EndLoading on

  Mutex listener_mu_;  // held while the listener is called; taken before mu_ where both are
  std::shared_ptr<ImageListener> listener_ ABSL_GUARDED_BY(listener_mu_);  // nullptr after the last call
  absl::Time last_told_ ABSL_GUARDED_BY(listener_mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_IMAGE_TASK_H_
