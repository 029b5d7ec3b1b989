#include "server/proto_mapping.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "server/enum_mapping.h"
#include "server/memory_plan.h"
#include "server/status_mapping.h"
#include "src/request/control_check.h"
#include "src/request/image_prompt_check.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

SizeConditioning FromProto(const v1::SizeConditioning& message) {
  SizeConditioning size;
  if (message.has_original_width()) size.original_width = message.original_width();
  if (message.has_original_height()) size.original_height = message.original_height();
  if (message.has_crop_left()) size.crop_left = message.crop_left();
  if (message.has_crop_top()) size.crop_top = message.crop_top();
  if (message.has_target_width()) size.target_width = message.target_width();
  if (message.has_target_height()) size.target_height = message.target_height();
  return size;
}

HiresPass FromProto(const v1::HiresPass& message) {
  HiresPass hires;
  if (message.has_scale()) hires.scale = message.scale();
  if (message.has_strength()) hires.strength = message.strength();
  if (message.has_steps()) hires.steps = message.steps();
  return hires;
}

AdapterRef FromProto(const v1::AdapterRef& message) {
  AdapterRef adapter;
  adapter.name = message.name();
  if (message.has_weight()) adapter.weight = message.weight();
  if (message.has_text_encoder_weight()) adapter.text_encoder_weight = message.text_encoder_weight();
  if (message.has_start()) adapter.start = message.start();
  if (message.has_end()) adapter.end = message.end();
  return adapter;
}

const std::string& FromProto(const std::string& bytes) { return bytes; }

BlockWeight FromProto(const v1::BlockWeight& message) { return {message.prefix(), message.weight()}; }

ControlRef FromProto(const v1::ControlRef& message) {
  ControlRef control;
  control.name = message.name();
  control.image = message.image();
  if (message.has_scale()) control.scale = message.scale();
  if (message.has_start()) control.start = message.start();
  if (message.has_end()) control.end = message.end();
  if (message.has_type()) control.type = message.type();
  return control;
}

ImagePromptRef FromProto(const v1::ImagePromptRef& message) {
  ImagePromptRef prompt;
  prompt.name = message.name();
  if (message.has_scale()) prompt.scale = message.scale();
  return prompt;
}

EmbeddingRef FromProto(const v1::EmbeddingRef& message) {
  EmbeddingRef embedding;
  embedding.name = message.name();
  if (message.has_token()) embedding.token = message.token();
  return embedding;
}

// Copies a repeated field, or refuses it: a hostile list of millions is not worth copying.
template <typename Message, typename Ref>
void CopyRefs(const std::string& field, const google::protobuf::RepeatedPtrField<Message>& messages, size_t most,
              std::vector<Ref>& refs, std::vector<FieldViolation>& violations) {
  if (messages.size() > static_cast<int>(most)) {
    violations.push_back({field, absl::StrCat("has ", messages.size(), " entries; allowed are at most ", most)});
    return;
  }
  for (const Message& message : messages) {
    refs.push_back(FromProto(message));
  }
}

// Copies the weights by block of the references that were copied.
template <typename Message, typename Ref>
void CopyBlocks(const std::string& field, const google::protobuf::RepeatedPtrField<Message>& messages,
                std::vector<Ref>& refs, std::vector<FieldViolation>& violations) {
  for (size_t i = 0; i < refs.size(); ++i) {
    CopyRefs(absl::StrCat(field, "[", i, "].blocks"), messages.Get(static_cast<int>(i)).blocks(), kMaxBlocks,
             refs[i].blocks, violations);
  }
}

void CopyImagePrompts(const v1::GenerateImagesRequest& message, MappedImageRequest& mapped) {
  std::vector<ImagePromptRef>& refs = mapped.request.image_prompts;
  CopyRefs("image_prompts", message.image_prompts(), kMaxImagePrompts, refs, mapped.violations);
  CopyBlocks("image_prompts", message.image_prompts(), refs, mapped.violations);
  for (size_t i = 0; i < refs.size(); ++i) {
    CopyRefs(absl::StrCat("image_prompts[", i, "].images"), message.image_prompts(static_cast<int>(i)).images(),
             kMaxPromptImages, refs[i].images, mapped.violations);
  }
}

v1::AppliedAdapter ToProto(const AppliedAdapter& adapter) {
  v1::AppliedAdapter message;
  message.set_name(adapter.name);
  message.set_content_sha256(adapter.content_sha256);
  message.set_weight(adapter.weight);
  message.set_tier_found(EnumToProto(kTiers, adapter.tier_found));
  message.set_matched_modules(adapter.matched_modules);
  for (const std::string& key : adapter.unmatched_keys) {
    message.add_unmatched_keys(CleanText(key));
  }
  for (const std::string& note : adapter.notes) {
    message.add_notes(CleanText(note));
  }
  message.set_load_seconds(adapter.load_seconds);
  return message;
}

v1::AppliedControl ToProto(const AppliedControl& control) {
  v1::AppliedControl message;
  message.set_name(control.name);
  message.set_content_sha256(control.content_sha256);
  message.set_scale(control.scale);
  message.set_tier_found(EnumToProto(kTiers, control.tier_found));
  message.set_seconds(control.seconds);
  return message;
}

v1::SwapCost ToProto(const SwapCost& cost) {
  v1::SwapCost message;
  message.set_changed(cost.changed);
  message.set_form(cost.merged ? "merged" : "side");
  if (cost.lookup_seconds > 0) message.set_lookup_seconds(cost.lookup_seconds);
  if (cost.read_seconds > 0) message.set_read_seconds(cost.read_seconds);
  if (cost.parse_seconds > 0) message.set_parse_seconds(cost.parse_seconds);
  if (cost.upload_seconds > 0) message.set_upload_seconds(cost.upload_seconds);
  if (cost.apply_seconds > 0) message.set_apply_seconds(cost.apply_seconds);
  if (cost.restore_seconds > 0) message.set_restore_seconds(cost.restore_seconds);
  message.set_total_seconds(cost.total_seconds);
  return message;
}

// What is said of files of every kind.
template <typename Message>
Message CommonOf(const AdapterInfo& info) {
  Message message;
  message.set_name(CleanText(info.name));
  message.set_bytes(info.bytes);
  message.set_tier(EnumToProto(kTiers, info.tier));
  message.set_pinned(info.pinned);
  message.set_state(EnumToProto(kStates, info.state));
  message.set_error(CleanText(info.error));
  return message;
}

}  // namespace

MappedImageRequest FromProto(const v1::GenerateImagesRequest& message) {
  MappedImageRequest mapped;
  ImageRequest& request = mapped.request;
  request.request_id = message.request_id();
  request.prompt = message.prompt();
  if (message.has_negative_prompt()) request.negative_prompt = message.negative_prompt();
  if (message.has_prompt_2()) request.prompt_2 = message.prompt_2();
  if (message.has_negative_prompt_2()) request.negative_prompt_2 = message.negative_prompt_2();
  if (message.has_width()) request.width = message.width();
  if (message.has_height()) request.height = message.height();
  if (message.has_steps()) request.steps = message.steps();
  if (message.has_guidance_scale()) request.guidance_scale = message.guidance_scale();
  if (message.has_guidance_rescale()) request.guidance_rescale = message.guidance_rescale();
  if (message.has_guidance_start()) request.guidance_start = message.guidance_start();
  if (message.has_guidance_end()) request.guidance_end = message.guidance_end();
  if (message.has_eta()) request.eta = message.eta();
  request.sampler = EnumFromProto(kSamplers, message.sampler(), "sampler", mapped.violations);
  request.schedule = EnumFromProto(kSchedules, message.schedule(), "schedule", mapped.violations);
  if (message.has_seed()) request.seed = message.seed();
  if (message.has_num_images()) request.num_images = message.num_images();
  if (message.has_clip_skip()) request.clip_skip = message.clip_skip();
  CopyRefs("adapters", message.adapters(), kMaxAdapters, request.adapters, mapped.violations);
  CopyBlocks("adapters", message.adapters(), request.adapters, mapped.violations);
  CopyRefs("embeddings", message.embeddings(), kMaxEmbeddings, request.embeddings, mapped.violations);
  CopyRefs("controls", message.controls(), kMaxControls, request.controls, mapped.violations);
  CopyImagePrompts(message, mapped);
  if (message.has_size_conditioning()) request.size_conditioning = FromProto(message.size_conditioning());
  if (message.has_negative_size_conditioning()) {
    request.negative_size_conditioning = FromProto(message.negative_size_conditioning());
  }
  request.init_image = message.init_image();
  request.mask_image = message.mask_image();
  if (message.has_strength()) request.strength = message.strength();
  if (message.has_hires()) request.hires = FromProto(message.hires());
  request.format = EnumFromProto(kFormats, message.format(), "format", mapped.violations);
  if (message.has_quality()) request.quality = message.quality();
  if (message.has_preview_every()) request.preview_every = message.preview_every();
  if (message.has_priority()) request.priority = message.priority();
  request.prompt_syntax = EnumFromProto(kPromptSyntaxes, message.prompt_syntax(), "prompt_syntax", mapped.violations);
  if (message.has_long_prompts()) request.long_prompts = message.long_prompts();
  if (message.has_lora_tags()) request.lora_tags = message.lora_tags();
  return mapped;
}

v1::Accepted ToProto(const Admission& admission) {
  v1::Accepted message;
  message.set_request_id(admission.request_id);
  message.set_queue_position(admission.queue_position);
  message.set_seed(admission.seed);
  return message;
}

v1::Waiting ToProto(const ImageWaiting& waiting) {
  v1::Waiting message;
  message.set_queue_position(waiting.queue_position);
  message.set_stage(waiting.stage == WaitStage::kQueue ? "queue" : "adapter");
  if (waiting.estimated_seconds > 0) message.set_estimated_seconds(waiting.estimated_seconds);
  return message;
}

v1::Progress ToProto(const ImageProgress& progress) {
  v1::Progress message;
  message.set_image_index(progress.image_index);
  message.set_step(progress.step);
  message.set_total_steps(progress.total_steps);
  message.set_step_seconds(progress.step_seconds);
  message.set_preview(progress.preview);
  return message;
}

v1::Image ToProtoWithoutData(const FinishedImage& image) {
  v1::Image message;
  message.set_index(image.index);
  message.set_seed(image.seed);
  message.set_width(image.width);
  message.set_height(image.height);
  message.set_format(EnumToProto(kFormats, image.format));
  message.set_total_bytes(image.data.size());
  return message;
}

const char* MediaType(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "image/png";
    case ImageFormat::kJpeg:
      return "image/jpeg";
    case ImageFormat::kWebp:
      return "image/webp";
    case ImageFormat::kRawRgb8:
      return "application/octet-stream";
  }
  return "application/octet-stream";
}

v1::Summary ToProto(const ImageSummary& summary) {
  v1::Summary message;
  message.set_queue_seconds(summary.queue_seconds);
  message.set_adapter_seconds(summary.adapter_seconds);
  message.set_encode_seconds(summary.encode_seconds);
  message.set_denoise_seconds(summary.denoise_seconds);
  message.set_decode_seconds(summary.decode_seconds);
  message.set_total_seconds(summary.total_seconds);
  for (const AppliedAdapter& adapter : summary.adapters) {
    *message.add_adapters() = ToProto(adapter);
  }
  for (const AppliedEmbedding& embedding : summary.embeddings) {
    v1::AppliedEmbedding* applied = message.add_embeddings();
    applied->set_name(embedding.name);
    applied->set_content_sha256(embedding.content_sha256);
    applied->set_token(embedding.token);
    applied->set_vectors(embedding.vectors);
  }
  for (const AppliedControl& control : summary.controls) {
    *message.add_controls() = ToProto(control);
  }
  for (const AppliedControl& prompt : summary.image_prompts) {
    *message.add_image_prompts() = ToProto(prompt);
  }
  message.set_model_sha256(summary.model_sha256);
  message.set_dtype(summary.dtype);
  message.set_sampler(ToProto(summary.sampler));
  message.set_schedule(ToProto(summary.schedule));
  message.set_width(summary.width);
  message.set_height(summary.height);
  message.set_server_version(HOTLORA_VERSION);
  *message.mutable_swap_cost() = ToProto(summary.swap);
  return message;
}

v1::Sampler ToProto(Sampler sampler) { return EnumToProto(kSamplers, sampler); }

v1::NoiseSchedule ToProto(NoiseScheduleKind schedule) { return EnumToProto(kSchedules, schedule); }

v1::Adapter ToProto(const AdapterInfo& info) {
  v1::Adapter message = CommonOf<v1::Adapter>(info);
  if (!info.content_sha256.empty()) {
    message.set_content_sha256(info.content_sha256);
    message.set_format(CleanText(info.format));
    message.set_rank_max(info.rank_max);
    message.set_in_use(info.in_use);
    message.set_matched_modules(info.matched_modules);
  }
  for (const std::string& note : info.notes) {
    message.add_notes(CleanText(note));
  }
  message.set_architecture(CleanText(info.metadata.architecture));
  message.set_base_model(CleanText(info.metadata.base_model));
  message.set_title(CleanText(info.metadata.title));
  message.set_trigger_phrase(CleanText(info.metadata.trigger_phrase));
  for (const std::string& tag : info.metadata.tags) {
    message.add_tags(CleanText(tag));
  }
  for (const std::string& target : info.targets) {
    message.add_targets(CleanText(target));
  }
  return message;
}

v1::Control ToControl(const AdapterInfo& info) {
  v1::Control message = CommonOf<v1::Control>(info);
  if (!info.content_sha256.empty()) {
    message.set_content_sha256(info.content_sha256);
    message.set_kind(info.format);
    message.set_in_use(info.in_use);
    if (info.control_types > 0) message.set_control_types(info.control_types);
  }
  return message;
}

v1::ServerInfo ToProto(const ModelInfo& model, const EngineOptions& options, uint64_t max_message_bytes) {
  v1::ServerInfo message;
  message.set_version(HOTLORA_VERSION);
  message.set_model(CleanText(model.name));
  message.set_model_sha256(model.sha256);
  message.set_dtype(model.dtype);
  message.set_device(model.device);
  message.set_native_width(model.native_size);
  message.set_native_height(model.native_size);
  v1::ServerLimits* limits = message.mutable_limits();
  limits->set_max_batch(options.batch.max_batch);
  limits->set_max_queue(options.max_queue);
  limits->set_max_images(kMaxImages);
  limits->set_max_steps(kMaxSteps);
  limits->set_max_pixels(static_cast<uint32_t>(kMaxPixels));
  limits->set_max_side(kMaxSide);
  limits->set_max_adapters(static_cast<uint32_t>(kMaxAdapters));
  limits->set_max_prompt_bytes(static_cast<uint32_t>(kMaxPromptBytes));
  limits->set_max_clip_skip(model.max_clip_skip);
  const bool limited = options.max_request_time != absl::InfiniteDuration();
  limits->set_max_request_seconds(limited ? absl::ToDoubleSeconds(options.max_request_time) : 0);
  limits->set_max_message_bytes(max_message_bytes);
  return message;
}

v1::BaseIntegrity ToProto(const BaseReport& report) {
  v1::BaseIntegrity message;
  message.set_modules_checked(report.modules_checked);
  message.set_mismatches(report.mismatches);
  message.set_repaired(report.repaired);
  message.set_intact(report.intact);
  return message;
}

v1::MeasuredCosts ToProto(const CostReport& report) {
  v1::MeasuredCosts message;
  for (const auto& [kind, seconds, count] : report.steps) {
    v1::StepCost* const added = message.add_steps();
    added->set_width(kind.width);
    added->set_height(kind.height);
    added->set_network_rows(kind.network_rows);
    added->set_side(kind.side);
    added->set_seconds(seconds);
    added->set_steps(count);
  }
  for (const auto& [kind, seconds, count] : report.swaps) {
    v1::SwapMedian* const added = message.add_swaps();
    added->set_found(EnumToProto(kTiers, kind.found));
    added->set_merged(kind.merged);
    added->set_seconds(seconds);
    added->set_swaps(count);
  }
  message.set_steps_before_merging(report.steps_before_merging);
  message.set_taking_turns(report.taking_turns);
  return message;
}

void FillTiers(const std::vector<TierStatistics>& tiers,
               google::protobuf::RepeatedPtrField<v1::TierStatistics>& filled) {
  for (const TierStatistics& tier : tiers) {
    v1::TierStatistics* added = filled.Add();
    added->set_tier(EnumToProto(kTiers, tier.tier));
    added->set_capacity_bytes(tier.capacity_bytes);
    added->set_used_bytes(tier.bytes);
    added->set_pinned_bytes(tier.pinned_bytes);
    added->set_entries(tier.entries);
    added->set_hits(tier.hits);
    added->set_misses(tier.misses);
    added->set_evictions(tier.evictions);
  }
}

v1::Statistics ToProto(const EngineStatistics& statistics, const std::string& device) {
  v1::Statistics message;
  for (const PlannedMemory& area : MemoryPlan(statistics, device)) {
    v1::MemoryArea* added = message.add_memory();
    added->set_what(area.what);
    added->set_where(area.where);
    added->set_planned_bytes(area.planned_bytes);
    added->set_used_bytes(area.used_bytes);
  }
  message.mutable_device_memory()->set_device(device);
  message.mutable_device_memory()->set_allocated_bytes(statistics.device_memory.allocated);
  message.mutable_device_memory()->set_reserved_bytes(statistics.device_memory.reserved);
  FillTiers(statistics.adapters.tiers, *message.mutable_tiers());
  if (HasControls(statistics)) {
    FillTiers(statistics.controls.tiers, *message.mutable_control_tiers());
  }
  for (const AdapterStatistics& adapter : statistics.adapters.adapters) {
    const AdapterCounts& counts = adapter.counts;
    v1::AdapterStatistics* added = message.add_adapters();
    *added->mutable_adapter() = ToProto(adapter.info);
    added->set_requests(counts.requests);
    added->set_host_hits(counts.host_hits);
    added->set_reads(counts.reads);
    added->set_failed_reads(counts.failed_reads);
    added->set_read_seconds(counts.read_seconds);
    added->set_parse_seconds(counts.parse_seconds);
    if (counts.last_used != absl::InfinitePast()) {
      const int64_t nanoseconds = absl::ToUnixNanos(counts.last_used);
      added->mutable_last_used()->set_seconds(nanoseconds / 1'000'000'000);
      added->mutable_last_used()->set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
    }
  }
  *message.mutable_base() = ToProto(statistics.base);
  message.set_queue_depth(statistics.queue_depth);
  message.set_queue_capacity(statistics.queue_capacity);
  *message.mutable_costs() = ToProto(statistics.costs);
  message.set_uptime_seconds(statistics.uptime_seconds);
  return message;
}

}  // namespace hotlora
