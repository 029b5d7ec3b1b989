#include "src/adapter_format/peft_scaling.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <nlohmann/json.hpp>

#include "src/adapter_format/adapter_metadata.h"
#include "src/base/enum_size.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/json_text.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// The order of keys matters: the first pattern that matches wins.
using Json = nlohmann::ordered_json;

constexpr int kMaxNeumannTerms = 64;
constexpr double kMaxRank = 1 << 20;

absl::Status Invalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kAdapterInvalid,
                   absl::StrCat("PEFT configuration: ", what));
}

absl::Status Unsupported(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kAdapterUnsupported,
                   absl::StrCat("PEFT configuration: ", what, " is not supported"));
}

absl::StatusOr<Json> ParseConfig(absl::string_view text) {
  if (text.size() > kMaxAdapterJsonBytes) {
    return Invalid(absl::StrCat(text.size(), " bytes; allowed are ", kMaxAdapterJsonBytes));
  }
  auto json = ParseOrderedJsonObject(text);
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

// Keys that say which modules were trained and how, or that other keys switch on. Whatever their value is, the tensors
// and the keys that are read say all of the change.
constexpr absl::string_view kHarmlessKeys[] = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type",
    // which modules; keys of the file say the same
    "bias", "ensure_weight_tying", "exclude_modules", "layers_pattern", "layers_to_transform", "lora_bias",
    "modules_to_save", "target_modules",
    // how they were trained
    "lora_dropout", "module_dropout", "init_weights", "velora_config", "runtime_config",
    // only with an init_lora_weights or an option of their own
    "corda_config", "eps", "eva_config", "loftq_config", "lora_ga_config", "megatron_core", "qalora_group_size",
    // of layers that SDXL lacks (Conv1D); ReadOft looks at it too
    "fan_in_fan_out"};

constexpr absl::string_view kReadKeys[] = {
    "alpha_pattern",  "block_share", "coft", "init_lora_weights", "lora_alpha",         "num_cayley_neumann_terms",
    "oft_block_size", "peft_type",   "r",    "rank_pattern",      "use_cayley_neumann", "use_dora",
    "use_rslora"};

// How A and B began, if the base weights were left alone.
constexpr absl::string_view kHarmlessStarts[] = {"true", "false", "gaussian", "orthogonal", "eva", "mica"};

template <size_t n>
bool IsOneOf(const absl::string_view (&words)[n], absl::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

// What PEFT writes for an option that is not used.
bool IsUnused(const Json& value) {
  return value.is_null() || value == false || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_structured() && value.empty());
}

// A short text of an option's value, for messages.
std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

// Refuses configurations whose adapters are more than what is read here: scale * up * down, a magnitude, or OFT.
absl::Status CheckPlain(const Json& json) {
  if (const auto type = json.find("peft_type"); type != json.end() && !type->is_null()) {
    const std::string name = absl::AsciiStrToUpper(TextOf(*type));
    if (!type->is_string() || (name != "LORA" && name != "OFT")) {
      return Unsupported(absl::StrCat("peft_type ", PrintableName(TextOf(*type))));
    }
  }
  // Others change the base weights before training, so the tensors alone do not say the adapter's change.
  if (const auto start = json.find("init_lora_weights"); start != json.end() && !start->is_null()) {
    if (!IsOneOf(kHarmlessStarts, absl::AsciiStrToLower(TextOf(*start)))) {
      return Unsupported(absl::StrCat("init_lora_weights ", PrintableName(TextOf(*start))));
    }
  }
  for (const auto& [key, value] : json.items()) {
    if (!IsOneOf(kReadKeys, key) && !IsOneOf(kHarmlessKeys, key) && !IsUnused(value)) {
      return Unsupported(absl::StrCat(PrintableName(key), " (", PrintableName(TextOf(value)), ")"));
    }
  }
  return absl::OkStatus();
}

bool IsOft(const Json& json) {
  const auto type = json.find("peft_type");
  return type != json.end() && type->is_string() && absl::EqualsIgnoreCase(type->get_ref<const std::string&>(), "OFT");
}

absl::Status ReadPatterns(const Json& json, const char* key, PatternBudget& budget, ModulePatterns& patterns) {
  const auto table = json.find(key);
  if (table == json.end() || table->is_null()) {
    return absl::OkStatus();
  }
  if (!table->is_object()) {
    return Invalid(absl::StrCat(key, " is not an object"));
  }
  for (const auto& [pattern, value] : table->items()) {
    ABSL_ASSIGN_OR_RETURN(const double number, Number(value, "a pattern's value"));
    if (const absl::Status added = patterns.Add(pattern, number, budget); !added.ok()) {
      return Invalid(absl::StrCat(key, ": ", added.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

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
absl::StatusOr<PeftScaling::Config> PeftScaling::ReadConfig(const J& json, PatternBudget& budget) {
  ABSL_RETURN_IF_ERROR(CheckPlain(json));
  Config config;
  if (IsOft(json)) {
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
  ABSL_RETURN_IF_ERROR(ReadPatterns(json, "rank_pattern", budget, config.ranks));
  ABSL_RETURN_IF_ERROR(ReadPatterns(json, "alpha_pattern", budget, config.alphas));
  return config;
}

absl::StatusOr<PeftScaling> PeftScaling::FromMetadata(absl::string_view text) {
  ABSL_ASSIGN_OR_RETURN(const Json json, ParseConfig(text));
  constexpr std::pair<Component, absl::string_view> kPrefixes[] = {{Component::kTextEncoder, "text_encoder."},
                                                                   {Component::kTextEncoder2, "text_encoder_2."},
                                                                   {Component::kUnet, "unet."}};
  Json parts[kEnumSize<Component>], shared;
  for (const auto& [key, value] : json.items()) {
    for (const auto& [component, prefix] : kPrefixes) {
      if (absl::StartsWith(key, prefix)) {
        parts[static_cast<size_t>(component)][key.substr(prefix.size())] = value;
      }
    }
    if (!absl::StrContains(key, '.')) {
      shared[key] = value;
    }
  }
  PeftScaling scaling;
  PatternBudget budget;
  std::optional<Config> shared_config;
  if (!shared.is_null()) {
    ABSL_ASSIGN_OR_RETURN(shared_config, ReadConfig(shared, budget));
  }
  scaling.is_shared_ = shared_config.has_value();
  for (size_t i = 0; i < std::size(parts); ++i) {
    scaling.configs_[i] = shared_config;
    if (!parts[i].is_null()) {
      ABSL_ASSIGN_OR_RETURN(scaling.configs_[i], ReadConfig(parts[i], budget));
      scaling.is_shared_ = false;
    }
  }
  return scaling;
}

absl::StatusOr<PeftScaling> PeftScaling::FromConfig(absl::string_view text) {
  ABSL_ASSIGN_OR_RETURN(const Json json, ParseConfig(text));
  PatternBudget budget;
  ABSL_ASSIGN_OR_RETURN(const Config config, ReadConfig(json, budget));
  PeftScaling scaling;
  for (std::optional<Config>& component : scaling.configs_) {
    component = config;
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
  const std::optional<double> pattern_rank = config->ranks.FirstMatch(module.path);
  const std::optional<double> said = pattern_rank.has_value() ? pattern_rank : config->rank;
  if (said.has_value() && *said != static_cast<double>(rank)) {
    return Invalid(absl::StrCat("module \"", module.path, "\" has rank ", *said, " by the configuration and ", rank,
                                " by its tensors"));
  }
  const double alpha = config->alphas.FirstMatch(module.path).value_or(config->alpha);
  return alpha / (config->rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

}  // namespace hotlora
