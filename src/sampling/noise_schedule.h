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
  std::vector<float> timesteps;       // one a step, as the network is told; not all schedules have whole numbers
  std::vector<float> sigmas;          // one more: the noise level before each step, then the one at the end
  float init_noise_sigma = 1.0f;      // what unit noise is multiplied with at the start
  uint32_t run_steps = 0;             // of the whole run, also if this is its tail
  std::vector<float> earlier_sigmas;  // of the steps before this tail of a run, noisiest first
  Prediction prediction = Prediction::kEpsilon;
  std::optional<float> clip;  // Heun's alone: the largest magnitude of clean latents; larger ones become that

  // True if the whole run is so short that multistep solvers end it with steps of lower order.
  bool few_steps() const { return run_steps < 15; }
};

// One run in terms of abar, for samplers whose latents keep unit variance.
struct SignalPlan {
  std::vector<float> timesteps;    // one a step, as the network is told; whole numbers
  std::vector<float> alphas;       // abar at each step
  std::vector<float> next_alphas;  // abar that the step goes to; not always that of the next timestep
  std::vector<float> fresh_noise;  // the deviation of the noise that a step adds; steps beyond its end draw none
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
// Two kinds are the same for every sampler. Align Your Steps: the ten published timesteps for SDXL; for N steps their
// ten sigmas, interpolated in log at N points. SGM uniform: timesteps T - T * i / N, T being the training's last one,
// not rounded, sigmas interpolated in log.
//
// Source   diffusers schedulers/scheduling_euler_discrete.py, set_timesteps and init_noise_sigma. Zero terminal SNR:
//          arXiv 2305.08891, algorithm 1. Align Your Steps: Sabour et al. 2024, arXiv 2404.14507
class NoiseSchedule {
 public:
  // `config` must come from ParseSchedulerConfig.
  explicit NoiseSchedule(SchedulerConfig config);

  // The run of `steps` steps, 1 to 1000; exactly that many, also if the training had fewer
  // timesteps.
  StepPlan Plan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // DPM2's run: Plan's, with Karras' timesteps rounded. Clean latents are not limited.
  //
  // Source   diffusers KDPM2DiscreteScheduler and KDPM2AncestralDiscreteScheduler, set_timesteps
  StepPlan Dpm2Plan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // The run of a multistep solver (DPM-Solver++, UniPC): whole timesteps (not with Align Your Steps at other than 10
  // steps, nor with SGM uniform), spaced so that the step after the last one
  // would be the end; sigmas that a formula spreads span the whole training range; unit noise at the start.
  //
  // Source   diffusers DPMSolverMultistepScheduler and UniPCMultistepScheduler, set_timesteps
  StepPlan MultistepPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // The run of DPM-Solver++ 2S: MultistepPlan's with linspace timesteps, unless they are trailing ones.
  //
  // Source   diffusers DPMSolverSinglestepScheduler.set_timesteps
  StepPlan SinglestepPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // DEIS' run: MultistepPlan's, but never to sigma 0: to the training's smallest one, or where a formula spreads the
  // sigmas, to the last of them, so that the last step changes nothing.
  //
  // Source   diffusers DEISMultistepScheduler.set_timesteps
  StepPlan DeisPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault) const;

  // DDIM's run. Of a schedule only its timestep spacing counts. With `eta` above 0 each step adds noise of deviation
  // eta * sqrt((1 - abar_next) / (1 - abar) * (1 - abar / abar_next)). REQUIRES: kDefault or kTrailing; eta 0 to 1.
  //
  // Source   Song et al. 2021, arXiv 2010.02502, eq. 16; diffusers DDIMScheduler, set_timesteps and step
  SignalPlan DdimPlan(uint32_t steps, NoiseScheduleKind kind = NoiseScheduleKind::kDefault, double eta = 0.0) const;

  // The run of a latent consistency model: `steps` of the kDistilledSteps timesteps that such models were distilled
  // on, whatever the checkpoint's spacing. REQUIRES: at most kDistilledSteps steps.
  //
  // Source   Luo et al. 2023, arXiv 2310.04378; diffusers LCMScheduler.set_timesteps
  SignalPlan LcmPlan(uint32_t steps) const;
  static constexpr uint32_t kDistilledSteps = 50;

  // TCD's run, on LcmPlan's timesteps, to the training's first abar. A step goes to abar_s at the timestep
  // s = floor((1 - eta) * next timestep), then back up to abar_next; that is DDIM's step with noise of deviation
  // sqrt(1 - abar_next / abar_s). With `eta` above 0 every step but the last draws. REQUIRES: eta 0 to 1.
  //
  // Source   Zheng et al. 2024, arXiv 2402.19159, algorithm 4; diffusers TCDScheduler, set_timesteps and step
  SignalPlan TcdPlan(uint32_t steps, double eta) const;

  // The timestep, not always whole, at which the training had this noise level.
  double TimestepOf(double sigma) const;

  const SchedulerConfig& config() const { return config_; }

  // abar_t for each training timestep.
  const std::vector<float>& alphas_cumprod() const { return alphas_cumprod_; }

 private:
  SigmaSpacing SigmaSpacingOf(NoiseScheduleKind kind) const;
  TimestepSpacing TimestepSpacingOf(NoiseScheduleKind kind) const;
  float AlphaAt(double timestep) const;

  struct Levels {
    std::vector<double> timesteps, sigmas;
  };
  // Those of Align Your Steps and of SGM uniform, if `kind` is one; else the sigmas of `spaced`.
  Levels LevelsOf(NoiseScheduleKind kind, uint32_t steps, std::vector<double> spaced) const;
  Levels AlignYourSteps(uint32_t steps) const;
  Levels SgmUniform(uint32_t steps) const;

  StepPlan MultistepPlan(uint32_t steps, NoiseScheduleKind kind, TimestepSpacing spacing) const;
  // The last sigma, after all steps, is added.
  StepPlan PlanOf(uint32_t steps, Levels levels) const;

  SchedulerConfig config_;
  std::vector<float> alphas_cumprod_;
  std::vector<float> sigmas_;      // of each training timestep, ascending
  std::vector<float> log_sigmas_;  // their natural logarithms
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_NOISE_SCHEDULE_H_
