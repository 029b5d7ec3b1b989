#include "server/send_watch.h"

#include <optional>

#include "absl/base/thread_annotations.h"
#include <grpcpp/alarm.h>

#include "server/alarm_time.h"
#include "src/base/mutex.h"
#include "src/base/steady_time.h"

namespace hotlora {

struct SendWatch::State : std::enable_shared_from_this<SendWatch::State> {
  State(ServiceContext* shared, grpc::CallbackServerContext* call)
      : patience(shared->send_patience), service(shared), context(call) {}

  void Arm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    alarm.emplace();
    armed = true;
    alarm->Set(AlarmTime(*due), [self = shared_from_this()](bool reached) {
      if (reached) {
        self->Look();
      }
    });
  }

  void Look() {
    MutexLock lock(&mu);
    armed = false;
    if (context == nullptr || !due.has_value()) {
      return;
    }
    if (SteadyNow() >= *due) {
      service->metrics->calls().CountGivenUp();
      context->TryCancel();  // its reactions come later, on other threads
    } else {
      Arm();
    }
  }

  const absl::Duration patience;
  ServiceContext* const service;  // as long as `context` is there
  Mutex mu;
  grpc::CallbackServerContext* context ABSL_GUARDED_BY(mu);  // null after gRPC's last reaction
  std::optional<absl::Time> due ABSL_GUARDED_BY(mu);  // until when what is being sent is to be gone, as SteadyNow
  bool armed ABSL_GUARDED_BY(mu) = false;
  std::optional<grpc::Alarm> alarm ABSL_GUARDED_BY(mu);
};

SendWatch::SendWatch(ServiceContext* service, grpc::CallbackServerContext* context)
    : state_(std::make_shared<State>(service, context)) {}

SendWatch::~SendWatch() { Done(); }

void SendWatch::Sending(size_t bytes) {
  MutexLock lock(&state_->mu);
  state_->due =
      SteadyNow() + state_->patience + absl::Seconds(static_cast<double>(bytes) / SendWatch::kLeastBytesPerSecond);
  if (!state_->armed) {  // an alarm for what was sent before looks again when it is due
    state_->Arm();
  }
}

void SendWatch::Sent() {
  MutexLock lock(&state_->mu);
  state_->due.reset();
}

void SendWatch::Done() {
  MutexLock lock(&state_->mu);
  state_->context = nullptr;
  state_->due.reset();
  state_->alarm.reset();
}

}  // namespace hotlora
