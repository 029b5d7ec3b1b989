#include "src/request/validation.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "src/base/enum_size.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/image/image_header.h"
#include "src/request/control_check.h"
#include "src/request/image_prompt_check.h"
#include "src/request/lora_tags.h"
#include "src/request/reference_check.h"
#include "src/request/request_id.h"
#include "src/request/violations.h"
#include "src/request/weighted_prompt.h"

namespace hotlora {
namespace {

constexpr uint32_t kMaxQuality = 100;
constexpr double kDefaultHiresScale = 2.0, kDefaultHiresStrength = 0.5;
constexpr uint64_t kRandomSeedEnd = uint64_t{1} << 32;

void CheckRequestId(absl::string_view id, Violations& violations) {
  if (const std::string fault = RequestIdFault(id); !fault.empty()) {
    violations.Add("request_id", fault);
  }
}

Prompts CheckPrompts(const ImageRequest& request, const RequestLimits& limits, Violations& violations) {
  violations.Text("prompt", request.prompt);
  violations.Text("prompt_2", request.prompt_2.value_or(""));
  violations.Text("negative_prompt", request.negative_prompt.value_or(""));
  violations.Text("negative_prompt_2", request.negative_prompt_2.value_or(""));
  Prompts prompts;
  prompts.prompt = request.prompt;
  prompts.prompt_2 = request.prompt_2.value_or("");
  if (prompts.prompt_2.empty()) {
    prompts.prompt_2 = request.prompt;
  }
  prompts.negative_prompt = request.negative_prompt;
  prompts.negative_prompt_2 = request.negative_prompt_2.value_or("");
  if (prompts.negative_prompt_2.empty()) {
    prompts.negative_prompt_2 = request.negative_prompt.value_or("");
  }
  prompts.weighted = request.prompt_syntax.value_or(PromptSyntax::kPlain) == PromptSyntax::kWeighted;
  prompts.long_prompts = request.long_prompts.value_or(false);
  prompts.clip_skip = violations.UintInRange("clip_skip", request.clip_skip, 0, limits.max_clip_skip, 0);
  return prompts;
}

uint32_t CheckSide(absl::string_view field, const std::optional<uint32_t>& side, uint32_t fallback,
                   Violations& violations) {
  const uint32_t given = side.value_or(fallback);
  if (given < kMinSide || given > kMaxSide || given % kSideMultiple != 0) {
    violations.Add(field, "is ", given, "; allowed are multiples of ", kSideMultiple, " from ", kMinSide, " to ",
                   kMaxSide);
  }
  return given;
}

// A larger side, rounded down. A scale such as 1.1 is a little less in binary, which must not cost a multiple.
uint32_t HiresSide(uint32_t side, double scale) {
  constexpr double kSlack = 1e-6;
  return static_cast<uint32_t>(side * scale + kSlack) / kSideMultiple * kSideMultiple;
}

SizeIds MakeSizeIds(const SizeConditioning& size, uint32_t width, uint32_t height) {
  return {static_cast<float>(size.original_height.value_or(height)),
          static_cast<float>(size.original_width.value_or(width)),
          static_cast<float>(size.crop_top.value_or(0)),
          static_cast<float>(size.crop_left.value_or(0)),
          static_cast<float>(size.target_height.value_or(height)),
          static_cast<float>(size.target_width.value_or(width))};
}

constexpr const char* kSamplerNames[] = {
    "EULER", "EULER_ANCESTRAL", "HEUN", "DDIM", "DPMPP_2M", "DPMPP_2M_SDE", "UNIPC",       "LCM", "TCD",
    "DPM2",  "DPM2_ANCESTRAL",  "LMS",  "DEIS", "DPMPP_2S", "DPMPP_3M",     "DPMPP_3M_SDE"};
static_assert(std::size(kSamplerNames) == kEnumSize<Sampler>);
constexpr const char* kScheduleNames[] = {"DEFAULT", "KARRAS", "EXPONENTIAL", "TRAILING",
                                          "BETA",    "AYS",    "SGM_UNIFORM", "LU"};
static_assert(std::size(kScheduleNames) == kEnumSize<NoiseScheduleKind>);

// LCM and TCD go along the timesteps of their distillation.
bool IsDistilled(Sampler sampler) { return sampler == Sampler::kLcm || sampler == Sampler::kTcd; }

// DDIM steps by timestep: it has no sigmas to space.
bool HasSchedule(Sampler sampler, NoiseScheduleKind kind) {
  const bool dpmpp_2m = sampler == Sampler::kDpmpp2M || sampler == Sampler::kDpmpp2MSde;
  switch (kind) {
    case NoiseScheduleKind::kDefault:
      return true;
    case NoiseScheduleKind::kTrailing:
      return !IsDistilled(sampler);
    case NoiseScheduleKind::kKarras:
    case NoiseScheduleKind::kExponential:
    case NoiseScheduleKind::kBeta:
      return !IsDistilled(sampler) && sampler != Sampler::kDdim;
    case NoiseScheduleKind::kAys:
    case NoiseScheduleKind::kSgmUniform:
      return dpmpp_2m || sampler == Sampler::kDpmpp3MSde || sampler == Sampler::kEuler ||
             sampler == Sampler::kEulerAncestral;
    case NoiseScheduleKind::kLu:
      return dpmpp_2m || sampler == Sampler::kDpmpp3M || sampler == Sampler::kDpmpp3MSde;
  }
  return false;
}

void CheckDistilledSteps(const char* field, const DenoiseOptions& options, Violations& violations) {
  if (IsDistilled(options.sampler) && options.steps > kMaxDistilledSteps && options.steps <= kMaxSteps) {
    violations.Add(field, "is ", options.steps, "; allowed with SAMPLER_",
                   kSamplerNames[static_cast<size_t>(options.sampler)], " are 1 to ", kMaxDistilledSteps);
  }
}

void CheckSamplerCombination(const DenoiseOptions& options, Violations& violations) {
  const char* const name = kSamplerNames[static_cast<size_t>(options.sampler)];
  if (!HasSchedule(options.sampler, options.schedule)) {
    std::string allowed;
    for (const NoiseScheduleKind kind : AllOf<NoiseScheduleKind>()) {
      if (HasSchedule(options.sampler, kind)) {
        absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", "NOISE_SCHEDULE_",
                        kScheduleNames[static_cast<size_t>(kind)]);
      }
    }
    violations.Add("schedule", "is NOISE_SCHEDULE_", kScheduleNames[static_cast<size_t>(options.schedule)],
                   ", which SAMPLER_", name, " does not have; allowed: ", allowed);
  }
  CheckDistilledSteps("steps", options, violations);
}

// The randomness of TCD and DDIM; 0 with other samplers, which have none to set.
double CheckEta(const ImageRequest& request, Sampler sampler, Violations& violations) {
  constexpr double kTcdDefault = 0.3;
  if (sampler != Sampler::kTcd && sampler != Sampler::kDdim) {
    if (request.eta.has_value()) {
      violations.Add("eta", "is set with SAMPLER_", kSamplerNames[static_cast<size_t>(sampler)],
                     "; only SAMPLER_TCD and SAMPLER_DDIM have it");
    }
    return 0.0;
  }
  return violations.RealInRange("eta", request.eta, 0, 1, sampler == Sampler::kTcd ? kTcdDefault : 0.0);
}

// What images are made in if the request does not say.
struct Size {
  uint32_t width = 0, height = 0;
};

// The files' headers; answers the size to paint in by default: the init image's, rounded down.
Size CheckInputImages(const ImageRequest& request, const RequestLimits& limits, Violations& violations) {
  Size size{limits.native_size, limits.native_size};
  if (!request.mask_image.empty()) {
    if (const absl::Status mask = ReadImageHeader(request.mask_image).status(); !mask.ok()) {
      violations.Add("mask_image", mask.message());
    }
    if (request.init_image.empty()) {
      violations.Add("mask_image", "is set without an init_image to repaint");
    }
  }
  if (request.init_image.empty()) {
    return size;
  }
  const absl::StatusOr<ImageHeader> init = ReadImageHeader(request.init_image);
  if (!init.ok()) {
    violations.Add("init_image", init.status().message());
    return size;
  }
  const uint32_t width = init->upright_width(), height = init->upright_height();
  size = {width / kSideMultiple * kSideMultiple, height / kSideMultiple * kSideMultiple};
  const bool own_size = !request.width.has_value() || !request.height.has_value();
  if (own_size && (std::min(size.width, size.height) < kMinSide || std::max(size.width, size.height) > kMaxSide ||
                   uint64_t{size.width} * size.height > kMaxPixels)) {
    violations.Add("init_image", "is ", width, "x", height,
                   " pixels, which is outside the supported sizes; set width and height");
    size = {limits.native_size, limits.native_size};
  }
  return size;
}

// The part of the steps that an image to begin with goes through.
double CheckStrengthValue(const char* field, double strength, uint32_t steps, Violations& violations) {
  if (!(strength > 0.0 && strength <= 1.0)) {  // so that NaN is refused too
    violations.Add(field, "is ", strength, "; allowed are numbers above 0, at most 1");
    return 1.0;
  }
  if (steps >= 1 && steps <= kMaxSteps && static_cast<uint32_t>(steps * strength) < 1) {
    violations.Add(field, "of ", strength, " leaves none of ", steps, " steps; their product must be at least 1");
  }
  return strength;
}

// The request's strength; 1 without an init image.
double CheckStrength(const ImageRequest& request, uint32_t steps, Violations& violations) {
  constexpr double kDefault = 0.3, kDefaultWithMask = 0.9999;
  if (request.init_image.empty()) {
    if (request.strength.has_value()) {
      violations.Add("strength", "is set without an init_image to change");
    }
    return 1.0;
  }
  const double strength = request.strength.value_or(request.mask_image.empty() ? kDefault : kDefaultWithMask);
  return CheckStrengthValue("strength", strength, steps, violations);
}

// The request's size conditioning, by default that of the options' size.
void SetSizeIds(const ImageRequest& request, DenoiseOptions& options) {
  options.size_ids = MakeSizeIds(request.size_conditioning.value_or(SizeConditioning{}), options.width, options.height);
  options.negative_size_ids = request.negative_size_conditioning.has_value()
                                  ? MakeSizeIds(*request.negative_size_conditioning, options.width, options.height)
                                  : options.size_ids;
}

DenoiseOptions CheckDenoise(const ImageRequest& request, const RequestLimits& limits, Violations& violations) {
  DenoiseOptions options;
  const Size own_size = CheckInputImages(request, limits, violations);
  options.width = CheckSide("width", request.width, own_size.width, violations);
  options.height = CheckSide("height", request.height, own_size.height, violations);
  const uint64_t pixels = uint64_t{options.width} * options.height;
  if (options.width <= kMaxSide && options.height <= kMaxSide && pixels > kMaxPixels) {
    violations.Add("width", "times height is ", pixels, " pixels; allowed are at most ", kMaxPixels);
  }
  options.steps = violations.UintInRange("steps", request.steps, 1, kMaxSteps, 30);
  options.guidance_scale = violations.RealInRange("guidance_scale", request.guidance_scale, 0, kMaxGuidanceScale, 5.0);
  options.guidance_rescale = violations.RealInRange("guidance_rescale", request.guidance_rescale, 0, 1, 0);
  const EvaluationRange guidance =
      violations.Range("guidance_start", request.guidance_start, "guidance_end", request.guidance_end);
  options.guidance_start = guidance.start;
  options.guidance_end = guidance.end;
  options.sampler = request.sampler.value_or(Sampler::kEuler);
  options.schedule = request.schedule.value_or(NoiseScheduleKind::kDefault);
  CheckSamplerCombination(options, violations);
  options.eta = CheckEta(request, options.sampler, violations);
  options.strength = CheckStrength(request, options.steps, violations);
  options.preview_every = violations.UintInRange("preview_every", request.preview_every, 0, kMaxSteps, 0);
  SetSizeIds(request, options);
  return options;
}

// The second pass, if the request has one: the first, which is in `job`, but for what differs.
void CheckHires(const ImageRequest& request, ImageJob& job, Violations& violations) {
  if (!request.hires.has_value()) {
    return;
  }
  const DenoiseOptions& first = job.denoise;
  DenoiseOptions& second = job.hires.emplace(first);
  const double scale = job.hires_scale = request.hires->scale.value_or(kDefaultHiresScale);
  if (!(scale > 1.0 && scale <= kMaxHiresScale)) {  // so that NaN is refused too
    violations.Add("hires.scale", "is ", scale, "; allowed are numbers above 1, at most ", kMaxHiresScale);
  } else if (first.width <= kMaxSide && first.height <= kMaxSide) {
    second.width = HiresSide(first.width, scale);
    second.height = HiresSide(first.height, scale);
    const uint64_t pixels = uint64_t{second.width} * second.height;
    if (second.width > kMaxSide || second.height > kMaxSide || pixels > kMaxPixels) {
      violations.Add("hires.scale", "of ", scale, " makes ", second.width, "x", second.height,
                     " pixels; allowed are sides of at most ", kMaxSide, " and at most ", kMaxPixels, " pixels");
    }
  }
  second.steps = request.hires->steps.has_value()
                     ? violations.UintInRange("hires.steps", request.hires->steps, 1, kMaxSteps, 0)
                     : first.steps;
  if (request.hires->steps.has_value()) {
    CheckDistilledSteps("hires.steps", second, violations);
  }
  second.strength = CheckStrengthValue("hires.strength", request.hires->strength.value_or(kDefaultHiresStrength),
                                       second.steps, violations);
  SetSizeIds(request, second);
}

// An adapter that the request names, and what to call its name and its weights in an error.
struct SourcedAdapter {
  AdapterRef ref;
  std::string name_field, weight_field, text_encoder_weight_field;
  std::string field;  // what its other fields' names begin with; empty: a tag's, which has no others
};

std::vector<SourcedAdapter> ListedAdapters(const std::vector<AdapterRef>& refs) {
  std::vector<SourcedAdapter> adapters;
  for (size_t i = 0; i < refs.size(); ++i) {
    const std::string field = absl::StrCat("adapters[", i, "].");
    adapters.push_back({refs[i], field + "name", field + "weight", field + "text_encoder_weight", field});
  }
  return adapters;
}

// Cuts the tags out of a prompt and adds what they name.
void TakeTags(absl::string_view field, std::string& prompt, std::vector<SourcedAdapter>& adapters,
              Violations& violations) {
  TaggedPrompt tagged = TakeLoraTags(prompt);
  prompt = std::move(tagged.text);
  for (const std::string& fault : tagged.faults) {
    violations.Add(field, fault);
  }
  for (AdapterRef& ref : tagged.adapters) {
    const std::string name(field);
    adapters.push_back({std::move(ref), name, name, name, ""});
  }
}

// Whether each text that the request gives can be parsed, its tags cut out.
void CheckEmphasis(const ImageRequest& request, const Prompts& prompts, Violations& violations) {
  const std::tuple<const char*, bool, std::string> texts[] = {
      {"prompt", true, prompts.prompt},
      {"prompt_2", !request.prompt_2.value_or("").empty(), prompts.prompt_2},
      {"negative_prompt", request.negative_prompt.has_value(), prompts.negative_prompt.value_or("")},
      {"negative_prompt_2", !request.negative_prompt_2.value_or("").empty(), prompts.negative_prompt_2},
  };
  for (const auto& [field, given, text] : texts) {
    if (!prompts.weighted || !given || text.size() > kMaxPromptBytes) {
      continue;
    }
    if (const absl::Status status = ParseEmphasis(text, prompts.long_prompts).status(); !status.ok()) {
      violations.Add(field, status.message());
    }
  }
}

std::vector<AdapterUse> CheckAdapters(const std::vector<SourcedAdapter>& adapters, const RequestLimits& limits,
                                      Violations& violations) {
  if (adapters.size() > kMaxAdapters) {
    violations.Add("adapters", "has ", adapters.size(), " entries; allowed are at most ", kMaxAdapters);
    return {};
  }
  const BlockRules rules{limits.unet_modules, "UNet modules", -kMaxAdapterWeight, kMaxAdapterWeight};
  std::vector<AdapterUse> uses;
  absl::flat_hash_set<std::string> names;
  for (const SourcedAdapter& adapter : adapters) {
    const AdapterRef& ref = adapter.ref;
    const std::string subject = adapter.name_field == adapter.weight_field  // a tag's
                                    ? absl::StrCat("has a tag of adapter \"", EscapeName(ref.name), "\", which ")
                                    : "";
    const absl::StatusOr<std::string> name = NormalizeName(ref.name);
    if (!name.ok()) {
      violations.Add(adapter.name_field, subject, name.status().message());
    } else if (!names.insert(*name).second) {
      violations.Add(adapter.name_field, subject, "names an adapter that is in the list already");
    }
    AdapterUse use;
    use.name = name.value_or("");
    use.weight = violations.RealInRange(adapter.weight_field, ref.weight, -kMaxAdapterWeight, kMaxAdapterWeight, 1.0);
    use.text_encoder_weight = ref.text_encoder_weight.has_value()
                                  ? violations.RealInRange(adapter.text_encoder_weight_field, ref.text_encoder_weight,
                                                           -kMaxAdapterWeight, kMaxAdapterWeight, 1.0)
                                  : use.weight;
    use.range = violations.Range(adapter.field + "start", ref.start, adapter.field + "end", ref.end);
    use.blocks = CheckBlocks(adapter.field + "blocks", ref.blocks, rules, violations);
    if (!use.blocks.empty() && LeaveOutAll(use.blocks, use.weight, limits.unet_modules)) {
      use.weight = 0.0;
      use.blocks.clear();
    }
    if (use.weight != 0.0 || use.text_encoder_weight != 0.0 || !use.blocks.empty()) {
      uses.push_back(std::move(use));
    }
  }
  return uses;
}

// Whether a token can be told from the rest of a prompt, in the weighted syntax too.
bool IsToken(absl::string_view token) {
  const auto fits = [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) && !absl::StrContains("()[]:,\\", c);
  };
  return !token.empty() && token.size() <= kMaxTokenBytes && std::all_of(token.begin(), token.end(), fits);
}

std::vector<EmbeddingUse> CheckEmbeddings(const std::vector<EmbeddingRef>& refs, Violations& violations) {
  if (refs.size() > kMaxEmbeddings) {
    violations.Add("embeddings", "has ", refs.size(), " entries; allowed are at most ", kMaxEmbeddings);
    return {};
  }
  std::vector<EmbeddingUse> uses;
  absl::flat_hash_set<std::string> names, tokens;
  for (size_t i = 0; i < refs.size(); ++i) {
    const std::string field = absl::StrCat("embeddings[", i, "].");
    const std::string token = refs[i].token.value_or(refs[i].name);
    const absl::StatusOr<std::string> name = NormalizeName(refs[i].name);
    if (!name.ok()) {
      violations.Add(field + "name", name.status().message());
    } else if (!names.insert(*name).second) {
      violations.Add(field + "name", "names an embedding that is in the list already");
    } else if (!IsToken(token)) {
      violations.Add(field + "token", "is \"", token, "\"; allowed are 1 to ", kMaxTokenBytes,
                     " printable ASCII characters other than the space and ( ) [ ] : , \\");
    } else if (!tokens.insert(absl::AsciiStrToLower(token)).second) {
      violations.Add(field + "token", "is \"", token, "\", which stands for another embedding already");
    }
    uses.push_back({name.value_or(""), token});
  }
  return uses;
}

}  // namespace

absl::Status InvalidRequest(std::vector<FieldViolation> violations) {
  std::string message = absl::StrCat(violations.size(), " bad field", violations.size() == 1 ? "" : "s", ": ");
  for (size_t i = 0; i < violations.size(); ++i) {
    absl::StrAppend(&message, i == 0 ? "" : "; ", violations[i].field, " ", violations[i].description);
  }
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {error_reason::kInvalidRequest, std::move(violations), {}});
}

absl::StatusOr<ImageJob> ValidateImageRequest(const ImageRequest& request, const RequestLimits& limits) {
  Violations violations;
  ImageJob job;
  CheckRequestId(request.request_id, violations);
  job.prompts = CheckPrompts(request, limits, violations);
  job.denoise = CheckDenoise(request, limits, violations);
  CheckHires(request, job, violations);
  job.num_images = violations.UintInRange("num_images", request.num_images, 1, kMaxImages, 1);
  std::vector<SourcedAdapter> adapters = ListedAdapters(request.adapters);
  if (request.lora_tags.value_or(false)) {
    TakeTags("prompt", job.prompts.prompt, adapters, violations);
    if (!request.prompt_2.value_or("").empty()) {
      TakeTags("prompt_2", job.prompts.prompt_2, adapters, violations);
    } else {
      job.prompts.prompt_2 = job.prompts.prompt;
    }
  }
  CheckEmphasis(request, job.prompts, violations);
  job.adapters = CheckAdapters(adapters, limits, violations);
  job.embeddings = CheckEmbeddings(request.embeddings, violations);
  job.controls = CheckControls(request.controls, violations);
  job.image_prompts = CheckImagePrompts(request.image_prompts, limits.cross_attentions, violations);
  job.init_image = request.init_image;
  job.mask_image = request.mask_image;
  job.format = request.format.value_or(ImageFormat::kPng);
  job.quality = violations.UintInRange("quality", request.quality, 1, kMaxQuality, 90);
  job.priority = request.priority.value_or(0);
  job.caller = request.caller;
  job.deadline = request.deadline;
  if (absl::Status status = std::move(violations).ToStatus(); !status.ok()) {
    return status;
  }
  const auto is_never_in_force = [&job](const auto& use) {
    return !use.range.HoldsAny(job.denoise.evaluations()) && !use.range.HoldsAny(job.last_pass().evaluations());
  };
  job.adapters.erase(std::remove_if(job.adapters.begin(), job.adapters.end(), is_never_in_force), job.adapters.end());
  job.controls.erase(std::remove_if(job.controls.begin(), job.controls.end(), is_never_in_force), job.controls.end());
  thread_local absl::BitGen random;
  job.seed = request.seed.has_value() ? *request.seed : absl::Uniform<uint64_t>(random, 0, kRandomSeedEnd);
  job.request_id = request.request_id.empty() ? MakeRequestId() : request.request_id;
  return job;
}

}  // namespace hotlora
