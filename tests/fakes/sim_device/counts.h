#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_COUNTS_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_COUNTS_H_

#include <string>

#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {

// Adds one to a figure of this thread.
void CountSim(int64_t SimCounts::*figure);

// Adds one launch to this thread's, under the operator's name.
void CountSimLaunch(const std::string& name);

// Adds one to the operator's of DrainedOperators.
void CountDrained(const std::string& name);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_COUNTS_H_
