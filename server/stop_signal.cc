#include "server/stop_signal.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "src/base/logging.h"
#include "src/base/named_thread.h"

namespace hotlora {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

struct StopSignal::State {
  std::mutex mu;
  std::condition_variable changed;
  bool serving = false;
  bool stop = false;

  void TakeSignals() {
    const sigset_t signals = StopSignals();
    while (true) {
      int number = 0;
      if (sigwait(&signals, &number) != 0) {
        continue;
      }
      std::lock_guard<std::mutex> lock(mu);
      if (!serving) {
        FlushLog();
        _exit(0);
      }
      if (stop) {
        LogWarning("signal ", number, " while stopping: exit at once");
        FlushLog();
        _exit(128 + number);
      }
      LogInfo("signal ", number, ": stopping");
      stop = true;
      changed.notify_all();
    }
  }
};

StopSignal::StopSignal() : state_(new State) {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a caller that goes away is an error of its call alone
  StartNamedThread("signals", [state = state_] { state->TakeSignals(); }).detach();
}

void StopSignal::BeginService() {
  std::lock_guard<std::mutex> lock(state_->mu);
  state_->serving = true;
}

void StopSignal::Wait() {
  std::unique_lock<std::mutex> lock(state_->mu);
  state_->changed.wait(lock, [this] { return state_->stop; });
}

void StopSignal::Request() {
  std::lock_guard<std::mutex> lock(state_->mu);
  state_->stop = true;
  state_->changed.notify_all();
}

}  // namespace hotlora
