#ifndef HOTLORA_SRC_SAMPLING_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_SAMPLER_H_

// The solver of one row: from latents and the network's prediction to the next latents.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <c10/util/ArrayRef.h>

#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// Draws the row's next unit noise of that shape, float32 on the CPU: for samplers that add noise as they go. Such a
// sampler draws once a step, after the noise of the first latents; LCM, TCD and DPM2 ancestral not at the last.
using NoiseSource = std::function<at::Tensor(c10::IntArrayRef)>;

// The state of one row's sampler. The step index is its own, never looked up by timestep. Owned by
// its row; only the step thread touches it.
//
// Shapes   latents, model_output alike: [batch, 4, height / 8, width / 8], batch usually 1
// Dtypes   latents float32; model_output float32, bfloat16 or float16; results float32
// Errors   throws c10::Error when stepped after it is done
class SamplerState {
 public:
  virtual ~SamplerState() = default;

  virtual uint32_t steps_done() const = 0;
  virtual uint32_t total_steps() const = 0;
  bool done() const { return steps_done() >= total_steps(); }

  // `clean` latents under unit `noise`, as the next evaluation expects latents to be; `clean` itself once done.
  at::Tensor AddNoise(const at::Tensor& clean, const at::Tensor& noise) const;

  // What unit noise is multiplied with to become the first latents.
  virtual float init_noise_sigma() const = 0;

  // The timestep of the next evaluation of the network. REQUIRES: not done.
  float timestep() const { return timesteps(1).at(0); }

  // The timesteps of the next evaluations, in order: as many as are left, at most `most`.
  virtual std::vector<float> timesteps(size_t most) const = 0;

  // The latents as the network wants them at timestep().
  virtual at::Tensor ScaleInput(const at::Tensor& latents) const = 0;

  // The network's estimate of the finished latents, of the same arguments as Step and before it.
  virtual at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const = 0;

  // The latents after one evaluation of the network at ScaleInput(latents); the arguments are left
  // as they were. One evaluation is one step. Samplers that need two (Heun, DPM2) move
  // steps_done() at the second.
  virtual at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) = 0;

 protected:
  // Latents at the next evaluation are signal * clean + noise * unit noise. REQUIRES: not done.
  struct NoiseLevel {
    double signal = 1.0, noise = 0.0;
  };
  virtual NoiseLevel level() const = 0;

  // What ScaleInput and Step require; throw otherwise.
  void CheckNotDone() const;
  void CheckStep(const at::Tensor& latents, const at::Tensor& model_output) const;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_SAMPLER_H_
