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
#include <tuple>
#include <vector>

namespace hotlora {

// All that a step's time depends on, as far as it is known: steps of equal shape are alike.
struct StepShape {
  uint32_t width = 0, height = 0, rows = 0;
  uint32_t guided_rows = 0;  // each is two rows of the network
  uint32_t side_sets = 0;    // adapter sets that are computed beside the weights; 0: merged, or none

  bool cfg() const { return guided_rows > 0; }
  // The labels width, height, rows and cfg say all that there is to say of it.
  bool plain() const { return side_sets == 0 && (guided_rows == 0 || guided_rows == rows); }
  auto Key() const { return std::tie(width, height, rows, guided_rows, side_sets); }
};

inline bool operator==(const StepShape& a, const StepShape& b) { return a.Key() == b.Key(); }

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
