#include "src/sampling/sigma_spacing.h"

#include <cmath>

#include <c10/util/Exception.h>

namespace hotlora {
namespace {

constexpr double kRho = 7.0, kBetaShape = 0.6;

// The integral of t^(shape - 1) * (1 - t)^(shape - 1) from 0 to x, by its power series, which halves from term to term.
// REQUIRES: x is at most 0.5.
double IncompleteBeta(double x, double shape) {
  double term = std::pow(x, shape), sum = term / shape;
  for (int n = 1; term > 1e-18; ++n) {
    term *= x * (n - shape) / n;
    sum += term / (n + shape);
  }
  return sum;
}

double Spread(SigmaSpacing spacing, double most, double least, double ramp) {
  switch (spacing) {
    case SigmaSpacing::kKarras: {
      const double top = std::pow(most, 1.0 / kRho);
      return std::pow(top + ramp * (std::pow(least, 1.0 / kRho) - top), kRho);
    }
    case SigmaSpacing::kExponential:
    case SigmaSpacing::kLu:
      return std::exp(std::log(most) + ramp * (std::log(least) - std::log(most)));
    case SigmaSpacing::kBeta:
      return least + SymmetricBetaQuantile(1.0 - ramp, kBetaShape) * (most - least);
    case SigmaSpacing::kTimesteps:
      break;
  }
  TORCH_CHECK(false, "these sigmas are not spread by a formula");
}

}  // namespace

std::vector<double> SpreadSigmas(SigmaSpacing spacing, double most, double least, size_t count) {
  std::vector<double> sigmas;
  for (size_t i = 0; i < count; ++i) {
    const double ramp = count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0.0;
    sigmas.push_back(Spread(spacing, most, least, ramp));
  }
  return sigmas;
}

double SymmetricBetaQuantile(double probability, double shape) {
  if (probability > 0.5) {
    return 1.0 - SymmetricBetaQuantile(1.0 - probability, shape);
  }
  const double wanted = probability * 2.0 * IncompleteBeta(0.5, shape);
  double below = 0.0, above = 0.5;
  while (above - below > 1e-13) {
    const double middle = (below + above) / 2.0;
    (IncompleteBeta(middle, shape) < wanted ? below : above) = middle;
  }
  return above;
}

}  // namespace hotlora
