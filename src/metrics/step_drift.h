#ifndef HOTLORA_SRC_METRICS_STEP_DRIFT_H_
#define HOTLORA_SRC_METRICS_STEP_DRIFT_H_

// Have denoising steps become slower? Each step is compared with earlier ones of its own kind alone, and medians with
// medians, so that neither a mixed load nor a busy moment looks like drift.
//
// Each kind of step has a baseline: the median of its first kBaselineSteps steps, and until there are so many, what
// warm-up measured. Its ratio is the median of its last kRecentSteps steps over that. The ratio of the server is the
// mean of its kinds' ratios, each weighed by how many of the last kWindowSteps steps were of that kind.
//
// Logic alone, without clocks or locks: not thread-safe.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <vector>

#include "src/metrics/step_shape.h"

namespace hotlora {

class StepDrift {
 public:
  static constexpr size_t kBaselineSteps = 32;
  static constexpr size_t kRecentSteps = 16;
  static constexpr size_t kWindowSteps = 32;
  static constexpr size_t kShapes = 32;  // the least recently used shape beyond them is forgotten

  // What a call made of a shape's baseline.
  struct Change {
    std::optional<double> baseline;    // the new figure of the call's shape, in seconds
    std::optional<StepShape> dropped;  // a shape that is forgotten
  };

  // The shape's baseline until kBaselineSteps steps of it are known. REQUIRES: seconds > 0.
  Change SetWarmUp(const StepShape& shape, double seconds);

  Change Add(const StepShape& shape, double seconds);

  // 1: steps take as long as they did at first. nullopt until a step of a shape with a baseline has been.
  std::optional<double> ratio() const;

 private:
  struct History {
    StepShape shape;
    std::optional<double> baseline;
    std::vector<double> first;  // seconds; empty again once the baseline is their median
    bool settled = false;       // the baseline is that of the first steps
    std::deque<double> recent;  // seconds, newest last
  };

  // Moves the shape's history to the front; makes one if the shape has none.
  History& Use(const StepShape& shape, Change& change);

  std::list<History> histories_;  // most recently used first
  std::deque<StepShape> window_;  // of the last steps
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_STEP_DRIFT_H_
