#ifndef HOTLORA_SRC_SCHEDULER_STUCK_WORK_H_
#define HOTLORA_SRC_SCHEDULER_STUCK_WORK_H_

// Work on the device, and when it counts as stuck, as plain values; work_watch.h finds it.

#include <string>

#include "absl/time/time.h"

#include "src/metrics/step_shape.h"

namespace hotlora {

// kCheck: a check of a module's base weights.
enum class WorkKind { kApply, kEncode, kStep, kDecode, kCheck };

// Work of equal kind and shape takes about as long each time.
struct Work {
  WorkKind kind = WorkKind::kStep;
  StepShape shape;
};

struct WorkLimits {
  double times_usual = 10.0;                            // work is stuck after so many times what it usually takes,
  absl::Duration least = absl::Seconds(60);             // but not before this,
  absl::Duration unknown = absl::Minutes(10);           // and after this if nothing is known
  absl::Duration before_giving_up = absl::Minutes(10);  // hopeless: stuck for this, or for 5 times its limit if longer
};

struct StuckWork {
  Work work;
  bool hopeless = false;  // only a restart helps
  std::string text;       // "a step of 1024x1024 (rows: 2) has taken 1m5s; it usually takes 400ms"
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_STUCK_WORK_H_
