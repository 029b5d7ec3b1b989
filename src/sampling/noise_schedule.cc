#include "src/sampling/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/sigma_spacing.h"

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

void CheckSteps(uint32_t steps, uint32_t most = 1000) {
  TORCH_CHECK(steps >= 1 && steps <= most, "steps is ", steps, ", allowed are 1 to ", most);
}

// Numbers from 0 to the last index of `size` values, `count` of them in equal parts; of one, 0.
std::vector<double> EqualParts(size_t size, uint32_t count) {
  std::vector<double> places(count);
  for (uint32_t i = 1; i < count; ++i) {
    places[i] = static_cast<double>(size - 1) * i / (count - 1);
  }
  return places;
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
  plan.earlier_sigmas.insert(plan.earlier_sigmas.end(), plan.sigmas.begin(), plan.sigmas.begin() + first);
  DropFront(plan.sigmas, first);
  return plan;
}

SignalPlan Tail(SignalPlan plan, uint32_t first) {
  DropFront(plan.timesteps, first);
  DropFront(plan.alphas, first);
  DropFront(plan.next_alphas, first);
  plan.fresh_noise.erase(plan.fresh_noise.begin(),
                         plan.fresh_noise.begin() + std::min<size_t>(first, plan.fresh_noise.size()));
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
  Levels levels = LevelsOf(kind, steps, SpacedTimesteps(spacing, config_, static_cast<int>(steps)));
  if (sigma_spacing != SigmaSpacing::kTimesteps) {
    levels.sigmas = SpreadSigmas(sigma_spacing, config_.sigma_max.value_or(levels.sigmas.front()),
                                 config_.sigma_min.value_or(levels.sigmas.back()), steps);
    std::transform(levels.sigmas.begin(), levels.sigmas.end(), levels.timesteps.begin(),
                   [this](double sigma) { return TimestepOf(sigma); });
  }
  StepPlan plan = PlanOf(steps, std::move(levels));
  plan.clip = config_.clip;
  const float largest = *std::max_element(plan.sigmas.begin(), plan.sigmas.end());
  plan.init_noise_sigma = spacing == TimestepSpacing::kLeading ? std::sqrt(largest * largest + 1.0f) : largest;
  return plan;
}

StepPlan NoiseSchedule::Dpm2Plan(uint32_t steps, NoiseScheduleKind kind) const {
  StepPlan plan = Plan(steps, kind);
  plan.clip.reset();
  if (SigmaSpacingOf(kind) == SigmaSpacing::kKarras) {
    std::transform(plan.timesteps.begin(), plan.timesteps.end(), plan.timesteps.begin(),
                   [](float timestep) { return std::nearbyint(timestep); });
  }
  return plan;
}

NoiseSchedule::Levels NoiseSchedule::LevelsOf(NoiseScheduleKind kind, uint32_t steps,
                                              std::vector<double> spaced) const {
  if (kind == NoiseScheduleKind::kAys) {
    return AlignYourSteps(steps);
  }
  if (kind == NoiseScheduleKind::kSgmUniform) {
    return SgmUniform(steps);
  }
  std::vector<double> sigmas;
  std::transform(spaced.begin(), spaced.end(), std::back_inserter(sigmas),
                 [this](double timestep) { return Interpolate(sigmas_, timestep); });
  return {std::move(spaced), std::move(sigmas)};
}

NoiseSchedule::Levels NoiseSchedule::AlignYourSteps(uint32_t steps) const {
  constexpr double kTimesteps[] = {999, 845, 730, 587, 443, 310, 193, 116, 53, 13};
  std::vector<float> log_sigmas;
  for (const double timestep : kTimesteps) {
    log_sigmas.push_back(static_cast<float>(Interpolate(log_sigmas_, timestep)));
  }
  Levels levels;
  for (const double place : EqualParts(log_sigmas.size(), steps)) {
    if (steps == std::size(kTimesteps)) {
      levels.timesteps.push_back(kTimesteps[levels.timesteps.size()]);
      levels.sigmas.push_back(Interpolate(sigmas_, levels.timesteps.back()));
    } else {
      levels.sigmas.push_back(std::exp(Interpolate(log_sigmas, place)));
      levels.timesteps.push_back(TimestepOf(levels.sigmas.back()));
    }
  }
  return levels;
}

NoiseSchedule::Levels NoiseSchedule::SgmUniform(uint32_t steps) const {
  const double last = config_.num_train_timesteps - 1.0;
  Levels levels;
  for (uint32_t i = 0; i < steps; ++i) {
    levels.timesteps.push_back(last - last * i / steps);
    levels.sigmas.push_back(std::exp(Interpolate(log_sigmas_, levels.timesteps.back())));
  }
  return levels;
}

StepPlan NoiseSchedule::PlanOf(uint32_t steps, Levels levels) const {
  levels.sigmas.push_back(config_.final_sigma_min ? sigmas_.front() : 0.0);
  StepPlan plan;
  plan.timesteps.assign(levels.timesteps.begin(), levels.timesteps.end());
  plan.sigmas.assign(levels.sigmas.begin(), levels.sigmas.end());
  plan.run_steps = steps;
  plan.prediction = config_.prediction;
  return plan;
}

StepPlan NoiseSchedule::MultistepPlan(uint32_t steps, NoiseScheduleKind kind) const {
  return MultistepPlan(steps, kind, TimestepSpacingOf(kind));
}

StepPlan NoiseSchedule::SinglestepPlan(uint32_t steps, NoiseScheduleKind kind) const {
  const bool trailing = kind == NoiseScheduleKind::kTrailing;
  return MultistepPlan(steps, kind, trailing ? TimestepSpacing::kTrailing : TimestepSpacing::kLinspace);
}

StepPlan NoiseSchedule::DeisPlan(uint32_t steps, NoiseScheduleKind kind) const {
  StepPlan plan = MultistepPlan(steps, kind);
  const bool by_timesteps = SigmaSpacingOf(kind) == SigmaSpacing::kTimesteps;
  plan.sigmas.back() = by_timesteps ? sigmas_.front() : plan.sigmas[steps - 1];
  return plan;
}

StepPlan NoiseSchedule::MultistepPlan(uint32_t steps, NoiseScheduleKind kind, TimestepSpacing spacing) const {
  CheckSteps(steps);
  const SigmaSpacing sigma_spacing = SigmaSpacingOf(kind);
  Levels levels = LevelsOf(kind, steps, MultistepTimesteps(spacing, config_, static_cast<int>(steps)));
  if (sigma_spacing != SigmaSpacing::kTimesteps) {
    levels.sigmas = SpreadSigmas(sigma_spacing, config_.sigma_max.value_or(sigmas_.back()),
                                 config_.sigma_min.value_or(sigmas_.front()), steps);
    std::transform(levels.sigmas.begin(), levels.sigmas.end(), levels.timesteps.begin(), [&](double sigma) {
      // The reference rounds the ones and truncates the others.
      const bool rounds = sigma_spacing == SigmaSpacing::kKarras || sigma_spacing == SigmaSpacing::kLu;
      return rounds ? std::nearbyint(TimestepOf(sigma)) : std::trunc(TimestepOf(sigma));
    });
  }
  return PlanOf(steps, std::move(levels));
}

SignalPlan NoiseSchedule::DdimPlan(uint32_t steps, NoiseScheduleKind kind, double eta) const {
  CheckSteps(steps);
  TORCH_CHECK(kind == NoiseScheduleKind::kDefault || kind == NoiseScheduleKind::kTrailing,
              "DDIM has only the default and the trailing schedule");
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
    if (eta > 0.0) {
      const double alpha = plan.alphas.back(), next_alpha = plan.next_alphas.back();
      const double variance = (1.0 - next_alpha) / (1.0 - alpha) * (1.0 - alpha / next_alpha);
      plan.fresh_noise.push_back(static_cast<float>(eta * std::sqrt(std::max(0.0, variance))));
    }
  }
  return plan;
}

SignalPlan NoiseSchedule::LcmPlan(uint32_t steps) const {
  CheckSteps(steps, kDistilledSteps);
  const int stride = std::max(1, config_.num_train_timesteps / static_cast<int>(kDistilledSteps));
  SignalPlan plan;
  plan.prediction = config_.prediction;
  plan.clip = config_.clip;
  for (uint32_t i = 0; i < steps; ++i) {
    const auto skipped = static_cast<int>(i * (static_cast<double>(kDistilledSteps) / steps));
    const int timestep = (static_cast<int>(kDistilledSteps) - skipped) * stride - 1;
    plan.timesteps.push_back(static_cast<float>(std::min(timestep, config_.num_train_timesteps - 1)));
    plan.alphas.push_back(AlphaAt(plan.timesteps.back()));
  }
  plan.next_alphas.assign(plan.alphas.begin() + 1, plan.alphas.end());
  plan.next_alphas.push_back(1.0f);
  return plan;
}

SignalPlan NoiseSchedule::TcdPlan(uint32_t steps, double eta) const {
  SignalPlan plan = LcmPlan(steps);
  plan.clip.reset();
  plan.next_alphas.back() = AlphaAt(0.0);
  for (size_t i = 0; eta > 0.0 && i + 1 < plan.timesteps.size(); ++i) {
    // In float32, like the reference, since the product is cut to a whole number.
    const float between = std::floor(static_cast<float>(1.0 - eta) * plan.timesteps[i + 1]);
    plan.fresh_noise.push_back(std::sqrt(std::max(0.0f, 1.0f - plan.next_alphas[i] / AlphaAt(between))));
  }
  return plan;
}

TimestepSpacing NoiseSchedule::TimestepSpacingOf(NoiseScheduleKind kind) const {
  return kind == NoiseScheduleKind::kTrailing ? TimestepSpacing::kTrailing : config_.timestep_spacing;
}

SigmaSpacing NoiseSchedule::SigmaSpacingOf(NoiseScheduleKind kind) const {
  switch (kind) {
    case NoiseScheduleKind::kDefault:
    case NoiseScheduleKind::kTrailing:
      return config_.sigma_spacing;
    case NoiseScheduleKind::kKarras:
      return SigmaSpacing::kKarras;
    case NoiseScheduleKind::kExponential:
      return SigmaSpacing::kExponential;
    case NoiseScheduleKind::kBeta:
      return SigmaSpacing::kBeta;
    case NoiseScheduleKind::kLu:
      return SigmaSpacing::kLu;
    case NoiseScheduleKind::kAys:
    case NoiseScheduleKind::kSgmUniform:
      return SigmaSpacing::kTimesteps;
  }
  TORCH_CHECK(false, "unknown noise schedule");
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
