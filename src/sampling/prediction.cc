#include "src/sampling/prediction.h"

#include <cmath>

#include <ATen/ATen.h>

namespace hotlora {

at::Tensor CleanFromSigma(Prediction prediction, const at::Tensor& latents, const at::Tensor& output, float sigma) {
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor predicted = output.to(at::kFloat);
  if (prediction == Prediction::kSample) {
    return predicted;
  }
  if (prediction == Prediction::kV) {
    const float variance = sigma * sigma + 1.0f;
    return predicted * (-sigma / std::sqrt(variance)) + x / variance;
  }
  return x - predicted * sigma;
}

SignalLevel::SignalLevel(float sigma)
    : signal(1.0 / std::sqrt(static_cast<double>(sigma) * sigma + 1.0)),
      noise(sigma * signal),
      lambda(-std::log(static_cast<double>(sigma))) {}

at::Tensor CleanFromSignal(Prediction prediction, const at::Tensor& latents, const at::Tensor& output, double signal,
                           double noise) {
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor predicted = output.to(at::kFloat);
  if (prediction == Prediction::kSample) {
    return predicted;
  }
  if (prediction == Prediction::kV) {
    return x * signal - predicted * noise;
  }
  return (x - predicted * noise) / signal;
}

at::Tensor Clip(const at::Tensor& clean, std::optional<float> limit) {
  return limit.has_value() ? clean.clamp(-*limit, *limit) : clean;
}

}  // namespace hotlora
