#include "src/sampling/scheduler_config.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "src/base/json_text.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

absl::Status Refuse(absl::string_view key, const nlohmann::json& value, absl::string_view allowed) {
  return absl::FailedPreconditionError(
      absl::StrCat("scheduler_config.json: ", key, " is ", JsonExcerpt(value), "; allowed: ", allowed));
}

// Where the file has the key with a value, the functions below check it and store it in `out`.
const nlohmann::json* Find(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

template <typename Name, typename Enum, size_t kCount>
absl::Status Choose(const nlohmann::json& json, const char* key, const std::pair<Name, Enum> (&choices)[kCount],
                    Enum& out) {
  const nlohmann::json* const value = Find(json, key);
  if (value == nullptr) {
    return absl::OkStatus();
  }
  std::string allowed;
  for (const auto& [name, choice] : choices) {
    if (*value == name) {
      out = choice;
      return absl::OkStatus();
    }
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", name);
  }
  return Refuse(key, *value, allowed);
}

absl::Status ReadBool(const nlohmann::json& json, const char* key, bool& out) {
  const nlohmann::json* const value = Find(json, key);
  if (value == nullptr) {
    return absl::OkStatus();
  }
  if (!value->is_boolean()) {
    return Refuse(key, *value, "true, false");
  }
  out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadInt(const nlohmann::json& json, const char* key, int least, int most, int& out) {
  const nlohmann::json* const value = Find(json, key);
  if (value == nullptr) {
    return absl::OkStatus();
  }
  if (!value->is_number_integer() || *value < least || *value > most) {
    return Refuse(key, *value, absl::StrCat("integers from ", least, " to ", most));
  }
  out = value->get<int>();
  return absl::OkStatus();
}

// A real number above 0 and below `end`.
absl::Status ReadPositive(const nlohmann::json& json, const char* key, double end, double& out) {
  const nlohmann::json* const value = Find(json, key);
  if (value == nullptr) {
    return absl::OkStatus();
  }
  if (!value->is_number() || !(value->get<double>() > 0.0 && value->get<double>() < end)) {
    return Refuse(key, *value, absl::StrCat("numbers above 0 and below ", end));
  }
  out = value->get<double>();
  return absl::OkStatus();
}

absl::Status ReadPositive(const nlohmann::json& json, const char* key, double end, std::optional<double>& out) {
  double value = 0.0;
  ABSL_RETURN_IF_ERROR(ReadPositive(json, key, end, value));
  if (value > 0.0) {
    out = value;
  }
  return absl::OkStatus();
}

absl::Status ReadBetas(const nlohmann::json& json, SchedulerConfig& config) {
  const nlohmann::json* const value = Find(json, "trained_betas");
  if (value == nullptr) {
    return absl::OkStatus();
  }
  const bool fits = value->is_array() && value->size() == static_cast<size_t>(config.num_train_timesteps);
  if (!fits) {
    return Refuse("trained_betas", *value, "an array of num_train_timesteps numbers");
  }
  for (const nlohmann::json& beta : *value) {
    if (!beta.is_number() || !(beta.get<double>() > 0.0 && beta.get<double>() < 1.0)) {
      return Refuse("trained_betas", beta, "numbers above 0 and below 1");
    }
    config.trained_betas.push_back(beta.get<float>());
  }
  return absl::OkStatus();
}

absl::Status ReadSigmaSpacing(const nlohmann::json& json, SchedulerConfig& config) {
  bool karras = false;
  bool exponential = false;
  ABSL_RETURN_IF_ERROR(ReadBool(json, "use_karras_sigmas", karras));
  ABSL_RETURN_IF_ERROR(ReadBool(json, "use_exponential_sigmas", exponential));
  if (karras && exponential) {
    return Refuse("use_karras_sigmas", true, "true only if use_exponential_sigmas is not");
  }
  config.sigma_spacing = karras        ? SigmaSpacing::kKarras
                         : exponential ? SigmaSpacing::kExponential
                                       : SigmaSpacing::kTimesteps;
  return absl::OkStatus();
}

absl::Status ReadClip(const nlohmann::json& json, SchedulerConfig& config) {
  bool clip = false;
  double range = 1.0;
  ABSL_RETURN_IF_ERROR(ReadBool(json, "clip_sample", clip));
  ABSL_RETURN_IF_ERROR(ReadPositive(json, "clip_sample_range", HUGE_VAL, range));
  if (clip) {
    config.clip = static_cast<float>(range);
  }
  return absl::OkStatus();
}

// Schedules that are not ours to run: refused by name, since ignoring them would give other images.
absl::Status RefuseUnsupported(const nlohmann::json& json) {
  const nlohmann::json* const name = Find(json, "_class_name");
  if (name != nullptr && (!name->is_string() || IsPythonNumber(*name))) {
    return Refuse("_class_name", *name, "a scheduler's name");
  }
  if (name != nullptr) {
    const auto& text = name->get_ref<const std::string&>();
    if (absl::StartsWith(text, "EDM") || absl::StartsWith(text, "FlowMatch")) {
      return Refuse("_class_name", *name, "schedulers of discrete variance-preserving schedules");
    }
  }
  for (const char* key : {"use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas", "thresholding"}) {
    bool used = false;
    ABSL_RETURN_IF_ERROR(ReadBool(json, key, used));
    if (used) {
      return Refuse(key, true, "false");
    }
  }
  constexpr std::pair<const char*, bool> kTypes[] = {{"discrete", true}};
  constexpr std::pair<const char*, bool> kInterpolations[] = {{"linear", true}};
  // What latent consistency models are distilled on; LcmPlan and LcmSampler have it built in.
  constexpr std::pair<int, bool> kLcmSteps[] = {{50, true}};
  constexpr std::pair<int, bool> kLcmScalings[] = {{10, true}};
  bool unused;
  ABSL_RETURN_IF_ERROR(Choose(json, "original_inference_steps", kLcmSteps, unused));
  ABSL_RETURN_IF_ERROR(Choose(json, "timestep_scaling", kLcmScalings, unused));
  ABSL_RETURN_IF_ERROR(Choose(json, "timestep_type", kTypes, unused));
  return Choose(json, "interpolation_type", kInterpolations, unused);
}

}  // namespace

absl::StatusOr<SchedulerConfig> ParseSchedulerConfig(const nlohmann::json& json) {
  if (!json.is_object()) {
    return absl::FailedPreconditionError("scheduler_config.json is not a JSON object");
  }
  constexpr std::pair<const char*, BetaSchedule> kBetas[] = {{"linear", BetaSchedule::kLinear},
                                                             {"scaled_linear", BetaSchedule::kScaledLinear},
                                                             {"squaredcos_cap_v2", BetaSchedule::kSquaredCosine}};
  constexpr std::pair<const char*, Prediction> kPredictions[] = {
      {"epsilon", Prediction::kEpsilon}, {"v_prediction", Prediction::kV}, {"sample", Prediction::kSample}};
  constexpr std::pair<const char*, TimestepSpacing> kSpacings[] = {{"linspace", TimestepSpacing::kLinspace},
                                                                   {"leading", TimestepSpacing::kLeading},
                                                                   {"trailing", TimestepSpacing::kTrailing}};
  constexpr std::pair<const char*, bool> kFinalSigmas[] = {{"zero", false}, {"sigma_min", true}};
  constexpr int kMostTimesteps = 100'000;
  SchedulerConfig config;
  ABSL_RETURN_IF_ERROR(RefuseUnsupported(json));
  ABSL_RETURN_IF_ERROR(ReadInt(json, "num_train_timesteps", 2, kMostTimesteps, config.num_train_timesteps));
  ABSL_RETURN_IF_ERROR(ReadInt(json, "steps_offset", 0, config.num_train_timesteps, config.steps_offset));
  ABSL_RETURN_IF_ERROR(ReadPositive(json, "beta_start", 1.0, config.beta_start));
  ABSL_RETURN_IF_ERROR(ReadPositive(json, "beta_end", 1.0, config.beta_end));
  ABSL_RETURN_IF_ERROR(Choose(json, "beta_schedule", kBetas, config.beta_schedule));
  ABSL_RETURN_IF_ERROR(ReadBetas(json, config));
  ABSL_RETURN_IF_ERROR(Choose(json, "prediction_type", kPredictions, config.prediction));
  ABSL_RETURN_IF_ERROR(Choose(json, "timestep_spacing", kSpacings, config.timestep_spacing));
  ABSL_RETURN_IF_ERROR(Choose(json, "final_sigmas_type", kFinalSigmas, config.final_sigma_min));
  ABSL_RETURN_IF_ERROR(ReadBool(json, "rescale_betas_zero_snr", config.rescale_betas_zero_snr));
  ABSL_RETURN_IF_ERROR(ReadBool(json, "set_alpha_to_one", config.set_alpha_to_one));
  ABSL_RETURN_IF_ERROR(ReadClip(json, config));
  ABSL_RETURN_IF_ERROR(ReadSigmaSpacing(json, config));
  ABSL_RETURN_IF_ERROR(ReadPositive(json, "sigma_min", HUGE_VAL, config.sigma_min));
  ABSL_RETURN_IF_ERROR(ReadPositive(json, "sigma_max", HUGE_VAL, config.sigma_max));
  return config;
}

}  // namespace hotlora
