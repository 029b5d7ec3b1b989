#ifndef HOTLORA_SERVER_UNARY_CALL_H_
#define HOTLORA_SERVER_UNARY_CALL_H_

// Unary RPCs, answered at once, on a thread of their own, or when the engine calls back.

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include <grpcpp/support/server_callback.h>

#include "server/rpc_call.h"
#include "server/send_watch.h"
#include "server/unparsed_service.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"

namespace hotlora {

// The end of a call whose answer is known; gRPC holds it until its last reaction.
class Answered final : public grpc::ServerUnaryReactor {
 public:
  // Ends `call` with `status`.
  Answered(grpc::CallbackServerContext* context, RpcCall& call, const absl::Status& status)
      : active_calls_(&call.service().active_calls), watch_(&call.service(), context) {
    active_calls_->Add();
    call.End(status, [this](const grpc::Status& ended) {
      watch_.Sending();
      Finish(ended);
    });
  }

  void OnDone() override {
    watch_.Done();
    active_calls_->Remove();
    delete this;
  }

 private:
  ~Answered() override = default;

  ActiveCalls* const active_calls_;
  SendWatch watch_;
};

// Runs a call that is answered at once, on one of gRPC's few threads: it reads no file and waits for nothing. `body`:
// absl::Status(const RpcCall&, Engine&, const Request&).
template <typename Request, typename Body>
grpc::ServerUnaryReactor* AnswerCallNow(ServiceContext* service, const char* method, Scope scope,
                                        grpc::CallbackServerContext* context, const Unparsed<Request>* request,
                                        Body body) {
  RpcCall call(service, method, context);
  const absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(Engine* const engine, call.Open(scope));
    ABSL_ASSIGN_OR_RETURN(const Request parsed, request->Parse());
    return body(call, *engine, parsed);
  });
  request->Drop();
  return new Answered(context, call, status);
}

// The same for a body that does not look at the call: absl::Status(Engine&, const Request&).
template <typename Request, typename Body>
grpc::ServerUnaryReactor* AnswerNow(ServiceContext* service, const char* method, Scope scope,
                                    grpc::CallbackServerContext* context, const Unparsed<Request>* request, Body body) {
  return AnswerCallNow(service, method, scope, context, request,
                       [&](const RpcCall&, Engine& engine, const Request& parsed) { return body(engine, parsed); });
}

// A call that the engine answers later. gRPC holds it until its last reaction, the engine until it has answered.
template <typename Response>
class LaterAnswer final : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<LaterAnswer<Response>> {
 public:
  // The answer: an error, or what fills the response.
  using Fill = std::function<void(Response&)>;
  using Done = std::function<void(absl::StatusOr<Fill>)>;

  LaterAnswer(ServiceContext* service, const char* method, grpc::CallbackServerContext* context, Response* response)
      : active_calls_(&service->active_calls),
        watch_(service, context),
        rpc_(service, method, context),
        response_(response) {
    active_calls_->Add();
  }

  // `begin`: absl::Status(Engine&, const Request&, Done), which calls Done once, on any thread, or returns an error.
  template <typename Request, typename Begin>
  void Start(Scope scope, const Unparsed<Request>* request, Begin begin) {
    Hold();
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(Engine* const engine, Open(scope));
      ABSL_ASSIGN_OR_RETURN(const Request parsed, request->Parse());
      return begin(*engine, parsed,
                   [self = this->shared_from_this()](absl::StatusOr<Fill> answer) { self->End(answer); });
    });
    request->Drop();
    if (!status.ok()) {
      End(status);
    }
  }

  std::string caller() {
    MutexLock lock(&mu_);
    return rpc_.caller();
  }

  void OnDone() override {
    std::shared_ptr<LaterAnswer> self;
    MutexLock lock(&mu_);
    self = std::move(held_by_grpc_);
    watch_.Done();
    active_calls_->Remove();
  }

 private:
  void Hold() {
    MutexLock lock(&mu_);
    held_by_grpc_ = this->shared_from_this();
  }

  absl::StatusOr<Engine*> Open(Scope scope) {
    MutexLock lock(&mu_);
    return rpc_.Open(scope);
  }

  void End(const absl::StatusOr<Fill>& answer) {
    MutexLock lock(&mu_);
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_RETURN_IF_ERROR(answer.status());
      (*answer)(*response_);
      return absl::OkStatus();
    });
    rpc_.End(status, [this](const grpc::Status& ended) {
      watch_.Sending(response_->ByteSizeLong());
      Finish(ended);
    });
  }

  ActiveCalls* const active_calls_;
  SendWatch watch_;
  Mutex mu_;
  RpcCall rpc_ ABSL_GUARDED_BY(mu_);
  Response* const response_;  // gRPC's, until OnDone
  std::shared_ptr<LaterAnswer> held_by_grpc_ ABSL_GUARDED_BY(mu_);
};

// Runs a call that reads the disk, on the services' thread for that, where callers take turns. A disk that hangs holds
// up such calls alone. `body`: absl::Status(Engine&, const Request&, Response&).
template <typename Request, typename Response, typename Body>
grpc::ServerUnaryReactor* AnswerFromDisk(ServiceContext* service, const char* method, Scope scope,
                                         grpc::CallbackServerContext* context, const Unparsed<Request>* request,
                                         Response* response, Body body) {
  const auto call = std::make_shared<LaterAnswer<Response>>(service, method, context, response);
  const std::string caller = call->caller();
  call->Start(scope, request,
              [&](Engine& engine, const Request& parsed, typename LaterAnswer<Response>::Done done) -> absl::Status {
                service->disk_thread.Post(caller, [&engine, parsed, body, done = std::move(done)] {
                  Response filled;
                  const absl::Status status = CatchExceptions([&] { return body(engine, parsed, filled); });
                  if (!status.ok()) {
                    done(status);
                  } else {
                    done([&filled](Response& answer) { answer = std::move(filled); });
                  }
                });
                return absl::OkStatus();
              });
  return call.get();
}

}  // namespace hotlora

#endif  // HOTLORA_SERVER_UNARY_CALL_H_
