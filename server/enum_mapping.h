#ifndef HOTLORA_SERVER_ENUM_MAPPING_H_
#define HOTLORA_SERVER_ENUM_MAPPING_H_

// Enums of the API and the plain ones that they stand for.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "hotlora/v1/adapters.pb.h"
#include "hotlora/v1/images.pb.h"
#include "src/adapters/adapter_info.h"
#include "src/base/enum_size.h"
#include "src/base/error_details.h"
#include "src/request/image_request.h"

namespace hotlora {

// Pairs of one enum on both sides, searched in either direction.
template <typename Proto, typename Plain>
struct EnumPair {
  Proto proto;
  Plain plain;
};

inline constexpr EnumPair<v1::Sampler, Sampler> kSamplers[] = {
    {v1::SAMPLER_EULER, Sampler::kEuler},
    {v1::SAMPLER_EULER_ANCESTRAL, Sampler::kEulerAncestral},
    {v1::SAMPLER_HEUN, Sampler::kHeun},
    {v1::SAMPLER_DDIM, Sampler::kDdim},
    {v1::SAMPLER_DPMPP_2M, Sampler::kDpmpp2M},
    {v1::SAMPLER_DPMPP_2M_SDE, Sampler::kDpmpp2MSde},
    {v1::SAMPLER_UNIPC, Sampler::kUniPc},
    {v1::SAMPLER_LCM, Sampler::kLcm},
    {v1::SAMPLER_TCD, Sampler::kTcd},
    {v1::SAMPLER_DPM2, Sampler::kDpm2},
    {v1::SAMPLER_DPM2_ANCESTRAL, Sampler::kDpm2Ancestral},
    {v1::SAMPLER_LMS, Sampler::kLms},
    {v1::SAMPLER_DEIS, Sampler::kDeis},
    {v1::SAMPLER_DPMPP_2S, Sampler::kDpmpp2S},
    {v1::SAMPLER_DPMPP_3M, Sampler::kDpmpp3M},
    {v1::SAMPLER_DPMPP_3M_SDE, Sampler::kDpmpp3MSde},
};
inline constexpr EnumPair<v1::NoiseSchedule, NoiseScheduleKind> kSchedules[] = {
    {v1::NOISE_SCHEDULE_DEFAULT, NoiseScheduleKind::kDefault},
    {v1::NOISE_SCHEDULE_KARRAS, NoiseScheduleKind::kKarras},
    {v1::NOISE_SCHEDULE_EXPONENTIAL, NoiseScheduleKind::kExponential},
    {v1::NOISE_SCHEDULE_TRAILING, NoiseScheduleKind::kTrailing},
    {v1::NOISE_SCHEDULE_BETA, NoiseScheduleKind::kBeta},
    {v1::NOISE_SCHEDULE_AYS, NoiseScheduleKind::kAys},
    {v1::NOISE_SCHEDULE_SGM_UNIFORM, NoiseScheduleKind::kSgmUniform},
    {v1::NOISE_SCHEDULE_LU, NoiseScheduleKind::kLu},
};
inline constexpr EnumPair<v1::PromptSyntax, PromptSyntax> kPromptSyntaxes[] = {
    {v1::PROMPT_SYNTAX_PLAIN, PromptSyntax::kPlain},
    {v1::PROMPT_SYNTAX_WEIGHTED, PromptSyntax::kWeighted},
};
inline constexpr EnumPair<v1::ImageFormat, ImageFormat> kFormats[] = {
    {v1::IMAGE_FORMAT_PNG, ImageFormat::kPng},
    {v1::IMAGE_FORMAT_JPEG, ImageFormat::kJpeg},
    {v1::IMAGE_FORMAT_WEBP, ImageFormat::kWebp},
    {v1::IMAGE_FORMAT_RAW_RGB8, ImageFormat::kRawRgb8},
};
inline constexpr EnumPair<v1::AdapterTier, AdapterTier> kTiers[] = {
    {v1::ADAPTER_TIER_DISK, AdapterTier::kDisk},
    {v1::ADAPTER_TIER_HOST, AdapterTier::kHost},
    {v1::ADAPTER_TIER_DEVICE, AdapterTier::kDevice},
};
inline constexpr EnumPair<v1::AdapterState, AdapterState> kStates[] = {
    {v1::ADAPTER_STATE_AVAILABLE, AdapterState::kAvailable},
    {v1::ADAPTER_STATE_LOADING, AdapterState::kLoading},
    {v1::ADAPTER_STATE_FAILED, AdapterState::kFailed},
};

template <typename Proto, typename Plain, size_t n>
Proto EnumToProto(const EnumPair<Proto, Plain> (&pairs)[n], Plain plain) {
  static_assert(n == kEnumSize<Plain>);
  for (const auto& pair : pairs) {
    if (pair.plain == plain) {
      return pair.proto;
    }
  }
  return Proto{};
}

// Unset for *_UNSPECIFIED; a violation of `field` for numbers that are not in `pairs`.
template <typename Proto, typename Plain, size_t n>
std::optional<Plain> EnumFromProto(const EnumPair<Proto, Plain> (&pairs)[n], Proto proto, const char* field,
                                   std::vector<FieldViolation>& violations) {
  static_assert(n == kEnumSize<Plain>);
  if (proto == Proto{}) {
    return std::nullopt;
  }
  for (const auto& pair : pairs) {
    if (pair.proto == proto) {
      return pair.plain;
    }
  }
  violations.push_back({field, absl::StrCat("is ", static_cast<int>(proto), ", which this server does not know")});
  return std::nullopt;
}

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ENUM_MAPPING_H_
