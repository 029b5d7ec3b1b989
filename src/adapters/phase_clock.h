#ifndef HOTLORA_SRC_ADAPTERS_PHASE_CLOCK_H_
#define HOTLORA_SRC_ADAPTERS_PHASE_CLOCK_H_

#include <chrono>

namespace hotlora {

// Times phases that follow one another.
class PhaseClock {
 public:
  // Adds the seconds since it was made, or since the last call, to a figure.
  void AddTo(double& seconds) {
    const Clock::time_point now = Clock::now();
    seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point since_ = Clock::now();
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_PHASE_CLOCK_H_
