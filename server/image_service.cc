#include "server/image_service.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"

#include "server/image_event_queue.h"
#include "server/proto_mapping.h"
#include "server/send_watch.h"
#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr size_t kMaxLoggedNameBytes = 128;

// Refuses a request for `violations`, together with whatever else is wrong with it.
absl::Status Refuse(const ImageRequest& request, std::vector<FieldViolation> violations, const RequestLimits& limits) {
  const absl::Status rest = ValidateImageRequest(request, limits).status();
  for (FieldViolation& violation : GetErrorDetails(rest).violations) {
    violations.push_back(std::move(violation));
  }
  return InvalidRequest(std::move(violations));
}

// Who ended an admitted request before its time; nullopt if it ended by itself.
std::optional<CancelCause> CauseOf(const absl::Status& status) {
  if (absl::IsCancelled(status)) {
    return CancelCause::kClient;
  }
  if (absl::IsDeadlineExceeded(status)) {
    return CancelCause::kDeadline;
  }
  return absl::IsUnavailable(status) ? std::optional(CancelCause::kShutdown) : std::nullopt;
}

// The half that both RPCs share: one generation, from Submit to the engine's last word.
class Generation : public ImageListener, public std::enable_shared_from_this<Generation> {
 public:
  Generation(ServiceContext* service, const char* method, grpc::CallbackServerContext* context)
      : watch_(service, context), rpc_(service, method, context), active_calls_(&service->active_calls) {
    active_calls_->Add();
  }

 protected:
  // gRPC holds this object from Hold to Release, its last reaction. The object goes then, or later on the engine's
  // thread; by that time what the server owns may be gone, so Release checks the call out.
  void Hold() {
    MutexLock lock(&mu_);
    held_by_grpc_ = shared_from_this();
  }
  void Release() {
    std::shared_ptr<Generation> self;  // is destroyed after the lock is released
    MutexLock lock(&mu_);
    self = std::move(held_by_grpc_);
    watch_.Done();
    active_calls_->Remove();
  }

  // Hands the request to the engine, which will never call this object if it returns an error.
  absl::Status Submit(const Unparsed<v1::GenerateImagesRequest>& unparsed) {
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(const ImageRequest request, Check(unparsed));
      return engine_->Submit(request, shared_from_this(), [this](const Admission& admission) { Admit(admission); })
          .status();
    });
    unparsed.Drop();
    return status;
  }

  // Asks the engine to end the request, as the caller has gone; OnEnd follows. Without mu_: the engine may call back
  // at once.
  void CancelGeneration() {
    std::string id;
    absl::Status why;
    {
      MutexLock lock(&mu_);
      if (result_.has_value()) {
        return;  // it has ended
      }
      id = admitted_id_;
      why = rpc_.WhyCancelled();
      since_cancel_ = since_cancel_.value_or(Stopwatch());
    }
    engine_->Cancel(id, this, why);
  }

  // These count and note what the access log is to say.
  void NoteProgress(const ImageProgress& progress) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    stage_ = progress.step < progress.total_steps ? CallStage::kDenoise : CallStage::kDecode;
  }
  void NoteImage(const FinishedImage& image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    calls().CountImageBytes(image.format, image.data.size());
    rpc_.image_access()->image_bytes += image.data.size();
  }
  void NoteEnd(const absl::Status& status, const ImageSummary& summary) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (since_cancel_.has_value()) {
      calls().ObserveCancelLatency(since_cancel_->Seconds());
    }
    if (const auto cause = CauseOf(status); cause.has_value()) {
      calls().CountCancelled(stage_, *cause);
    }
    if (status.ok()) {
      std::vector<std::string> names;
      for (const AppliedAdapter& adapter : summary.adapters) {
        names.push_back(adapter.name);
      }
      calls().CountAdapterUse(names);
    }
    rpc_.image_access()->summary = summary;
  }

  CallMetrics& calls() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return rpc_.service().metrics->calls(); }

  // What this RPC refuses beyond what the request itself may not say.
  virtual void CheckMore(const ImageRequest& request, std::vector<FieldViolation>& violations) {}

  // After admission, before any event.
  virtual void OnAdmitted(const Admission& admission) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;

  SendWatch watch_;
  Mutex mu_;
  RpcCall rpc_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> result_ ABSL_GUARDED_BY(mu_);  // once the engine has ended the request

 private:
  // The request of a caller who may make one.
  absl::StatusOr<ImageRequest> Check(const Unparsed<v1::GenerateImagesRequest>& unparsed) {
    MutexLock lock(&mu_);
    ABSL_RETURN_IF_ERROR(rpc_.Authorize(Scope::kGenerate));
    ABSL_ASSIGN_OR_RETURN(const v1::GenerateImagesRequest message, unparsed.Parse());
    rpc_.set_request_id(message.request_id());
    NoteRequest(message);
    ABSL_ASSIGN_OR_RETURN(engine_, rpc_.FindEngine());
    MappedImageRequest mapped = FromProto(message);
    mapped.request.caller = rpc_.caller();
    CheckMore(mapped.request, mapped.violations);
    if (!mapped.violations.empty()) {
      return Refuse(mapped.request, std::move(mapped.violations), engine_->limits());
    }
    return std::move(mapped.request);
  }

  void Admit(const Admission& admission) {
    MutexLock lock(&mu_);
    admitted_id_ = admission.request_id;
    rpc_.set_request_id(admission.request_id);
    rpc_.SendIdsFirst();
    OnAdmitted(admission);
  }

  void NoteRequest(const v1::GenerateImagesRequest& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ImageAccess& access = rpc_.image_access().emplace();
    access.width = message.width();
    access.height = message.height();
    access.steps = message.steps();
    access.images = message.has_num_images() ? message.num_images() : 1;
    for (int i = 0; i < std::min<int>(message.adapters_size(), kMaxAdapters); ++i) {
      access.adapters_asked.push_back(CleanText(message.adapters(i).name(), kMaxLoggedNameBytes));
    }
  }

  ActiveCalls* const active_calls_;
  Engine* engine_ = nullptr;  // constant after Submit
  std::shared_ptr<Generation> held_by_grpc_ ABSL_GUARDED_BY(mu_);
  std::string admitted_id_ ABSL_GUARDED_BY(mu_);
  std::optional<Stopwatch> since_cancel_ ABSL_GUARDED_BY(mu_);
  CallStage stage_ ABSL_GUARDED_BY(mu_) = CallStage::kQueued;
};

// StreamGenerateImages. gRPC's reactions and the engine's calls come from different threads; mu_
// orders them. gRPC is only ever handed one write at a time, and runs no reaction inside StartWrite
// or Finish, so calling these with mu_ held is safe.
class ImageStream final : public grpc::ServerWriteReactor<v1::GenerateImagesEvent>, public Generation {
 public:
  ImageStream(ServiceContext* service, grpc::CallbackServerContext* context)
      : Generation(service, "StreamGenerateImages", context) {}

  void Start(const Unparsed<v1::GenerateImagesRequest>& request) {
    Hold();
    const absl::Status submitted = Submit(request);
    if (!submitted.ok()) {
      MutexLock lock(&mu_);
      queue_.clear();
      result_ = submitted;
      WriteNext();
    }
  }

  // --- gRPC's side
  void OnWriteDone(bool ok) override {
    bool gone = false;
    {
      MutexLock lock(&mu_);
      writing_ = false;
      watch_.Sent();
      calls().ObserveSendBlocked(since_write_.Seconds());
      gone = !ok && !gone_;
      gone_ = gone_ || !ok;
      WriteNext();
    }
    if (gone) {
      CancelGeneration();
    }
  }

  void OnCancel() override {
    {
      MutexLock lock(&mu_);
      gone_ = true;
    }
    CancelGeneration();
  }

  void OnDone() override { Release(); }

  // --- the engine's side
  void OnWaiting(const ImageWaiting& waiting) override {
    Push([&] {
      mu_.AssertHeld();
      queue_.PushWaiting(waiting);
    });
  }
  void OnProgress(const ImageProgress& progress) override {
    Push([&] {
      mu_.AssertHeld();
      NoteProgress(progress);
      queue_.PushProgress(progress);
    });
  }
  void OnImage(FinishedImage image) override {
    Push([&] {
      mu_.AssertHeld();
      NoteImage(image);
      queue_.PushImage(std::move(image));
    });
  }
  void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
    MutexLock lock(&mu_);
    const absl::Status pushed = CatchExceptions([&] {
      mu_.AssertHeld();
      NoteEnd(status, summary);
      calls().CountDroppedUpdates(queue_.dropped_updates());
      if (status.ok()) {
        queue_.PushSummary(summary);
      }
      return absl::OkStatus();
    });
    result_ = !status.ok() ? status : !failure_.ok() ? failure_ : pushed;
    WriteNext();
  }

 private:
  void OnAdmitted(const Admission& admission) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    queue_.PushAccepted(admission);
    calls().ObserveFirstEvent(rpc_.seconds());
    WriteNext();
  }

  template <typename Change>
  void Push(Change change) {
    MutexLock lock(&mu_);
    const absl::Status pushed = CatchExceptions([&] {
      change();
      return absl::OkStatus();
    });
    if (!pushed.ok()) {
      failure_ = pushed;  // told at the end: a stream that lacks an event has failed
    }
    WriteNext();
  }

  // Hands gRPC the next event, or the status once the engine is done and everything is sent.
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) {
      return;
    }
    absl::Status status = result_.value_or(absl::OkStatus());
    bool has_event = false;
    if (!gone_) {
      const absl::Status taken = CatchExceptions([&] {
        mu_.AssertHeld();
        has_event = queue_.Next(event_);
        return absl::OkStatus();
      });
      if (!taken.ok()) {
        failure_ = taken;
        queue_.clear();
        status = taken;
      }
    } else {
      queue_.clear();
      status = status.ok() ? rpc_.WhyCancelled() : status;
    }
    if (has_event && result_.has_value() && result_->ok() && queue_.empty()) {
      finished_ = true;
      watch_.Sending(event_.ByteSizeLong());
      StartWriteAndFinish(&event_, grpc::WriteOptions(), rpc_.Close(*result_));
    } else if (has_event) {
      writing_ = true;
      since_write_ = Stopwatch();
      watch_.Sending(event_.ByteSizeLong());
      StartWrite(&event_);
    } else if (result_.has_value()) {
      finished_ = true;
      rpc_.End(status, [this](const grpc::Status& ended) {
        watch_.Sending();
        Finish(ended);
      });
    }
  }

  ImageEventQueue queue_ ABSL_GUARDED_BY(mu_);
  v1::GenerateImagesEvent event_ ABSL_GUARDED_BY(mu_);  // what gRPC sends; it lives until OnWriteDone, or to the end
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  Stopwatch since_write_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;  // gRPC has the final status
  bool gone_ ABSL_GUARDED_BY(mu_) = false;      // nothing reaches the caller any more
  absl::Status failure_ ABSL_GUARDED_BY(mu_);   // a failure of ours that the engine does not know of
};

// The same, with everything in one answer.
class UnaryGeneration : public grpc::ServerUnaryReactor, public Generation {
 public:
  using Generation::Generation;

  void Start(const Unparsed<v1::GenerateImagesRequest>& request) {
    Hold();
    const absl::Status submitted = Submit(request);
    if (!submitted.ok()) {
      MutexLock lock(&mu_);
      result_ = submitted;
      rpc_.End(submitted, [this](const grpc::Status& ended) {
        watch_.Sending();
        Finish(ended);
      });
    }
  }

  void OnCancel() override { CancelGeneration(); }

  void OnDone() override { Release(); }

  void OnWaiting(const ImageWaiting&) override {}
  void OnProgress(const ImageProgress& progress) override {
    MutexLock lock(&mu_);
    NoteProgress(progress);
  }

  void OnImage(FinishedImage image) override {
    MutexLock lock(&mu_);
    const absl::Status added = CatchExceptions([&] {
      mu_.AssertHeld();
      NoteImage(image);
      AddImage(std::move(image));
      return absl::OkStatus();
    });
    failure_ = failure_.ok() ? added : failure_;
  }

  void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
    MutexLock lock(&mu_);
    const absl::Status answered = CatchExceptions([&] {
      mu_.AssertHeld();
      NoteEnd(status, summary);
      AddSummary(summary);
      return absl::OkStatus();
    });
    result_ = !status.ok() ? status : !failure_.ok() ? failure_ : answered;
    watch_.Sending(ResponseBytes());
    Finish(rpc_.Close(*result_));
  }

 private:
  void OnAdmitted(const Admission&) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {}
  virtual void AddImage(FinishedImage image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual void AddSummary(const ImageSummary&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {}
  virtual size_t ResponseBytes() const = 0;

  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

class WholeImages final : public UnaryGeneration {
 public:
  WholeImages(ServiceContext* service, grpc::CallbackServerContext* context, v1::GenerateImagesResponse* response)
      : UnaryGeneration(service, "GenerateImages", context), response_(response) {}

 private:
  void AddImage(FinishedImage image) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    v1::Image* message = response_->add_images();
    *message = ToProtoWithoutData(image);
    message->set_data(std::move(image.data));
  }

  void AddSummary(const ImageSummary& summary) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_->set_request_id(rpc_.request_id());
    *response_->mutable_summary() = ToProto(summary);
  }

  size_t ResponseBytes() const override { return response_->ByteSizeLong(); }

  v1::GenerateImagesResponse* const response_;  // gRPC's, until OnDone
};

class RenderedImage final : public UnaryGeneration {
 public:
  RenderedImage(ServiceContext* service, grpc::CallbackServerContext* context, google::api::HttpBody* response)
      : UnaryGeneration(service, "RenderImage", context), response_(response) {}

 private:
  void CheckMore(const ImageRequest& request, std::vector<FieldViolation>& violations) override {
    if (request.num_images.value_or(1) > 1) {
      violations.push_back(
          {"num_images", absl::StrCat("is ", *request.num_images, ", but RenderImage answers with 1")});
    }
  }

  void AddImage(FinishedImage image) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_->set_content_type(MediaType(image.format));
    response_->set_data(std::move(image.data));
  }

  size_t ResponseBytes() const override { return response_->data().size(); }

  google::api::HttpBody* const response_;  // gRPC's, until OnDone
};

}  // namespace

ImageService::ImageService(ServiceContext* service)
    : UnparsedService(v1::ImageService::service_full_name()), service_(service) {
  AddUnary("GenerateImages", &ImageService::GenerateImages);
  AddServerStreaming("StreamGenerateImages", &ImageService::StreamGenerateImages);
  AddUnary("RenderImage", &ImageService::RenderImage);
}

grpc::ServerUnaryReactor* ImageService::GenerateImages(grpc::CallbackServerContext* context,
                                                       const Unparsed<v1::GenerateImagesRequest>* request,
                                                       v1::GenerateImagesResponse* response) {
  const auto call = std::make_shared<WholeImages>(service_, context, response);
  call->Start(*request);
  return call.get();
}

grpc::ServerUnaryReactor* ImageService::RenderImage(grpc::CallbackServerContext* context,
                                                    const Unparsed<v1::GenerateImagesRequest>* request,
                                                    google::api::HttpBody* response) {
  const auto call = std::make_shared<RenderedImage>(service_, context, response);
  call->Start(*request);
  return call.get();
}

grpc::ServerWriteReactor<v1::GenerateImagesEvent>* ImageService::StreamGenerateImages(
    grpc::CallbackServerContext* context, const Unparsed<v1::GenerateImagesRequest>* request) {
  const auto call = std::make_shared<ImageStream>(service_, context);
  call->Start(*request);
  return call.get();
}

}  // namespace hotlora
