#ifndef HOTLORA_SERVER_ALARM_TIME_H_
#define HOTLORA_SERVER_ALARM_TIME_H_

#include <algorithm>

#include "absl/time/time.h"
#include <grpc/support/time.h>

#include "src/base/steady_time.h"

namespace hotlora {

// A time as SteadyNow has it, as gRPC's alarms and deadlines take it.
inline gpr_timespec AlarmTime(absl::Time time) {
  const absl::Duration left = std::max(time - SteadyNow(), absl::ZeroDuration());
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(absl::ToInt64Nanoseconds(left), GPR_TIMESPAN));
}

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ALARM_TIME_H_
