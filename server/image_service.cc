#include "server/image_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"

#include "server/generation.h"
#include "server/image_event_queue.h"

namespace hotlora {
namespace {

// What the RPCs of this service make of their message.
MappedImageRequest FromMessage(const v1::GenerateImagesRequest& message) { return FromProto(message); }

MappedImageRequest FromMessageForOneImage(const v1::GenerateImagesRequest& message) {
  MappedImageRequest mapped = FromProto(message);
  if (mapped.request.num_images.value_or(1) > 1) {
    mapped.violations.push_back(
        {"num_images", absl::StrCat("is ", *mapped.request.num_images, ", but RenderImage answers with 1")});
  }
  return mapped;
}

// StreamGenerateImages. gRPC's reactions and the engine's calls come from different threads; mu_
// orders them. gRPC is only ever handed one write at a time, and runs no reaction inside StartWrite
// or Finish, so calling these with mu_ held is safe.
class ImageStream final : public grpc::ServerWriteReactor<v1::GenerateImagesEvent>, public Generation {
 public:
  ImageStream(ServiceContext* service, grpc::CallbackServerContext* context)
      : Generation(service, "StreamGenerateImages", context) {}

  void Start(const Unparsed<v1::GenerateImagesRequest>& request) {
    Hold();
    const absl::Status submitted = Submit(request, FromMessage);
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

  absl::Status AddSummary(const absl::Status& status, const ImageSummary& summary) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_->set_request_id(rpc_.request_id());
    *response_->mutable_summary() = ToProto(summary);
    return status;
  }

  size_t ResponseBytes() const override { return response_->ByteSizeLong(); }

  v1::GenerateImagesResponse* const response_;  // gRPC's, until OnDone
};

class RenderedImage final : public UnaryGeneration {
 public:
  RenderedImage(ServiceContext* service, grpc::CallbackServerContext* context, google::api::HttpBody* response)
      : UnaryGeneration(service, "RenderImage", context), response_(response) {}

 private:
  void AddImage(FinishedImage image) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_->set_content_type(MediaType(image.format));
    response_->set_data(std::move(image.data));
  }
  absl::Status AddSummary(const absl::Status& status, const ImageSummary&) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return status;
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
  call->Start(*request, FromMessage);
  return call.get();
}

grpc::ServerUnaryReactor* ImageService::RenderImage(grpc::CallbackServerContext* context,
                                                    const Unparsed<v1::GenerateImagesRequest>* request,
                                                    google::api::HttpBody* response) {
  const auto call = std::make_shared<RenderedImage>(service_, context, response);
  call->Start(*request, FromMessageForOneImage);
  return call.get();
}

grpc::ServerWriteReactor<v1::GenerateImagesEvent>* ImageService::StreamGenerateImages(
    grpc::CallbackServerContext* context, const Unparsed<v1::GenerateImagesRequest>* request) {
  const auto call = std::make_shared<ImageStream>(service_, context);
  call->Start(*request);
  return call.get();
}

}  // namespace hotlora
