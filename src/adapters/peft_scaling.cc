#include "src/adapters/peft_scaling.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <nlohmann/json.hpp>

#include "re2/re2.h"
#include "src/adapters/key_suffix.h"
#include "src/base/error_details.h"
#include "src/base/json_text.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// The order of keys matters: the first pattern that matches wins.
using Json = nlohmann::ordered_json;

constexpr size_t kMaxJsonBytes = 4u << 20;
constexpr size_t kMaxPatterns = 4096;
constexpr size_t kMaxPatternBytes = 512;
constexpr int kMaxNeumannTerms = 64;
constexpr double kMaxRank = 1 << 20;

absl::Status Invalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID",
                   absl::StrCat("PEFT configuration: ", what));
}

absl::Status Unsupported(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_UNSUPPORTED",
                   absl::StrCat("PEFT configuration: ", what, " is not supported"));
}

absl::StatusOr<Json> ParseObject(absl::string_view text) {
  if (text.size() > kMaxJsonBytes) {
    return Invalid(absl::StrCat(text.size(), " bytes; allowed are ", kMaxJsonBytes));
  }
  auto json = ParseJsonObject(text);
  if (!json.ok()) {
    return Invalid(absl::StrCat("the text ", json.status().message()));
  }
  return json;
}

absl::StatusOr<double> Number(const Json& value, absl::string_view name) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    return Invalid(absl::StrCat(name, " is not a finite number"));
  }
  return value.get<double>();
}

absl::StatusOr<double> Rank(const Json& value, absl::string_view name) {
  ABSL_ASSIGN_OR_RETURN(const double rank, Number(value, name));
  if (rank < 1 || rank > kMaxRank || rank != std::floor(rank)) {
    return Invalid(
        absl::StrCat(name, " is ", rank, "; it must be a whole number from 1 to ", static_cast<int64_t>(kMaxRank)));
  }
  return rank;
}

bool IsSet(const Json& json, const char* key) {
  const auto value = json.find(key);
  return value != json.end() && !value->is_null() && *value != false;
}

// Configurations whose adapters are more than scale * up * down, and a magnitude.
absl::Status CheckPlain(const Json& json) {
  for (const char* const key :
       {"use_qalora", "alora_invocation_tokens", "megatron_config", "trainable_token_indices"}) {
    if (IsSet(json, key)) {
      return Unsupported(key);
    }
  }
  const auto type = json.find("peft_type");
  if (type != json.end() && *type != "LORA" && *type != "OFT") {
    return Unsupported(absl::StrCat("peft_type ", PrintableName(type->is_string() ? type->get<std::string>() : "")));
  }
  // These change the base weights before training, so the tensors alone do not say the adapter's
  // change.
  const auto initial = json.find("init_lora_weights");
  if (initial != json.end() && initial->is_string()) {
    const std::string how = initial->get<std::string>();
    if (absl::StartsWith(how, "pissa") || how == "olora" || how == "corda" || how == "loftq") {
      return Unsupported(absl::StrCat("init_lora_weights ", PrintableName(how)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

template <typename J>
absl::StatusOr<std::vector<PeftScaling::Pattern>> PeftScaling::ReadPatterns(const J& json) {
  std::vector<Pattern> patterns;
  if (json.is_null()) {
    return patterns;
  }
  if (!json.is_object() || json.size() > kMaxPatterns) {
    return Invalid(absl::StrCat("a pattern table is no object of at most ", kMaxPatterns, " entries"));
  }
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 18);
  for (const auto& [key, value] : json.items()) {
    if (key.size() > kMaxPatternBytes) {
      return Invalid(absl::StrCat("a pattern of ", key.size(), " bytes; allowed are ", kMaxPatternBytes));
    }
    auto path = std::make_shared<RE2>(absl::StrCat("(?:.*\\.)?(?:", key, ")"), options);
    if (!path->ok()) {
      return Invalid(absl::StrCat("pattern ", PrintableName(key), " is no regular expression"));
    }
    ABSL_ASSIGN_OR_RETURN(const double number, Number(value, "a pattern's value"));
    patterns.push_back({std::move(path), number});
  }
  return patterns;
}

template <typename J>
absl::StatusOr<PeftOft> PeftScaling::ReadOft(const J& json) {
  for (const char* const key : {"coft", "fan_in_fan_out"}) {
    if (IsSet(json, key)) {
      return Unsupported(absl::StrCat("peft_type OFT with ", key));
    }
  }
  if (const auto bias = json.find("bias"); bias != json.end() && *bias != "none") {
    return Unsupported("peft_type OFT with bias");
  }
  // The versions of PEFT that lack the key do not agree on the map.
  if (const auto neumann = json.find("use_cayley_neumann"); neumann == json.end() || !neumann->is_boolean()) {
    return Unsupported("peft_type OFT without use_cayley_neumann");
  }
  PeftOft oft;
  oft.block_share = IsSet(json, "block_share");
  if (IsSet(json, "use_cayley_neumann")) {
    oft.neumann_terms = 5;
    if (IsSet(json, "num_cayley_neumann_terms")) {
      ABSL_ASSIGN_OR_RETURN(const double terms, Number(json["num_cayley_neumann_terms"], "num_cayley_neumann_terms"));
      if (terms < 1 || terms > kMaxNeumannTerms || terms != std::floor(terms)) {
        return Invalid(absl::StrCat("num_cayley_neumann_terms is ", terms, "; it must be a whole number from 1 to ",
                                    kMaxNeumannTerms));
      }
      oft.neumann_terms = static_cast<int>(terms);
    }
  }
  return oft;
}

template <typename J>
absl::StatusOr<PeftScaling::Config> PeftScaling::ReadConfig(const J& json) {
  ABSL_RETURN_IF_ERROR(CheckPlain(json));
  Config config;
  if (const auto type = json.find("peft_type"); type != json.end() && *type == "OFT") {
    ABSL_ASSIGN_OR_RETURN(config.oft, ReadOft(json));
    return config;
  }
  if (IsSet(json, "r")) {
    ABSL_ASSIGN_OR_RETURN(config.rank, Rank(json["r"], "r"));
  }
  if (IsSet(json, "lora_alpha")) {
    ABSL_ASSIGN_OR_RETURN(config.alpha, Number(json["lora_alpha"], "lora_alpha"));
  }
  for (const auto& [key, flag] : {std::pair{"use_rslora", &config.rslora}, {"use_dora", &config.dora}}) {
    if (const auto value = json.find(key); value != json.end() && !value->is_null()) {
      if (!value->is_boolean()) {
        return Invalid(absl::StrCat(key, " is neither true nor false"));
      }
      *flag = value->template get<bool>();
    }
  }
  if (json.contains("rank_pattern")) {
    ABSL_ASSIGN_OR_RETURN(config.ranks, ReadPatterns(json["rank_pattern"]));
  }
  if (json.contains("alpha_pattern")) {
    ABSL_ASSIGN_OR_RETURN(config.alphas, ReadPatterns(json["alpha_pattern"]));
  }
  return config;
}

absl::StatusOr<PeftScaling> PeftScaling::FromMetadata(absl::string_view text) {
  ABSL_ASSIGN_OR_RETURN(const Json json, ParseObject(text));
  constexpr std::pair<Component, absl::string_view> kPrefixes[] = {{Component::kTextEncoder, "text_encoder."},
                                                                   {Component::kTextEncoder2, "text_encoder_2."},
                                                                   {Component::kUnet, "unet."}};
  Json parts[3];
  for (const auto& [key, value] : json.items()) {
    for (const auto& [component, prefix] : kPrefixes) {
      if (absl::StartsWith(key, prefix)) {
        parts[static_cast<size_t>(component)][key.substr(prefix.size())] = value;
      }
    }
  }
  PeftScaling scaling;
  for (size_t i = 0; i < 3; ++i) {
    if (!parts[i].is_null()) {
      ABSL_ASSIGN_OR_RETURN(scaling.configs_[i], ReadConfig(parts[i]));
    }
  }
  return scaling;
}

absl::StatusOr<PeftScaling> PeftScaling::FromConfig(absl::string_view text) {
  ABSL_ASSIGN_OR_RETURN(const Json json, ParseObject(text));
  ABSL_ASSIGN_OR_RETURN(const Config config, ReadConfig(json));
  PeftScaling scaling;
  for (auto& slot : scaling.configs_) {
    slot = config;
  }
  return scaling;
}

const std::optional<PeftOft>& PeftScaling::OftOf(const AdaptableModule& module) const {
  static const std::optional<PeftOft> kNone;
  const std::optional<Config>& config = configs_[static_cast<size_t>(module.component)];
  return config.has_value() ? config->oft : kNone;
}

bool PeftScaling::UsesDora(const AdaptableModule& module) const {
  const std::optional<Config>& config = configs_[static_cast<size_t>(module.component)];
  return config.has_value() && config->dora;
}

absl::StatusOr<std::optional<double>> PeftScaling::ScaleOf(const AdaptableModule& module, int64_t rank) const {
  const std::optional<Config>& config = configs_[static_cast<size_t>(module.component)];
  if (!config.has_value()) {
    return std::nullopt;
  }
  const auto first_match = [&](const std::vector<Pattern>& patterns) -> std::optional<double> {
    for (const Pattern& pattern : patterns) {
      if (RE2::FullMatch(module.path, *pattern.path)) {
        return pattern.value;
      }
    }
    return std::nullopt;
  };
  const std::optional<double> pattern_rank = first_match(config->ranks);
  const std::optional<double> said = pattern_rank.has_value() ? pattern_rank : config->rank;
  if (said.has_value() && *said != static_cast<double>(rank)) {
    return Invalid(absl::StrCat("module \"", module.path, "\" has rank ", *said, " by the configuration and ", rank,
                                " by its tensors"));
  }
  const double alpha = first_match(config->alphas).value_or(config->alpha);
  return alpha / (config->rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

}  // namespace hotlora
