#ifndef HOTLORA_SRC_ENGINE_ENGINE_H_
#define HOTLORA_SRC_ENGINE_ENGINE_H_

// Start here: the one public entry to everything under src/. The engine owns the queue, the adapter store, the pipeline
// and their threads; server/ speaks to nothing else. Only plain values cross this header: no tensors, no protobuf.
//
//   gRPC threads     call this class; they validate, enqueue and return, and never touch a tensor or the adapters' disk
//   lookup thread    lends queued requests the adapters that are resident
//   picture thread   decodes requests' init images, and waits until the decode thread has encoded them
//   adapter thread   reads adapters and embeddings for queued requests, and adapters for LoadAdapter
//   step thread      applies adapters, encodes, runs every denoising step
//   decode thread    init images to latents, latents to pixels to PNG, so that other requests' steps do not wait

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_upload.h"
#include "src/base/memory_stats.h"
#include "src/engine/statistics.h"
#include "src/request/image_events.h"
#include "src/request/image_request.h"
#include "src/request/model_info.h"
#include "src/request/validation.h"
#include "src/scheduler/batch_policy.h"
#include "src/scheduler/stuck_work.h"

namespace hotlora {

// What Create takes.
class AdapterStore;
class EmbeddingStore;
class Metrics;
class ModelWatch;
class Pipeline;

struct EngineOptions {
  BatchOptions batch;
  uint32_t max_queue = 64;                                     // waiting requests beyond which callers are turned away
  uint32_t client_share = 0;                                   // how many of them may be of one caller; 0: all
  absl::Duration max_request_time = absl::InfiniteDuration();  // from admission
  // Runs once, on an engine thread, when the device is lost: nothing will work until the process is restarted.
  std::function<void()> on_device_failure;
  // Runs on an engine thread when the base weights turn out damaged and can't be rebuilt (false), and when they can
  // again. Meanwhile requests are Unavailable (BASE_DAMAGED).
  std::function<void(bool intact)> on_base_state;
  // Runs on an engine thread twice a second while work on the device is stuck, and once with an empty list when it goes
  // on. Meanwhile requests are Unavailable (WORK_STUCK).
  std::function<void(absl::Span<const StuckWork> stuck)> on_stuck_work;
  WorkLimits work_limits;
  std::function<MemoryStats()> device_memory;  // for GetStatistics
  std::function<void()> in_each_step;          // runs on the step thread; its time counts as the step's
  std::shared_ptr<ModelWatch> model_watch;     // ends with the engine; nullptr: the model is from no files
};

// An admitted request.
struct Admission {
  std::string request_id;       // the caller's, or one made up
  uint64_t seed = 0;            // of image 0
  uint32_t queue_position = 0;  // 0: runs next
};

// One of the engine's stores as the server sees it: adapters, ControlNets, image prompts, or their encoder. Errors of
// AdapterStore; InvalidArgument (INVALID_REQUEST) for a name that no file of it can have. Load answers later, on the
// adapter thread, in the turn of its caller (ImageRequest). The others answer from what is known and look at the
// folder, and uploads write to it, so they are not for gRPC threads either: its disk may hang.
class ServedStore {
 public:
  virtual ~ServedStore() = default;
  virtual void Load(std::string name, AdapterTier tier, bool pin, std::string caller,
                    std::function<void(absl::StatusOr<AdapterInfo>)> done) = 0;
  virtual absl::StatusOr<AdapterInfo> Unload(absl::string_view name) = 0;
  virtual absl::StatusOr<AdapterInfo> Get(absl::string_view name) const = 0;
  virtual absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const = 0;
  // Unavailable (DRAINING) for uploads that begin after Drain.
  virtual absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) = 0;
  virtual absl::Status Delete(absl::string_view name) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;  // cancels what runs and joins the threads

  // `controls`: the store of ControlNets, image prompts and the image encoder.
  static std::unique_ptr<Engine> Create(EngineOptions options, std::unique_ptr<Pipeline> pipeline,
                                        std::unique_ptr<AdapterStore> adapters, std::unique_ptr<AdapterStore> controls,
                                        std::unique_ptr<EmbeddingStore> embeddings, Metrics* metrics);

  // Runs a short generation of each kind to warm up and to measure the step baselines, then accepts requests. Blocks.
  virtual absl::Status WarmUp() = 0;

  // Validates and enqueues. On success the listener is told the rest; on error it is never called:
  //   InvalidArgument      INVALID_REQUEST, each bad field; the listener is told instead if an image's header is sound
  //                        but the rest cannot be decoded
  //   AlreadyExists        REQUEST_ID_RUNNING
  //   ResourceExhausted    QUEUE_FULL, CLIENT_SHARE, with a retry delay; OUT_OF_MEMORY if there is no memory for such
  //                        an image
  //   Unavailable          STARTING, DRAINING, BASE_DAMAGED or WORK_STUCK, with a retry delay
  // `on_admitted` runs before any call to the listener, and before Submit returns.
  virtual absl::StatusOr<Admission> Submit(const ImageRequest& request, std::shared_ptr<ImageListener> listener,
                                           std::function<void(const Admission&)> on_admitted) = 0;

  // Ends the request of `listener` with `status` (Cancelled, DeadlineExceeded): at once if it waits, else
  // within one step. Ignored if there is none: it may just have finished, and another may have its id by now.
  virtual void Cancel(absl::string_view request_id, const ImageListener* listener, absl::Status status) = 0;

  // As long as the engine lives.
  virtual ServedStore& adapters() = 0;
  virtual ServedStore& controls() = 0;
  virtual ServedStore& image_prompts() = 0;
  // Has one name, kImageEncoderName; empty without --image-encoder.
  virtual ServedStore& image_encoder() = 0;

  // Checks all base weights against their checksums of start-up, a module between two steps, and answers on the step
  // thread. What differs is rebuilt.
  virtual void VerifyBase(std::function<void(absl::StatusOr<BaseReport>)> done) = 0;

  virtual EngineStatistics Statistics() const = 0;  // looks at the adapters' folder too

  virtual const ModelInfo& model() const = 0;
  virtual const EngineOptions& options() const = 0;
  virtual const RequestLimits& limits() const = 0;
  virtual uint32_t queue_depth() const = 0;  // requests that wait

  // Refuses new requests; true once nothing runs or waits, false if `timeout` passed first. The rest is then
  // cancelled with Unavailable (DRAINING), and has ended for its callers within 2 s, even if its work is stuck. Blocks.
  // Thread-safe; a second call waits too.
  virtual bool Drain(absl::Duration timeout) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ENGINE_ENGINE_H_
