#ifndef HOTLORA_SRC_SAMPLING_PREDICTION_H_
#define HOTLORA_SRC_SAMPLING_PREDICTION_H_

#include <optional>

#include "src/sampling/scheduler_config.h"
#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// The clean latents that the network's output amounts to, in the two scalings that samplers keep latents in.
//
// Shapes   latents, output and result alike
// Dtypes   any; the result is float32
// Source   Ho et al. 2020, arXiv 2006.11239, eq. 15 (noise); Salimans and Ho 2022, arXiv 2202.00512, appendix D (v)

// Latents x0 + sigma * noise:
//   noise   x - sigma * eps
//   v       x / (sigma^2 + 1) - v * sigma / sqrt(sigma^2 + 1)
//   sample  the output
at::Tensor CleanFromSigma(Prediction prediction, const at::Tensor& latents, const at::Tensor& output, float sigma);

// Latents sqrt(abar) * x0 + sqrt(1 - abar) * noise, with signal = sqrt(abar) and noise = sqrt(1 - abar):
//   noise   (x - noise * eps) / signal
//   v       signal * x - noise * v
//   sample  the output
struct SignalLevel {
  explicit SignalLevel(float sigma);
  double signal, noise;
  double lambda;  // log(signal / noise); infinite at sigma 0
};
at::Tensor CleanFromSignal(Prediction prediction, const at::Tensor& latents, const at::Tensor& output, double signal,
                           double noise);

// The clean latents with each value brought into [-limit, limit]; without a limit, themselves.
at::Tensor Clip(const at::Tensor& clean, std::optional<float> limit);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_PREDICTION_H_
