#include "src/request/sampler_names.h"

#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

#include "src/base/enum_size.h"

namespace hotlora {
namespace {

struct SamplerAlias {
  Sampler sampler;
  const char* alias;
};
constexpr SamplerAlias kSamplerAliases[] = {
    {Sampler::kEuler, "k_euler"},
    {Sampler::kEulerAncestral, "k_euler_a"},
    {Sampler::kEulerAncestral, "k_euler_ancestral"},
    {Sampler::kHeun, "k_heun"},
    {Sampler::kDdim, "ddim"},
    {Sampler::kDpmpp2M, "k_dpmpp_2m"},
    {Sampler::kDpmpp2MSde, "k_dpmpp_2m_sde"},
    {Sampler::kUniPc, "unipc"},
    {Sampler::kLcm, "k_lcm"},
    {Sampler::kDpm2, "k_dpm_2"},
    {Sampler::kDpm2Ancestral, "k_dpm_2_a"},
    {Sampler::kDpm2Ancestral, "k_dpm_2_ancestral"},
    {Sampler::kLms, "k_lms"},
    {Sampler::kDpmpp3MSde, "k_dpmpp_3m_sde"},
};

}  // namespace

const char* SamplerName(Sampler sampler) {
  static constexpr const char* kNames[] = {"Euler", "Euler a",  "Heun",     "DDIM",        "DPM++ 2M", "DPM++ 2M SDE",
                                           "UniPC", "LCM",      "TCD",      "DPM2",        "DPM2 a",   "LMS",
                                           "DEIS",  "DPM++ 2S", "DPM++ 3M", "DPM++ 3M SDE"};
  static_assert(std::size(kNames) == kEnumSize<Sampler>);
  return kNames[static_cast<size_t>(sampler)];
}

const char* ScheduleName(NoiseScheduleKind schedule) {
  static constexpr const char* kNames[] = {"Automatic", "Karras",           "Exponential", "Trailing",
                                           "Beta",      "Align Your Steps", "SGM Uniform", "Lu"};
  static_assert(std::size(kNames) == kEnumSize<NoiseScheduleKind>);
  return kNames[static_cast<size_t>(schedule)];
}

std::vector<std::string> SamplerAliases(Sampler sampler) {
  std::vector<std::string> aliases;
  for (const SamplerAlias& alias : kSamplerAliases) {
    if (alias.sampler == sampler) {
      aliases.push_back(alias.alias);
    }
  }
  return aliases;
}

std::string ScheduleAlias(NoiseScheduleKind schedule) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(ScheduleName(schedule)), {{" ", "_"}});
}

std::optional<Sampler> FindSampler(absl::string_view name) {
  for (const Sampler sampler : AllOf<Sampler>()) {
    if (absl::EqualsIgnoreCase(name, SamplerName(sampler))) {
      return sampler;
    }
  }
  for (const SamplerAlias& alias : kSamplerAliases) {
    if (absl::EqualsIgnoreCase(name, alias.alias)) {
      return alias.sampler;
    }
  }
  return std::nullopt;
}

std::optional<NoiseScheduleKind> FindSchedule(absl::string_view name) {
  for (const NoiseScheduleKind schedule : AllOf<NoiseScheduleKind>()) {
    if (absl::EqualsIgnoreCase(name, ScheduleName(schedule)) || absl::EqualsIgnoreCase(name, ScheduleAlias(schedule))) {
      return schedule;
    }
  }
  return std::nullopt;
}

}  // namespace hotlora
