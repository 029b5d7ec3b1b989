#ifndef HOTLORA_SRC_BASE_STEADY_TIME_H_
#define HOTLORA_SRC_BASE_STEADY_TIME_H_

// Deadlines and ages that a change of the system's time has no effect on; waits are CondVar's (src/base/mutex.h).
// absl::Now() is for what people and files call the time.

#include <chrono>

#include "absl/time/time.h"

namespace hotlora {

// Since some start of its own: to be compared with nothing but itself.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_STEADY_TIME_H_
