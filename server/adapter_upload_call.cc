#include "server/adapter_upload_call.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "server/proto_mapping.h"
#include "src/base/error_details.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

// A place among the uploads under way. Thread-safe.
class UploadPlace {
 public:
  UploadPlace() : taken_(under_way.fetch_add(1) < kMaxUploads) {}
  ~UploadPlace() { under_way.fetch_sub(1); }
  UploadPlace(const UploadPlace&) = delete;
  UploadPlace& operator=(const UploadPlace&) = delete;

  bool taken() const { return taken_; }

 private:
  inline static std::atomic<int> under_way{0};
  const bool taken_;
};

// UploadAdapter under way: Start on a gRPC thread, then everything but gRPC's reactions on the upload thread.
class Uploading final : public grpc::ServerReadReactor<v1::UploadAdapterRequest>,
                        public std::enable_shared_from_this<Uploading> {
 public:
  Uploading(ServiceContext* service, SerialExecutor* upload_thread, grpc::CallbackServerContext* context,
            v1::Adapter* response)
      : active_calls_(&service->active_calls),
        metrics_(service->metrics),
        upload_thread_(upload_thread),
        rpc_(service, "UploadAdapter", context),
        response_(response) {
    active_calls_->Add();
  }

  void Start() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      held_by_grpc_ = shared_from_this();
    }
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(engine_, rpc_.Open(Scope::kAdaptersWrite));
      if (!place_.taken()) {
        return MakeError(absl::StatusCode::kResourceExhausted, "as many adapters as may are being uploaded",
                         {"UPLOADS_BUSY", {}, absl::Seconds(1)});
      }
      return absl::OkStatus();
    });
    if (status.ok()) {
      StartRead(&message_);
    } else {
      Finish(rpc_.Close(status));
    }
  }

  void OnReadDone(bool ok) override {
    upload_thread_->Post([self = shared_from_this(), ok] { self->Proceed(ok); });
  }
  void OnCancel() override { cancelled_.store(true); }
  void OnDone() override {
    std::shared_ptr<Uploading> self;
    std::lock_guard<std::mutex> lock(mu_);
    self = std::move(held_by_grpc_);
    active_calls_->Remove();
  }

 private:
  // `more`: message_ has come; else there are no more.
  void Proceed(bool more) {
    const absl::Status status = CatchExceptions([&] { return more ? Take() : Commit(); });
    if (status.ok() && more) {
      StartRead(&message_);
      return;
    }
    upload_.reset();  // what came is gone before the caller hears so
    Finish(rpc_.Close(status));
  }

  absl::Status Take() {
    if (upload_ != nullptr) {
      if (!message_.has_chunk()) {
        return InvalidRequest({{"part", "is no chunk; only the first message has a header"}});
      }
      metrics_->calls().CountUploadBytes(message_.chunk().size());
      return upload_->Append(message_.chunk());
    }
    if (!message_.has_header()) {
      return InvalidRequest({{"part", "is no header; the first message has it"}});
    }
    const v1::UploadHeader& header = message_.header();
    ABSL_ASSIGN_OR_RETURN(upload_,
                          engine_->BeginUpload({header.name(), header.size(), header.sha256(), header.replace()}));
    return absl::OkStatus();
  }

  absl::Status Commit() {
    if (cancelled_.load()) {
      return rpc_.WhyCancelled();
    }
    if (upload_ == nullptr) {
      return InvalidRequest({{"part", "never came: the call had no message"}});
    }
    ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, upload_->Commit());
    *response_ = ToProto(info);
    return absl::OkStatus();
  }

  ActiveCalls* const active_calls_;
  Metrics* const metrics_;
  SerialExecutor* const upload_thread_;
  const UploadPlace place_;
  RpcCall rpc_;
  v1::Adapter* const response_;  // gRPC's, until OnDone
  Engine* engine_ = nullptr;     // constant after Start
  std::atomic<bool> cancelled_{false};
  v1::UploadAdapterRequest message_;
  std::unique_ptr<AdapterUpload> upload_;
  std::mutex mu_;
  std::shared_ptr<Uploading> held_by_grpc_;  // guarded by mu_
};

}  // namespace

grpc::ServerReadReactor<v1::UploadAdapterRequest>* StartUpload(ServiceContext* service, SerialExecutor* upload_thread,
                                                               grpc::CallbackServerContext* context,
                                                               v1::Adapter* response) {
  const auto call = std::make_shared<Uploading>(service, upload_thread, context, response);
  call->Start();
  return call.get();
}

}  // namespace hotlora
