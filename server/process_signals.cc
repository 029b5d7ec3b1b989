#include "server/process_signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "absl/base/thread_annotations.h"

#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/named_thread.h"

namespace hotlora {
namespace {

sigset_t TakenSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2}) {
    sigaddset(&signals, number);
  }
  return signals;
}

}  // namespace

struct ProcessSignals::State {
  Mutex mu;
  CondVar changed;
  bool serving ABSL_GUARDED_BY(mu) = false;
  bool stop ABSL_GUARDED_BY(mu) = false;
  bool reload ABSL_GUARDED_BY(mu) = false;
  int exit_code ABSL_GUARDED_BY(mu) = 0;

  void TakeSignals() {
    const sigset_t signals = TakenSignals();
    while (true) {
      int number = 0;
      if (sigwait(&signals, &number) != 0) {
        continue;
      }
      MutexLock lock(&mu);
      if (number == SIGHUP) {
        reload = true;
        changed.SignalAll();
      } else if (number == SIGUSR1 || number == SIGUSR2) {
        LogInfo("signal ", number, " is ignored");
      } else {
        TakeStop(number);
      }
    }
  }

  void TakeStop(int number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
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
    changed.SignalAll();
  }
};

void ProcessSignals::Block() {
  const sigset_t signals = TakenSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void ProcessSignals::Unblock() {
  const sigset_t signals = TakenSignals();
  signal(SIGPIPE, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

ProcessSignals::ProcessSignals() : state_(new State) {
  Block();
  StartNamedThread("signals", [state = state_] { state->TakeSignals(); }).detach();
}

void ProcessSignals::BeginService() {
  MutexLock lock(&state_->mu);
  state_->serving = true;
}

ProcessSignals::Event ProcessSignals::Wait() {
  MutexLock lock(&state_->mu);
  while (!state_->stop && !state_->reload) {
    state_->changed.Wait(&state_->mu);
  }
  if (state_->stop) {
    return Event::kStop;
  }
  state_->reload = false;
  return Event::kReload;
}

int ProcessSignals::exit_code() const {
  MutexLock lock(&state_->mu);
  return state_->exit_code;
}

void ProcessSignals::RequestStop(int exit_code) {
  MutexLock lock(&state_->mu);
  if (!state_->serving) {
    FlushLog();
    _exit(exit_code);
  }
  state_->exit_code = exit_code;
  state_->stop = true;
  state_->changed.SignalAll();
}

}  // namespace hotlora
