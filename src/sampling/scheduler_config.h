#ifndef HOTLORA_SRC_SAMPLING_SCHEDULER_CONFIG_H_
#define HOTLORA_SRC_SAMPLING_SCHEDULER_CONFIG_H_

// What a checkpoint's scheduler_config.json says of its noise schedule, checked. The sampler that
// the file names is not taken from it: a request names its own. ("Scheduler" is diffusers' word;
// our scheduler/ batches steps.)

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace hotlora {

enum class BetaSchedule { kLinear, kScaledLinear, kSquaredCosine };

// How the timesteps of a run are spread over the training's (Lin et al. 2023, arXiv 2305.08891,
// table 2).
enum class TimestepSpacing { kLinspace, kLeading, kTrailing };

// How the sigmas between the first and the last are spread: by the timesteps, or in place of them
// by a formula (src/sampling/sigma_spacing.h). A checkpoint's file has the first three only.
enum class SigmaSpacing { kTimesteps, kKarras, kExponential, kBeta, kLu };

// What the network predicts: the noise, v (Salimans and Ho 2022, arXiv 2202.00512), or the clean latents themselves.
enum class Prediction { kEpsilon, kV, kSample };

// Defaults are those of diffusers' EulerDiscreteScheduler, for keys that the file lacks.
struct SchedulerConfig {
  int num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  BetaSchedule beta_schedule = BetaSchedule::kLinear;
  std::vector<float> trained_betas;  // if not empty, the betas themselves
  Prediction prediction = Prediction::kEpsilon;
  TimestepSpacing timestep_spacing = TimestepSpacing::kLinspace;
  SigmaSpacing sigma_spacing = SigmaSpacing::kTimesteps;
  int steps_offset = 0;
  bool rescale_betas_zero_snr = false;
  bool set_alpha_to_one = true;  // DDIM ends at abar 1, not at the training's first one (DDIMScheduler's default)
  // DDIM, LCM, Heun: the largest magnitude of clean latents. Only if the file has clip_sample: true, though that is
  // those schedulers' own default in diffusers: latents are not limited to [-1, 1].
  std::optional<float> clip;
  bool final_sigma_min = false;                // the last sigma is the training's smallest one, not 0
  std::optional<double> sigma_min, sigma_max;  // ends of spacings by a formula, if not the run's own
};

// FailedPrecondition names the key, its value and what is allowed: a schedule that is not
// understood is never replaced by another one. Keys that do not shape the noise schedule are left
// alone.
absl::StatusOr<SchedulerConfig> ParseSchedulerConfig(const nlohmann::json& json);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_SCHEDULER_CONFIG_H_
