#ifndef HOTLORA_SERVER_GENERATION_H_
#define HOTLORA_SERVER_GENERATION_H_

// What the calls that generate images have in common, whatever service they belong to: one request from its message
// to the engine's last word. Each such call is one object that gRPC and the engine hold together, and that is gone once
// both have let go.

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include <grpcpp/support/server_callback.h>

#include "server/proto_mapping.h"
#include "server/rpc_call.h"
#include "server/send_watch.h"
#include "server/unparsed_service.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {

class Generation : public ImageListener, public std::enable_shared_from_this<Generation> {
 public:
  // `method` as for RpcCall.
  Generation(ServiceContext* service, const char* method, grpc::CallbackServerContext* context);

 protected:
  // gRPC holds this object from Hold to Release, its last reaction. The object is destroyed then, or later on the
  // engine's thread. The server may be gone by that time, so Release does all that needs the server.
  void Hold();
  void Release();

  // Hands the request of a caller who may make one to the engine, which will never call this object if it returns an
  // error. `map`: MappedImageRequest(Message); it runs with mu_ held, before it is known whether there is an
  // engine.
  template <typename Message, typename Map>
  absl::Status Submit(const Unparsed<Message>& unparsed, Map map) {
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(const ImageRequest request, Check(unparsed, map));
      return engine_->Submit(request, shared_from_this(), [this](const Admission& admission) { Admit(admission); })
          .status();
    });
    unparsed.Drop();
    return InCallersWords(status);
  }

  // Asks the engine to end the request with `why`; OnEnd follows. Unset: the caller has gone. Without mu_: the engine
  // may call back at once.
  void CancelGeneration(std::optional<absl::Status> why = std::nullopt);

  // These count and note what the access log is to say.
  void NoteProgress(const ImageProgress& progress) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteImage(const FinishedImage& image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteEnd(const absl::Status& status, const ImageSummary& summary) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  CallMetrics& calls() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return rpc_.service().metrics->calls(); }

  // An error with the field names of this call's message in place of ImageRequest's.
  virtual absl::Status InCallersWords(const absl::Status& status) const { return status; }

  // After admission, before any event.
  virtual void OnAdmitted(const Admission& admission) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {}

  SendWatch watch_;
  Mutex mu_;
  RpcCall rpc_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> result_ ABSL_GUARDED_BY(mu_);  // once the engine has ended the request

 private:
  template <typename Message, typename Map>
  absl::StatusOr<ImageRequest> Check(const Unparsed<Message>& unparsed, Map map) {
    MutexLock lock(&mu_);
    ABSL_RETURN_IF_ERROR(rpc_.Authorize(Scope::kGenerate));
    ABSL_ASSIGN_OR_RETURN(Message message, unparsed.Parse());
    return CheckMapped(map(std::move(message)));
  }

  absl::StatusOr<ImageRequest> CheckMapped(MappedImageRequest mapped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Admit(const Admission& admission);
  void NoteRequest(const ImageRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  ActiveCalls* const active_calls_;
  Engine* engine_ = nullptr;  // constant after Submit
  std::shared_ptr<Generation> held_by_grpc_ ABSL_GUARDED_BY(mu_);
  std::string admitted_id_ ABSL_GUARDED_BY(mu_);
  std::optional<Stopwatch> since_cancel_ ABSL_GUARDED_BY(mu_);
  CallStage stage_ ABSL_GUARDED_BY(mu_) = CallStage::kQueued;
};

// A call that has all images in one answer.
class UnaryGeneration : public grpc::ServerUnaryReactor, public Generation {
 public:
  using Generation::Generation;

  // `map` as for Submit. gRPC is to hold this object.
  template <typename Message, typename Map>
  void Start(const Unparsed<Message>& request, Map map) {
    Hold();
    const absl::Status submitted = Submit(request, map);
    if (!submitted.ok()) {
      EndRefused(submitted);
    }
  }

  void OnCancel() override { CancelGeneration(); }
  void OnDone() override { Release(); }

  void OnWaiting(const ImageWaiting&) override {}
  void OnProgress(const ImageProgress& progress) override;
  void OnImage(FinishedImage image) override;
  void OnEnd(const absl::Status& status, const ImageSummary& summary) override;

 private:
  void EndRefused(const absl::Status& status);

  virtual void AddImage(FinishedImage image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // Fills in what is left of the answer, once the engine has ended the request with `status`; returns what the call
  // ends with.
  virtual absl::Status AddSummary(const absl::Status& status, const ImageSummary& summary)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual size_t ResponseBytes() const = 0;

  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_GENERATION_H_
