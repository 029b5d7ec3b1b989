#ifndef HOTLORA_SRC_BASE_STOPWATCH_H_
#define HOTLORA_SRC_BASE_STOPWATCH_H_

#include <chrono>

namespace hotlora {

// Measures durations by the steady clock: a change of the system's time has no effect. Starts when it is made.
class Stopwatch {
 public:
  // Since the start.
  double Seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  // Since the last Lap, or the start. For phases that follow one another.
  double Lap() {
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - lap_).count();
    lap_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
  Clock::time_point lap_ = start_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_STOPWATCH_H_
