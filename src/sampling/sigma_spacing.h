#ifndef HOTLORA_SRC_SAMPLING_SIGMA_SPACING_H_
#define HOTLORA_SRC_SAMPLING_SIGMA_SPACING_H_

#include <cstddef>
#include <vector>

#include "src/sampling/scheduler_config.h"

namespace hotlora {

// `count` noise levels from `most` down to `least`; of one, `most`. With r from 0 to 1 in equal parts:
//
//   Karras            (most^(1/7) + r * (least^(1/7) - most^(1/7)))^7
//   exponential, Lu   exp(log(most) + r * (log(least) - log(most)))
//   beta              least + q * (most - least), q the quantile 1 - r of Beta(0.6, 0.6)
//
// REQUIRES: `spacing` is not kTimesteps; most and least are above 0.
//
// Source   Karras et al. 2022, arXiv 2206.00364, eq. 5; Lu et al. 2022, arXiv 2206.00927 (even in lambda); Lee et al.
//          2024, arXiv 2407.12173 (beta), linear in sigma as in diffusers
std::vector<double> SpreadSigmas(SigmaSpacing spacing, double most, double least, size_t count);

// The number below which Beta(shape, shape) has the part `probability`, to 1e-12. REQUIRES: shape is above 0 and
// at most 1, probability from 0 to 1.
double SymmetricBetaQuantile(double probability, double shape);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_SIGMA_SPACING_H_
