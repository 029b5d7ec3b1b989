#ifndef HOTLORA_SRC_REQUEST_EVALUATION_RANGE_H_
#define HOTLORA_SRC_REQUEST_EVALUATION_RANGE_H_

// In which evaluations of the network something is in force.

#include <cstdint>

namespace hotlora {

// A part of the evaluations that an image goes through, as fractions of their number: 0 <= start < end <= 1.
struct EvaluationRange {
  double start = 0.0, end = 1.0;

  bool whole() const { return start == 0.0 && end == 1.0; }

  // Whether `evaluation` (from 0) of `total` lies in it, to both its ends. Source: diffusers, controlnet_keep in
  // StableDiffusionXLControlNetPipeline.
  bool Holds(uint32_t evaluation, uint32_t total) const {
    return !(static_cast<double>(evaluation) / total < start || static_cast<double>(evaluation + 1) / total > end);
  }

  // Whether any of `total` evaluations does.
  bool HoldsAny(uint32_t total) const {
    uint32_t evaluation = 0;
    while (evaluation < total && !Holds(evaluation, total)) {
      ++evaluation;
    }
    return evaluation < total;
  }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_EVALUATION_RANGE_H_
