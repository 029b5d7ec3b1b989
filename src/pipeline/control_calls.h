#ifndef HOTLORA_SRC_PIPELINE_CONTROL_CALLS_H_
#define HOTLORA_SRC_PIPELINE_CONTROL_CALLS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/pipeline/pipeline.h"
#include "src/sdxl/placed_control_net.h"
#include "src/sdxl/unet_encoder.h"

namespace hotlora {

// A control whose picture is embedded.
struct EmbeddedControl {
  std::shared_ptr<const PlacedControlNet> net;
  ControlHint hint;
  EvaluationRange range;
};

struct SdxlControls final : Controls {
  // Those in force in that evaluation of so many.
  std::vector<const EmbeddedControl*> InForce(uint32_t evaluation, uint32_t evaluations) const;

  std::vector<EmbeddedControl> controls;
};

// The picture of `input` on the net's device, embedded by it.
EmbeddedControl EmbedControl(const ControlInput& input);

// The rows of an image in a batch, and the controls in force on them. Never empty.
struct ControlledRowRange {
  int64_t first = 0, rows = 1;
  std::vector<const EmbeddedControl*> in_force;
};

// Runs the nets of all ranges, which ascend and do not overlap, over their rows of `batch`: each net once for all of
// its rows. A net of one kind runs once more for each further picture that an image has for it; the pictures of a union
// net are one call.
std::vector<ControlledRows> RunControlNets(const UnetInput& batch, const std::vector<ControlledRowRange>& ranges);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_CONTROL_CALLS_H_
