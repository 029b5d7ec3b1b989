#ifndef HOTLORA_TESTS_GPU_MEASURE_H_
#define HOTLORA_TESTS_GPU_MEASURE_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

#include "tests/gpu/probe.h"

namespace hotlora {

// True if there is time for `part`, which the stage then does; else notes that it is left out.
bool HasTime(Probe& probe, absl::string_view part);

// How often something is repeated: until there are `most` times, or `seconds` are over, or the stage's time is; at
// least once.
struct Repeats {
  int warm_up = 2;  // runs before, which do not count
  int most = 10;
  double seconds = 3;
};

// Milliseconds, one for each repeat.
struct Times {
  std::vector<double> wall;     // from the call of the body until the device has done its work
  std::vector<double> enqueue;  // from the call of the body until it returned
  std::vector<double> device;   // between events on the stream before and after; empty on the CPU
};

// Times `body`, which queues work on the calling thread's current stream of the probe's device. Waits for that stream
// before and after each repeat.
Times Measure(const Probe& probe, const Repeats& repeats, absl::FunctionRef<void()> body);

// Adds the figures NAME.wall, NAME.enqueue and NAME.device, in ms.
void AddTimes(Probe& probe, absl::string_view name, const Times& times);

// `amount` / time for each of `milliseconds`: with an amount in GB the result is in GB/s.
std::vector<double> PerSecond(double amount, const std::vector<double>& milliseconds);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_MEASURE_H_
