#ifndef HOTLORA_SRC_SAMPLING_NOISE_SCHEDULE_H_
#define HOTLORA_SRC_SAMPLING_NOISE_SCHEDULE_H_

// Which timesteps and noise levels (sigmas) a run of N steps visits.

#include <cstdint>
#include <optional>
#include <vector>

#include "src/request/image_request.h"
#include "src/sampling/scheduler_config.h"

namespace hotlora {

// One run, from the noisiest step to the cleanest.
struct StepPlan {
  std::vector<float> timesteps;   // one a step, as the network is told; whole numbers except with
                                  // Karras and exponential
  std::vector<float> sigmas;      // one more: the noise level before each step, then the one at the end
  float init_noise_sigma = 1.0f;  // what unit noise is multiplied with at the start
  uint32_t run_steps = 0;         // of the whole run, also if this is its tail
  Prediction prediction = Prediction::kEpsilon;
  std::optional<float> clip;  // Heun's: the largest magnitude of clean latents; larger ones become that
};

// One run in terms of abar, for samplers whose latents keep unit variance.
struct SignalPlan {
  std::vector<float> timesteps;    // one a step, as the network is told; whole numbers
  std::vector<float> alphas;       // abar at each step
  std::vector<float> next_alphas;  // abar that the step goes to; not always that of the next timestep
  static constexpr float init_noise_sigma = 1.0f;
  Prediction prediction = Prediction::kEpsilon;
  std::optional<float> clip;  // the largest magnitude of clean latents; larger ones become that
};

// Throws if the plan does not have one sigma more than timesteps, or an abar for each.
void CheckPlan(const StepPlan& plan);
void CheckPlan(const SignalPlan& plan);

// The run from its step `first` on, as images that begin with another image take it. REQUIRES: a step is left.
StepPlan Tail(StepPlan plan, uint32_t first);
SignalPlan Tail(SignalPlan plan, uint32_t first);

// The noise schedule that a checkpoint was trained with:
//
//   sigma_t = sqrt((1 - abar_t) / abar_t),  abar_t = product over s <= t of (1 - beta_s)
//
// in float32, like the reference, since abar's rounding shows in the small sigmas. Immutable, thread-safe.
//
// Source   diffusers schedulers/scheduling_euler_discrete.py, set_timesteps and init_noise_sigma. Karras spacing:
//          Karras et al. 2022, arXiv 2206.00364, eq. 5 (rho 7). Zero terminal SNR: arXiv 2305.08891, algorithm 1.
class NoiseSchedule {
 public:
  // `config` must come from ParseSchedulerConfig.
  explicit NoiseSchedule(SchedulerConfig config);

  // The run of `steps` steps, 1 to 1000; exactly that many, also if the training had fewer
  // timesteps.
  StepPlan Plan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // The run of a multistep solver (DPM-Solver++, UniPC): whole timesteps, spaced so that the step after the last one
  // would be the end; Karras and exponential sigmas span the whole training range; unit noise at the start.
  //
  // Source   diffusers DPMSolverMultistepScheduler and UniPCMultistepScheduler, set_timesteps
  StepPlan MultistepPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // DDIM's run. Of a schedule only its timestep spacing counts. REQUIRES: kCheckpoint or kTrailing.
  //
  // Source   diffusers DDIMScheduler, set_timesteps and step
  SignalPlan DdimPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // The run of a latent consistency model: `steps` of the kLcmTrainedSteps timesteps that such models were distilled
  // on, whatever the checkpoint's spacing. REQUIRES: at most kLcmTrainedSteps steps.
  //
  // Source   Luo et al. 2023, arXiv 2310.04378; diffusers LCMScheduler.set_timesteps
  SignalPlan LcmPlan(uint32_t steps) const;
  static constexpr uint32_t kLcmTrainedSteps = 50;

  const SchedulerConfig& config() const { return config_; }

  // abar_t for each training timestep.
  const std::vector<float>& alphas_cumprod() const { return alphas_cumprod_; }

 private:
  SigmaSpacing SigmaSpacingOf(NoiseScheduleKind kind) const;
  TimestepSpacing TimestepSpacingOf(NoiseScheduleKind kind) const;
  float AlphaAt(double timestep) const;

  // `sigmas` of the timesteps; the last one, after all steps, is added.
  StepPlan PlanOf(uint32_t steps, const std::vector<double>& timesteps, std::vector<double> sigmas) const;

  // The timestep, not always whole, at which the training had this noise level.
  double TimestepOf(double sigma) const;

  SchedulerConfig config_;
  std::vector<float> alphas_cumprod_;
  std::vector<float> sigmas_;      // of each training timestep, ascending
  std::vector<float> log_sigmas_;  // their natural logarithms
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_NOISE_SCHEDULE_H_
