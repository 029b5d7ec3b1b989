#include "src/sampling/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

std::vector<float> ToVector(const at::Tensor& tensor) {
  const at::Tensor values = tensor.contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
}

at::Tensor ToTensor(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }

// Glide's cosine schedule: abar(t) = cos^2((t + 0.008) / 1.008 * pi / 2).
at::Tensor SquaredCosineBetas(int count) {
  const auto alpha_bar = [](double t) {
    const double root = std::cos((t + 0.008) / 1.008 * M_PI / 2);
    return root * root;
  };
  std::vector<float> betas;
  for (int i = 0; i < count; ++i) {
    const double ratio = alpha_bar(static_cast<double>(i + 1) / count) / alpha_bar(static_cast<double>(i) / count);
    betas.push_back(static_cast<float>(std::min(1.0 - ratio, 0.999)));
  }
  return ToTensor(betas);
}

at::Tensor Betas(const SchedulerConfig& config) {
  const int count = config.num_train_timesteps;
  if (!config.trained_betas.empty()) {
    return ToTensor(config.trained_betas);
  }
  switch (config.beta_schedule) {
    case BetaSchedule::kLinear:
      return at::linspace(config.beta_start, config.beta_end, count, at::kFloat);
    case BetaSchedule::kScaledLinear:
      return at::linspace(std::sqrt(config.beta_start), std::sqrt(config.beta_end), count, at::kFloat).square();
    case BetaSchedule::kSquaredCosine:
      return SquaredCosineBetas(count);
  }
  TORCH_CHECK(false, "unknown beta schedule");
}

// Algorithm 1 of arXiv 2305.08891: shifts and scales sqrt(abar) so that it ends in 0 and begins
// where it began.
at::Tensor RescaleToZeroSnr(const at::Tensor& betas) {
  at::Tensor root = at::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone();
  const at::Tensor last = root[-1].clone();
  root = (root - last) * (first / (first - last));
  const at::Tensor alpha_bar = root.square();
  return 1.0 - at::cat({alpha_bar.slice(0, 0, 1), alpha_bar.slice(0, 1) / alpha_bar.slice(0, 0, -1)});
}

// Descending, in double: the sigmas are interpolated at the exact timestep.
std::vector<double> SpacedTimesteps(TimestepSpacing spacing, const SchedulerConfig& config, int steps) {
  const int trained = config.num_train_timesteps;
  std::vector<double> timesteps(steps);
  for (int i = 0; i < steps; ++i) {
    switch (spacing) {
      case TimestepSpacing::kLinspace: {
        const double stride = steps > 1 ? static_cast<double>(trained - 1) / (steps - 1) : 0.0;
        timesteps[steps - 1 - i] = static_cast<float>(i == steps - 1 && steps > 1 ? trained - 1 : i * stride);
        break;
      }
      case TimestepSpacing::kLeading:
        timesteps[steps - 1 - i] = i * (trained / steps) + config.steps_offset;
        break;
      case TimestepSpacing::kTrailing: {
        // The stride as numpy.arange has it, so that halves round to the same side as in the
        // reference.
        const double start = trained;
        const double stride = (start - start / steps) - start;
        timesteps[i] = std::nearbyint(start + i * stride) - 1.0;
        break;
      }
    }
  }
  return timesteps;
}

// As SpacedTimesteps, but whole, and with a last place left free for the end of the run.
std::vector<double> MultistepTimesteps(TimestepSpacing spacing, const SchedulerConfig& config, int steps) {
  if (spacing == TimestepSpacing::kTrailing) {
    return SpacedTimesteps(spacing, config, steps);
  }
  const int trained = config.num_train_timesteps;
  std::vector<double> timesteps(steps);
  for (int i = 0; i < steps; ++i) {
    const int place = steps - i;  // of steps + 1 places, 0 is the free one
    if (spacing == TimestepSpacing::kLinspace) {
      timesteps[i] = std::nearbyint(place * (static_cast<double>(trained - 1) / steps));
    } else {
      // A stride of 0, the reference's for more steps than the training had, would never arrive.
      timesteps[i] = place * std::max(1, trained / (steps + 1)) + config.steps_offset;
    }
    timesteps[i] = std::min(timesteps[i], trained - 1.0);
  }
  return timesteps;
}

// `values` at a place between its indices, the first and last value beyond them.
double Interpolate(const std::vector<float>& values, double place) {
  if (place <= 0.0) {
    return values.front();
  }
  if (place >= static_cast<double>(values.size() - 1)) {
    return values.back();
  }
  const auto index = static_cast<size_t>(place);
  const double low = values[index];
  return (values[index + 1] - low) * (place - static_cast<double>(index)) + low;
}

// In place of sigmas: as many between `most` and `least`, unless the config has ends of its own, spread by the formula.
void Respace(SigmaSpacing spacing, const SchedulerConfig& config, double most, double least,
             std::vector<double>& sigmas) {
  most = config.sigma_max.value_or(most);
  least = config.sigma_min.value_or(least);
  constexpr double kRho = 7.0;
  for (size_t i = 0; i < sigmas.size(); ++i) {
    const double ramp = sigmas.size() > 1 ? static_cast<double>(i) / static_cast<double>(sigmas.size() - 1) : 0.0;
    if (spacing == SigmaSpacing::kKarras) {
      const double top = std::pow(most, 1.0 / kRho);
      sigmas[i] = std::pow(top + ramp * (std::pow(least, 1.0 / kRho) - top), kRho);
    } else {
      sigmas[i] = std::exp(std::log(most) + ramp * (std::log(least) - std::log(most)));
    }
  }
}

void CheckSteps(uint32_t steps, uint32_t most = 1000) {
  TORCH_CHECK(steps >= 1 && steps <= most, "steps is ", steps, ", allowed are 1 to ", most);
}

void DropFront(std::vector<float>& values, uint32_t count) {
  TORCH_CHECK(count < values.size(), "a run of ", values.size(), " steps has no step ", count);
  values.erase(values.begin(), values.begin() + count);
}

}  // namespace

void CheckPlan(const StepPlan& plan) {
  TORCH_CHECK(plan.sigmas.size() == plan.timesteps.size() + 1, "step plan of ", plan.timesteps.size(),
              " timesteps has ", plan.sigmas.size(), " sigmas");
}

void CheckPlan(const SignalPlan& plan) {
  TORCH_CHECK(plan.alphas.size() == plan.timesteps.size() && plan.next_alphas.size() == plan.timesteps.size(),
              "signal plan of ", plan.timesteps.size(), " timesteps has ", plan.alphas.size(), " and ",
              plan.next_alphas.size(), " alphas");
}

StepPlan Tail(StepPlan plan, uint32_t first) {
  DropFront(plan.timesteps, first);
  DropFront(plan.sigmas, first);
  return plan;
}

SignalPlan Tail(SignalPlan plan, uint32_t first) {
  DropFront(plan.timesteps, first);
  DropFront(plan.alphas, first);
  DropFront(plan.next_alphas, first);
  return plan;
}

NoiseSchedule::NoiseSchedule(SchedulerConfig config) : config_(std::move(config)) {
  at::Tensor betas = Betas(config_);
  if (config_.rescale_betas_zero_snr) {
    betas = RescaleToZeroSnr(betas);
  }
  at::Tensor alphas_cumprod = at::cumprod(1.0 - betas, 0);
  if (config_.rescale_betas_zero_snr) {
    // Near 0 without being 0, so that the first sigma is finite.
    alphas_cumprod[-1].fill_(std::ldexp(1.0, -24));
  }
  const at::Tensor sigmas = ((1.0 - alphas_cumprod) / alphas_cumprod).sqrt();
  alphas_cumprod_ = ToVector(alphas_cumprod);
  sigmas_ = ToVector(sigmas);
  // Rounded from double: vectorised logarithms in float32 differ in the last digit from machine to
  // machine.
  std::transform(sigmas_.begin(), sigmas_.end(), std::back_inserter(log_sigmas_),
                 [](double sigma) { return static_cast<float>(std::log(sigma)); });
}

StepPlan NoiseSchedule::Plan(uint32_t steps, NoiseScheduleKind kind) const {
  CheckSteps(steps);
  const TimestepSpacing spacing = TimestepSpacingOf(kind);
  const SigmaSpacing sigma_spacing = SigmaSpacingOf(kind);
  std::vector<double> timesteps = SpacedTimesteps(spacing, config_, static_cast<int>(steps));
  std::vector<double> sigmas;
  for (const double timestep : timesteps) {
    sigmas.push_back(Interpolate(sigmas_, timestep));
  }
  if (sigma_spacing != SigmaSpacing::kTimesteps) {
    Respace(sigma_spacing, config_, sigmas.front(), sigmas.back(), sigmas);
    std::transform(sigmas.begin(), sigmas.end(), timesteps.begin(), [this](double sigma) { return TimestepOf(sigma); });
  }
  StepPlan plan = PlanOf(steps, timesteps, std::move(sigmas));
  plan.clip = config_.clip;
  const float largest = *std::max_element(plan.sigmas.begin(), plan.sigmas.end());
  plan.init_noise_sigma = spacing == TimestepSpacing::kLeading ? std::sqrt(largest * largest + 1.0f) : largest;
  return plan;
}

StepPlan NoiseSchedule::PlanOf(uint32_t steps, const std::vector<double>& timesteps, std::vector<double> sigmas) const {
  sigmas.push_back(config_.final_sigma_min ? sigmas_.front() : 0.0);
  StepPlan plan;
  plan.timesteps.assign(timesteps.begin(), timesteps.end());
  plan.sigmas.assign(sigmas.begin(), sigmas.end());
  plan.run_steps = steps;
  plan.prediction = config_.prediction;
  return plan;
}

StepPlan NoiseSchedule::MultistepPlan(uint32_t steps, NoiseScheduleKind kind) const {
  CheckSteps(steps);
  const SigmaSpacing sigma_spacing = SigmaSpacingOf(kind);
  std::vector<double> timesteps = MultistepTimesteps(TimestepSpacingOf(kind), config_, static_cast<int>(steps));
  std::vector<double> sigmas;
  for (const double timestep : timesteps) {
    sigmas.push_back(Interpolate(sigmas_, timestep));
  }
  if (sigma_spacing != SigmaSpacing::kTimesteps) {
    Respace(sigma_spacing, config_, sigmas_.back(), sigmas_.front(), sigmas);
    std::transform(sigmas.begin(), sigmas.end(), timesteps.begin(), [&](double sigma) {
      // The reference rounds the ones and truncates the others.
      const double timestep = TimestepOf(sigma);
      return sigma_spacing == SigmaSpacing::kKarras ? std::nearbyint(timestep) : std::trunc(timestep);
    });
  }
  return PlanOf(steps, timesteps, std::move(sigmas));
}

SignalPlan NoiseSchedule::DdimPlan(uint32_t steps, NoiseScheduleKind kind) const {
  CheckSteps(steps);
  TORCH_CHECK(kind == NoiseScheduleKind::kDefault || kind == NoiseScheduleKind::kTrailing,
              "DDIM has no Karras and no exponential schedule");
  const int stride = config_.num_train_timesteps / static_cast<int>(steps);
  SignalPlan plan;
  plan.prediction = config_.prediction;
  plan.clip = config_.clip;
  for (const double spaced : SpacedTimesteps(TimestepSpacingOf(kind), config_, static_cast<int>(steps))) {
    const double timestep = std::min(std::nearbyint(spaced), config_.num_train_timesteps - 1.0);
    const double next = timestep - stride;
    plan.timesteps.push_back(static_cast<float>(timestep));
    plan.alphas.push_back(AlphaAt(timestep));
    plan.next_alphas.push_back(next >= 0.0 ? AlphaAt(next) : config_.set_alpha_to_one ? 1.0f : AlphaAt(0.0));
  }
  return plan;
}

SignalPlan NoiseSchedule::LcmPlan(uint32_t steps) const {
  CheckSteps(steps, kLcmTrainedSteps);
  const int stride = std::max(1, config_.num_train_timesteps / static_cast<int>(kLcmTrainedSteps));
  SignalPlan plan;
  plan.prediction = config_.prediction;
  plan.clip = config_.clip;
  for (uint32_t i = 0; i < steps; ++i) {
    const auto skipped = static_cast<int>(i * (static_cast<double>(kLcmTrainedSteps) / steps));
    const int timestep = (static_cast<int>(kLcmTrainedSteps) - skipped) * stride - 1;
    plan.timesteps.push_back(static_cast<float>(std::min(timestep, config_.num_train_timesteps - 1)));
    plan.alphas.push_back(AlphaAt(plan.timesteps.back()));
  }
  plan.next_alphas.assign(plan.alphas.begin() + 1, plan.alphas.end());
  plan.next_alphas.push_back(1.0f);
  return plan;
}

TimestepSpacing NoiseSchedule::TimestepSpacingOf(NoiseScheduleKind kind) const {
  return kind == NoiseScheduleKind::kTrailing ? TimestepSpacing::kTrailing : config_.timestep_spacing;
}

SigmaSpacing NoiseSchedule::SigmaSpacingOf(NoiseScheduleKind kind) const {
  return kind == NoiseScheduleKind::kKarras        ? SigmaSpacing::kKarras
         : kind == NoiseScheduleKind::kExponential ? SigmaSpacing::kExponential
                                                   : config_.sigma_spacing;
}

float NoiseSchedule::AlphaAt(double timestep) const { return alphas_cumprod_.at(static_cast<size_t>(timestep)); }

double NoiseSchedule::TimestepOf(double sigma) const {
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  // The last training sigma that is not above, but never the very last: there must be one to
  // interpolate to.
  const auto above = std::upper_bound(log_sigmas_.begin(), log_sigmas_.end(), log_sigma);
  const auto count = static_cast<size_t>(above - log_sigmas_.begin());
  const size_t index = std::min(count == 0 ? 0 : count - 1, log_sigmas_.size() - 2);
  const float low = log_sigmas_[index];
  const float high = log_sigmas_[index + 1];
  const double part = std::clamp((low - log_sigma) / (low - high), 0.0, 1.0);
  return (1.0 - part) * static_cast<double>(index) + part * static_cast<double>(index + 1);
}

}  // namespace hotlora
