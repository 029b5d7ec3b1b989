#include "tests/gpu/stage_watch.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

pthread_t watch;

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// A crash: the watch writes the line, for a handler must not, and ends the process.
void OnCrash(int signal) {
  pthread_sigqueue(watch, SIGTERM, sigval{signal});
  while (true) {
    pause();
  }
}

[[noreturn]] void Watch(Probe& probe) {
  const sigset_t stop = StopSignals();
  double whole = 0;
  const double fraction = std::modf(probe.limit(), &whole);
  const timespec limit = {static_cast<time_t>(whole), static_cast<long>(fraction * 1e9)};  // NOLINT: POSIX's type
  siginfo_t info{};
  int signal = 0;
  do {
    signal = sigtimedwait(&stop, &info, &limit);
  } while (signal < 0 && errno == EINTR);
  if (signal < 0) {
    std::_Exit(probe.FinishFromOutside(absl::StrCat("the time limit of ", probe.limit(), " s was over")));
  }
  if (info.si_code == SI_QUEUE && info.si_pid == getpid()) {
    signal = info.si_value.sival_int;
    probe.FinishFromOutside(absl::StrCat("the program crashed (", strsignal(signal), ")"));
  } else {
    probe.FinishFromOutside(absl::StrCat("the program was ended (", strsignal(signal), ")"));
  }
  std::_Exit(128 + signal);
}

}  // namespace

void WatchStage(Probe& probe) {
  const sigset_t stop = StopSignals();
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::thread thread(Watch, std::ref(probe));
  watch = thread.native_handle();
  thread.detach();
  struct sigaction action {};
  action.sa_handler = &OnCrash;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace hotlora
