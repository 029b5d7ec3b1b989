#include "server/upload_call.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include <grpcpp/alarm.h>

#include "server/alarm_time.h"
#include "server/send_watch.h"
#include "server/upload_gate.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/steady_time.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

// An upload under way: Start on a gRPC thread, then everything but gRPC's reactions on the upload thread.
template <typename Calls>
class Uploading final : public grpc::ServerReadReactor<Unparsed<typename Calls::UploadRequest>>,
                        public std::enable_shared_from_this<Uploading<Calls>> {
 public:
  Uploading(ServiceContext* service, SerialExecutor* upload_thread, grpc::CallbackServerContext* context,
            typename Calls::Item* response)
      : active_calls_(&service->active_calls),
        metrics_(service->metrics),
        upload_thread_(upload_thread),
        gate_(*service->uploads),
        watch_(service, context),
        rpc_(service, Calls::kUpload, context),
        caller_(rpc_.caller()),
        response_(response) {
    active_calls_->Add();
  }

  void Start() {
    {
      MutexLock lock(&mu_);
      held_by_grpc_ = this->shared_from_this();
    }
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(engine_, rpc_.Open(Scope::kAdaptersWrite));
      ABSL_RETURN_IF_ERROR(gate_.CheckServed());
      ABSL_ASSIGN_OR_RETURN(permit_, gate_.TryAcquire(caller_));
      return absl::OkStatus();
    });
    if (status.ok()) {
      WatchTime();
      this->StartRead(&unparsed_);
    } else {
      rpc_.End(status, [this](const grpc::Status& ended) {
        watch_.Sending();
        this->Finish(ended);
      });
    }
  }

  void OnReadDone(bool ok) override {
    upload_thread_->Post(caller_, [self = this->shared_from_this(), ok] { self->Proceed(ok); });
  }
  void OnCancel() override { cancelled_.store(true); }
  void OnDone() override {
    std::shared_ptr<Uploading> self;
    MutexLock lock(&mu_);
    self = std::move(held_by_grpc_);
    watch_.Done();
    active_calls_->Remove();
  }

 private:
  // `more`: a message has come; else there are no more.
  void Proceed(bool more) {
    if (ended_) {
      return;
    }
    const absl::Status status = CatchExceptions([&] { return more ? Take() : Commit(); });
    if (!status.ok() || !more) {
      End(status);
      return;
    }
    if (message_.has_header() || !message_.chunk().empty()) {
      last_byte_ = SteadyNow();
    }
    this->StartRead(&unparsed_);
  }

  void End(const absl::Status& status) {
    ended_ = true;
    alarm_ = nullptr;
    upload_.reset();  // what came is gone before the caller is told so
    permit_ = nullptr;
    watch_.Sending();
    this->Finish(rpc_.Close(status));
  }

  // Has CheckTime called when the caller's time is over.
  void WatchTime() {
    const absl::Time deadline =
        std::min(last_byte_ + gate_.limits().silence, began_ + gate_.limits().longest) + absl::Milliseconds(1);
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(AlarmTime(deadline), [self = this->shared_from_this()](bool reached) {
      if (reached) {
        self->upload_thread_->Post(self->caller_, [self] { self->CheckTime(); });
      }
    });
  }

  void CheckTime() {
    if (ended_) {
      return;
    }
    const UploadLimits& limits = gate_.limits();
    const absl::Time now = SteadyNow();
    if (now >= began_ + limits.longest) {
      End(MakeError(absl::StatusCode::kDeadlineExceeded, error_reason::kUploadTooLong,
                    absl::StrCat("the upload took more than ", absl::FormatDuration(limits.longest))));
    } else if (now >= last_byte_ + limits.silence) {
      End(MakeError(absl::StatusCode::kDeadlineExceeded, error_reason::kUploadStalled,
                    absl::StrCat("no byte came within ", absl::FormatDuration(limits.silence))));
    } else {
      WatchTime();
    }
  }

  absl::Status Take() {
    ABSL_ASSIGN_OR_RETURN(message_, unparsed_.Parse());
    if (upload_ != nullptr) {
      if (!message_.has_chunk()) {
        return InvalidRequest({{"part", "is not a chunk; only the first message has a header"}});
      }
      metrics_->calls().CountUploadBytes(message_.chunk().size());
      return upload_->Append(message_.chunk());
    }
    if (!message_.has_header()) {
      return InvalidRequest({{"part", "is not a header; the first message must have it"}});
    }
    const v1::UploadHeader& header = message_.header();
    ABSL_ASSIGN_OR_RETURN(upload_, Calls::StoreOf(*engine_).BeginUpload(
                                       {header.name(), header.size(), header.sha256(), header.replace()}));
    return gate_.Charge(caller_, header.size(), SteadyNow());  // what is refused before costs nothing
  }

  absl::Status Commit() {
    if (cancelled_.load()) {
      return rpc_.WhyCancelled();
    }
    if (upload_ == nullptr) {
      return InvalidRequest({{"part", "never came: the call had no message"}});
    }
    ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, upload_->Commit());
    *response_ = Calls::ToItem(info);
    return absl::OkStatus();
  }

  ActiveCalls* const active_calls_;
  Metrics* const metrics_;
  SerialExecutor* const upload_thread_;
  UploadGate& gate_;
  SendWatch watch_;
  RpcCall rpc_;
  const std::string caller_;              // whose turn on the upload thread it is
  typename Calls::Item* const response_;  // gRPC's, until OnDone
  Engine* engine_ = nullptr;              // constant after Start
  std::atomic<bool> cancelled_{false};
  Unparsed<typename Calls::UploadRequest> unparsed_;
  typename Calls::UploadRequest message_;  // of the upload thread
  std::unique_ptr<AdapterUpload> upload_;

  // The upload thread's, after Start.
  std::unique_ptr<UploadGate::Permit> permit_;
  const absl::Time began_ = SteadyNow();
  absl::Time last_byte_ = began_;  // or since when one is waited for
  std::unique_ptr<grpc::Alarm> alarm_;
  bool ended_ = false;

  Mutex mu_;
  std::shared_ptr<Uploading> held_by_grpc_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

template <typename Calls>
grpc::ServerReadReactor<Unparsed<typename Calls::UploadRequest>>* StartUpload(ServiceContext* service,
                                                                              SerialExecutor* upload_thread,
                                                                              grpc::CallbackServerContext* context,
                                                                              typename Calls::Item* response) {
  const auto call = std::make_shared<Uploading<Calls>>(service, upload_thread, context, response);
  call->Start();
  return call.get();
}

template grpc::ServerReadReactor<Unparsed<v1::UploadAdapterRequest>>* StartUpload<AdapterCalls>(
    ServiceContext*, SerialExecutor*, grpc::CallbackServerContext*, v1::Adapter*);
template grpc::ServerReadReactor<Unparsed<v1::UploadControlRequest>>* StartUpload<ControlCalls>(
    ServiceContext*, SerialExecutor*, grpc::CallbackServerContext*, v1::Control*);
template grpc::ServerReadReactor<Unparsed<v1::UploadImagePromptRequest>>* StartUpload<ImagePromptCalls>(
    ServiceContext*, SerialExecutor*, grpc::CallbackServerContext*, v1::Control*);

}  // namespace hotlora
