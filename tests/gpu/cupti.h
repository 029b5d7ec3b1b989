#ifndef HOTLORA_TESTS_GPU_CUPTI_H_
#define HOTLORA_TESTS_GPU_CUPTI_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace hotlora {

// One piece of work that a device has done.
struct DeviceActivity {
  std::string name;     // of a kernel, mangled; "copy", or "copy of a value" for a fill
  uint64_t begin, end;  // nanoseconds
};

// Runs `body`, which returns when the device has done its work, and tells what the device did meanwhile, by CUPTI's
// activity records. The recording makes the work slower: the records' own times are the device's.
//
// Errors   Unavailable: libcupti is missing, lacks a function, or refuses (its own code is in the text)
// Threads  one call at a time
// Source   CUPTI 13.0, cupti_activity.h: CUpti_ActivityKernel10, CUpti_ActivityMemcpy6, CUpti_ActivityMemset4
absl::StatusOr<std::vector<DeviceActivity>> RecordActivities(absl::FunctionRef<void()> body);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_CUPTI_H_
