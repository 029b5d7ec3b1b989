#ifndef HOTLORA_SRC_BASE_STEADY_TIME_H_
#define HOTLORA_SRC_BASE_STEADY_TIME_H_

// Deadlines, ages and waits that a change of the system's time has no effect on. absl::Now() is for what people and
// files call the time; waits of absl::Mutex with a timeout go by that time too.

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace hotlora {

// Since some start of its own: to be compared with nothing but itself.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// Waits until `condition()` is true, for at most `patience`, which may be infinite; returns what it is at the end.
// REQUIRES: a thread that changes what the condition looks at notifies `changed`.
template <typename Condition>
bool AwaitSteadily(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, absl::Duration patience,
                   Condition condition) {
  if (patience == absl::InfiniteDuration()) {
    changed.wait(lock, condition);
    return true;
  }
  return changed.wait_for(lock, absl::ToChronoNanoseconds(patience), condition);
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_STEADY_TIME_H_
