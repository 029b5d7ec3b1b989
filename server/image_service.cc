#include "server/image_service.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "server/image_event_queue.h"
#include "server/proto_mapping.h"
#include "server/send_watch.h"
#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/request/image_format_label.h"
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
class Generation : public ImageListener {
 public:
  Generation(ServiceContext* service, const char* method, grpc::CallbackServerContext* context)
      : watch_(service, context), rpc_(service, method, context), active_calls_(&service->active_calls) {
    active_calls_->Add();
  }

 protected:
  // gRPC's last reaction: drops its hold. The object goes here, or later on the engine's thread; by
  // then what the server owns may be gone, so the call is checked out here.
  template <typename Call>
  void LetGo(std::shared_ptr<Call>* held_by_grpc) {
    std::shared_ptr<Call> self;
    std::lock_guard<std::mutex> lock(mu_);
    self = std::move(*held_by_grpc);
    watch_.Done();
    active_calls_->Remove();
  }

  // Hands the request to the engine. `self` is this object; on error the engine will never call it.
  absl::Status Submit(const Unparsed<v1::GenerateImagesRequest>& unparsed, std::shared_ptr<ImageListener> self) {
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_RETURN_IF_ERROR(rpc_.Authorize(Scope::kGenerate));
      ABSL_ASSIGN_OR_RETURN(const v1::GenerateImagesRequest message, unparsed.Parse());
      rpc_.set_request_id(message.request_id());
      NoteRequest(message);
      ABSL_ASSIGN_OR_RETURN(engine_, rpc_.FindEngine());
      MappedImageRequest mapped = FromProto(message);
      mapped.request.caller = rpc_.caller();
      CheckMore(mapped.request, &mapped.violations);
      if (!mapped.violations.empty()) {
        return Refuse(mapped.request, std::move(mapped.violations), engine_->limits());
      }
      return engine_->Submit(mapped.request, std::move(self), [this](const Admission& admission) { Admit(admission); })
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
      std::lock_guard<std::mutex> lock(mu_);
      if (result_.has_value()) {
        return;  // it has ended
      }
      id = admitted_id_;
      why = rpc_.WhyCancelled();
      since_cancel_ = since_cancel_.value_or(Stopwatch());
    }
    engine_->Cancel(id, this, why);
  }

  // These count and note what the access log is to say; with mu_ held.
  void NoteProgressLocked(const ImageProgress& progress) {
    stage_ = progress.step < progress.total_steps ? CallStage::kDenoise : CallStage::kDecode;
  }
  void NoteImageLocked(const FinishedImage& image) {
    calls().CountImageBytes(FormatLabel(image.format), image.data.size());
    rpc_.image_access()->image_bytes += image.data.size();
  }
  void NoteEndLocked(const absl::Status& status, const ImageSummary& summary) {
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

  CallMetrics& calls() { return rpc_.service().metrics->calls(); }

  // What this RPC refuses beyond what the request itself may not say.
  virtual void CheckMore(const ImageRequest& request, std::vector<FieldViolation>* violations) {}

  // After admission, before any event; with mu_ held.
  virtual void OnAdmittedLocked(const Admission& admission) = 0;

  SendWatch watch_;
  std::mutex mu_;
  RpcCall rpc_;                         // guarded by mu_
  std::optional<absl::Status> result_;  // guarded by mu_; once the engine has ended the request

 private:
  void Admit(const Admission& admission) {
    std::lock_guard<std::mutex> lock(mu_);
    admitted_id_ = admission.request_id;
    rpc_.set_request_id(admission.request_id);
    rpc_.SendIdsFirst();
    OnAdmittedLocked(admission);
  }

  void NoteRequest(const v1::GenerateImagesRequest& message) {
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
  // Guarded by mu_.
  std::string admitted_id_;
  std::optional<Stopwatch> since_cancel_;
  CallStage stage_ = CallStage::kQueued;
};

// StreamGenerateImages. gRPC's reactions and the engine's calls come from different threads; mu_
// orders them. gRPC is only ever handed one write at a time, and runs no reaction inside StartWrite
// or Finish, so calling these with mu_ held is safe.
class ImageStream final : public grpc::ServerWriteReactor<v1::GenerateImagesEvent>,
                          public Generation,
                          public std::enable_shared_from_this<ImageStream> {
 public:
  ImageStream(ServiceContext* service, grpc::CallbackServerContext* context)
      : Generation(service, "StreamGenerateImages", context) {}

  void Start(const Unparsed<v1::GenerateImagesRequest>& request) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      held_by_grpc_ = shared_from_this();
    }
    const absl::Status submitted = Submit(request, shared_from_this());
    if (!submitted.ok()) {
      std::lock_guard<std::mutex> lock(mu_);
      queue_.clear();
      result_ = submitted;
      WriteNextLocked();
    }
  }

  // --- gRPC's side
  void OnWriteDone(bool ok) override {
    bool gone = false;
    {
      std::lock_guard<std::mutex> lock(mu_);
      writing_ = false;
      watch_.Sent();
      calls().ObserveSendBlocked(since_write_.Seconds());
      gone = !ok && !gone_;
      gone_ = gone_ || !ok;
      WriteNextLocked();
    }
    if (gone) {
      CancelGeneration();
    }
  }

  void OnCancel() override {
    {
      std::lock_guard<std::mutex> lock(mu_);
      gone_ = true;
    }
    CancelGeneration();
  }

  void OnDone() override { LetGo(&held_by_grpc_); }

  // --- the engine's side
  void OnWaiting(const ImageWaiting& waiting) override {
    Push([&] { queue_.PushWaiting(waiting); });
  }
  void OnProgress(const ImageProgress& progress) override {
    Push([&] {
      NoteProgressLocked(progress);
      queue_.PushProgress(progress);
    });
  }
  void OnImage(FinishedImage image) override {
    Push([&] {
      NoteImageLocked(image);
      queue_.PushImage(std::move(image));
    });
  }
  void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
    std::lock_guard<std::mutex> lock(mu_);
    const absl::Status pushed = CatchExceptions([&] {
      NoteEndLocked(status, summary);
      calls().CountDroppedUpdates(queue_.dropped_updates());
      if (status.ok()) {
        queue_.PushSummary(summary);
      }
      return absl::OkStatus();
    });
    result_ = !status.ok() ? status : !failure_.ok() ? failure_ : pushed;
    WriteNextLocked();
  }

 private:
  void OnAdmittedLocked(const Admission& admission) override {
    queue_.PushAccepted(admission);
    calls().ObserveFirstEvent(rpc_.seconds());
    WriteNextLocked();
  }

  template <typename Change>
  void Push(Change change) {
    std::lock_guard<std::mutex> lock(mu_);
    const absl::Status pushed = CatchExceptions([&] {
      change();
      return absl::OkStatus();
    });
    if (!pushed.ok()) {
      failure_ = pushed;  // told at the end: a stream that lacks an event has failed
    }
    WriteNextLocked();
  }

  // Hands gRPC the next event, or the status once the engine is done and everything is sent.
  void WriteNextLocked() {
    if (writing_ || finished_) {
      return;
    }
    absl::Status status = result_.value_or(absl::OkStatus());
    bool has_event = false;
    if (!gone_) {
      const absl::Status taken = CatchExceptions([&] {
        has_event = queue_.Next(&event_);
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

  // Guarded by mu_.
  std::shared_ptr<ImageStream> held_by_grpc_;  // until gRPC's last call
  ImageEventQueue queue_;
  v1::GenerateImagesEvent event_;  // what gRPC is sending; it lives until OnWriteDone, or to the end
  bool writing_ = false;
  Stopwatch since_write_;
  bool finished_ = false;  // gRPC has the final status
  bool gone_ = false;      // the caller hears nothing any more
  absl::Status failure_;   // a failure of ours that the engine does not know of
};

// The same, with everything in one answer.
class UnaryGeneration : public grpc::ServerUnaryReactor,
                        public Generation,
                        public std::enable_shared_from_this<UnaryGeneration> {
 public:
  using Generation::Generation;

  void Start(const Unparsed<v1::GenerateImagesRequest>& request) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      held_by_grpc_ = shared_from_this();
    }
    const absl::Status submitted = Submit(request, shared_from_this());
    if (!submitted.ok()) {
      std::lock_guard<std::mutex> lock(mu_);
      result_ = submitted;
      rpc_.End(submitted, [this](const grpc::Status& ended) {
        watch_.Sending();
        Finish(ended);
      });
    }
  }

  void OnCancel() override { CancelGeneration(); }

  void OnDone() override { LetGo(&held_by_grpc_); }

  void OnWaiting(const ImageWaiting&) override {}
  void OnProgress(const ImageProgress& progress) override {
    std::lock_guard<std::mutex> lock(mu_);
    NoteProgressLocked(progress);
  }

  void OnImage(FinishedImage image) override {
    std::lock_guard<std::mutex> lock(mu_);
    const absl::Status added = CatchExceptions([&] {
      NoteImageLocked(image);
      AddImageLocked(std::move(image));
      return absl::OkStatus();
    });
    failure_ = failure_.ok() ? added : failure_;
  }

  void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
    std::lock_guard<std::mutex> lock(mu_);
    const absl::Status answered = CatchExceptions([&] {
      NoteEndLocked(status, summary);
      AddSummaryLocked(summary);
      return absl::OkStatus();
    });
    result_ = !status.ok() ? status : !failure_.ok() ? failure_ : answered;
    watch_.Sending(ResponseBytesLocked());
    Finish(rpc_.Close(*result_));
  }

 private:
  void OnAdmittedLocked(const Admission&) override {}
  virtual void AddImageLocked(FinishedImage image) = 0;
  virtual void AddSummaryLocked(const ImageSummary&) {}
  virtual size_t ResponseBytesLocked() const = 0;

  // Guarded by mu_.
  std::shared_ptr<UnaryGeneration> held_by_grpc_;  // until gRPC's last call
  absl::Status failure_;
};

class WholeImages final : public UnaryGeneration {
 public:
  WholeImages(ServiceContext* service, grpc::CallbackServerContext* context, v1::GenerateImagesResponse* response)
      : UnaryGeneration(service, "GenerateImages", context), response_(response) {}

 private:
  void AddImageLocked(FinishedImage image) override {
    v1::Image* message = response_->add_images();
    *message = ToProtoWithoutData(image);
    message->set_data(std::move(image.data));
  }

  void AddSummaryLocked(const ImageSummary& summary) override {
    response_->set_request_id(rpc_.request_id());
    *response_->mutable_summary() = ToProto(summary);
  }

  size_t ResponseBytesLocked() const override { return response_->ByteSizeLong(); }

  v1::GenerateImagesResponse* const response_;  // gRPC's, until OnDone
};

class RenderedImage final : public UnaryGeneration {
 public:
  RenderedImage(ServiceContext* service, grpc::CallbackServerContext* context, google::api::HttpBody* response)
      : UnaryGeneration(service, "RenderImage", context), response_(response) {}

 private:
  void CheckMore(const ImageRequest& request, std::vector<FieldViolation>* violations) override {
    if (request.num_images.value_or(1) > 1) {
      violations->push_back(
          {"num_images", absl::StrCat("is ", *request.num_images, ", but RenderImage answers with 1")});
    }
  }

  void AddImageLocked(FinishedImage image) override {
    response_->set_content_type(MediaType(image.format));
    response_->set_data(std::move(image.data));
  }

  size_t ResponseBytesLocked() const override { return response_->data().size(); }

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
