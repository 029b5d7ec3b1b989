#ifndef HOTLORA_SRC_SAMPLING_ANCESTRAL_STEP_H_
#define HOTLORA_SRC_SAMPLING_ANCESTRAL_STEP_H_

#include <algorithm>
#include <cmath>

namespace hotlora {

// How a step from noise level `sigma` to `next` divides: down to a level below `next`, then fresh noise up to it.
//
//   up     sqrt(next^2 * (sigma^2 - next^2) / sigma^2)
//   down   sqrt(next^2 - up^2)
//
// Neither is below 0, also if `next` is above `sigma`.
//
// Source   Song et al. 2021, arXiv 2011.13456, appendix F (ancestral sampling of a variance-exploding process)
struct AncestralStep {
  AncestralStep(float sigma, float next)
      : up(std::sqrt(std::max(0.0f, next * next * (sigma * sigma - next * next) / (sigma * sigma)))),
        down(std::sqrt(std::max(0.0f, next * next - up * up))) {}
  float up, down;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_ANCESTRAL_STEP_H_
