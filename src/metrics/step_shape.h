#ifndef HOTLORA_SRC_METRICS_STEP_SHAPE_H_
#define HOTLORA_SRC_METRICS_STEP_SHAPE_H_

#include <cstdint>
#include <tuple>

namespace hotlora {

// All that a step's time depends on, as far as it is known: steps of equal shape are alike.
struct StepShape {
  uint32_t width = 0, height = 0, rows = 0;
  uint32_t guided_rows = 0;    // each is two rows of the network
  uint32_t side_sets = 0;      // adapter sets that are computed beside the weights; 0: merged, or none
  uint32_t controls = 0;       // ControlNets' pictures in force on all rows
  uint32_t image_prompts = 0;  // of all rows

  bool cfg() const { return guided_rows > 0; }
  // The labels width, height, rows and cfg say all that there is to say of it.
  bool plain() const { return side_sets == 0 && !conditioned() && (guided_rows == 0 || guided_rows == rows); }
  // Whether a row has more than texts and adapters.
  bool conditioned() const { return controls > 0 || image_prompts > 0; }
  auto Key() const { return std::tie(width, height, rows, guided_rows, side_sets, controls, image_prompts); }
};

inline bool operator==(const StepShape& a, const StepShape& b) { return a.Key() == b.Key(); }

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_STEP_SHAPE_H_
