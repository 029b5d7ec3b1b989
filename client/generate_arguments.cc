#include "client/generate_arguments.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <CLI/CLI.hpp>

#include "client/input_files.h"
#include "client/named_value.h"
#include "src/base/invalid_argument.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// The number of SAMPLER_EULER from "euler", or from "dpmpp-2m": the enum's names without prefix, in
// lower case.
template <typename Enum>
absl::StatusOr<Enum> ParseEnum(absl::string_view flag, absl::string_view prefix, const std::string& text) {
  const google::protobuf::EnumDescriptor* const names = google::protobuf::GetEnumDescriptor<Enum>();
  std::string wanted = absl::AsciiStrToUpper(absl::StrReplaceAll(text, {{"-", "_"}}));
  const auto* found = names->FindValueByName(absl::StrCat(prefix, wanted));
  if (found != nullptr && found->number() != 0) {
    return static_cast<Enum>(found->number());
  }
  std::string allowed;
  for (int i = 1; i < names->value_count(); ++i) {
    absl::string_view name = names->value(i)->name();
    absl::ConsumePrefix(&name, prefix);
    absl::StrAppend(&allowed, i == 1 ? "" : ", ", absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", "-"}}));
  }
  return InvalidArgument(flag, " is \"", text, "\"; allowed are ", allowed);
}

// What a file's ending says; UNSPECIFIED if it says nothing.
v1::ImageFormat FormatOfEnding(absl::string_view file) {
  static constexpr std::pair<absl::string_view, v1::ImageFormat> kEndings[] = {{".png", v1::IMAGE_FORMAT_PNG},
                                                                               {".jpg", v1::IMAGE_FORMAT_JPEG},
                                                                               {".jpeg", v1::IMAGE_FORMAT_JPEG},
                                                                               {".webp", v1::IMAGE_FORMAT_WEBP},
                                                                               {".rgb", v1::IMAGE_FORMAT_RAW_RGB8}};
  for (const auto& [ending, format] : kEndings) {
    if (absl::EndsWithIgnoreCase(file, ending)) {
      return format;
    }
  }
  return v1::IMAGE_FORMAT_UNSPECIFIED;
}

// NAME[:WEIGHT[:TEXT_ENCODER_WEIGHT]] as an adapter.
absl::StatusOr<v1::AdapterRef> ParseAdapter(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  v1::AdapterRef adapter;
  double weight = 0;
  double text_encoder_weight = 0;
  if (parts[0].empty() || parts.size() > 3 || (parts.size() > 1 && !absl::SimpleAtod(parts[1], &weight)) ||
      (parts.size() > 2 && !absl::SimpleAtod(parts[2], &text_encoder_weight))) {
    return InvalidArgument("--adapter is \"", text, "\"; it is NAME[:WEIGHT[:TEXT_ENCODER_WEIGHT]]");
  }
  adapter.set_name(parts[0]);
  if (parts.size() > 1) adapter.set_weight(weight);
  if (parts.size() > 2) adapter.set_text_encoder_weight(text_encoder_weight);
  return adapter;
}

// What follows "NAME=" in the value of an option about one adapter, and that adapter, which --adapter names.
absl::StatusOr<std::pair<v1::AdapterRef*, std::string>> FindAdapter(absl::string_view flag, absl::string_view form,
                                                                    const std::string& text,
                                                                    v1::GenerateImagesRequest& request) {
  ABSL_ASSIGN_OR_RETURN(const NamedValue given, SplitNamed(flag, form, text));
  for (v1::AdapterRef& adapter : *request.mutable_adapters()) {
    if (adapter.name() == given.name) {
      return std::pair(&adapter, given.value);
    }
  }
  return InvalidArgument(flag, " is \"", text, "\", but no --adapter is \"", given.name, "\"");
}

// NAME=START:END.
absl::Status SetAdapterRange(const std::string& text, v1::GenerateImagesRequest& request) {
  constexpr absl::string_view kFlag = "--adapter-range", kForm = "NAME=START:END";
  ABSL_ASSIGN_OR_RETURN(const auto found, FindAdapter(kFlag, kForm, text, request));
  const std::vector<std::string> ends = absl::StrSplit(found.second, ':');
  double start = 0, end = 0;
  if (ends.size() != 2 || !absl::SimpleAtod(ends[0], &start) || !absl::SimpleAtod(ends[1], &end)) {
    return InvalidArgument(kFlag, " is \"", text, "\"; it is ", kForm);
  }
  if (found.first->has_start()) {
    return InvalidArgument(kFlag, " is given twice for \"", found.first->name(), "\"");
  }
  found.first->set_start(start);
  found.first->set_end(end);
  return absl::OkStatus();
}

// NAME=PREFIX:WEIGHT[,PREFIX:WEIGHT...].
absl::Status AddAdapterBlocks(const std::string& text, v1::GenerateImagesRequest& request) {
  constexpr absl::string_view kFlag = "--adapter-blocks", kForm = "NAME=PREFIX:WEIGHT[,PREFIX:WEIGHT...]";
  ABSL_ASSIGN_OR_RETURN(const auto found, FindAdapter(kFlag, kForm, text, request));
  return AddBlocks(kFlag, kForm, text, found.second, *found.first->mutable_blocks());
}

absl::Status FinishAdapters(const GenerateOptions& given, v1::GenerateImagesRequest& request) {
  for (const std::string& adapter : given.adapters) {
    ABSL_ASSIGN_OR_RETURN(*request.add_adapters(), ParseAdapter(adapter));
  }
  for (const std::string& range : given.adapter_ranges) {
    ABSL_RETURN_IF_ERROR(SetAdapterRange(range, request));
  }
  for (const std::string& blocks : given.adapter_blocks) {
    ABSL_RETURN_IF_ERROR(AddAdapterBlocks(blocks, request));
  }
  return absl::OkStatus();
}

absl::Status FinishPictures(const GenerateOptions& given, Arguments& arguments) {
  v1::GenerateImagesRequest& request = arguments.request;
  if (given.init == "-" && given.mask == "-") {
    return InvalidArgument("--init and --mask cannot both be standard input");
  }
  if (!given.init.empty()) {
    ABSL_ASSIGN_OR_RETURN(*request.mutable_init_image(), ReadPicture("--init", given.init));
  }
  if (!given.mask.empty()) {
    ABSL_ASSIGN_OR_RETURN(*request.mutable_mask_image(), ReadPicture("--mask", given.mask));
  }
  if (given.strength) request.set_strength(*given.strength);
  if (given.hires_scale) request.mutable_hires()->set_scale(*given.hires_scale);
  if (given.hires_strength) request.mutable_hires()->set_strength(*given.hires_strength);
  if (given.hires_steps) request.mutable_hires()->set_steps(*given.hires_steps);
  if (given.preview_every && arguments.preview_out.empty()) {
    return InvalidArgument("--preview-every makes previews that go nowhere: give --preview-out");
  }
  if (arguments.preview_out == "-") {
    return InvalidArgument("--preview-out - would mix previews on standard output: give a file");
  }
  if (!arguments.preview_out.empty()) {
    request.set_preview_every(given.preview_every.value_or(1));
  }
  return absl::OkStatus();
}

void AddHires(CLI::App& app, GenerateOptions& given) {
  app.add_option("--hires-scale", given.hires_scale,
                 "make each picture again, so many times larger, above 1 to 4; 2 if another --hires option is given");
  app.add_option("--hires-strength", given.hires_strength,
                 "how much the larger picture may change, above 0 to 1; default 0.5");
  app.add_option("--hires-steps", given.hires_steps, "steps of the larger picture, as --steps");
}

}  // namespace

void AddGenerate(CLI::App& app, GenerateOptions& given, Arguments& arguments) {
  app.add_option("prompt", given.prompt, "what to paint")->required();
  app.add_option("--negative", given.negative, "what to keep out");
  app.add_option("--prompt-2", given.prompt_2, "prompt of the second text encoder");
  app.add_option("--negative-2", given.negative_2, "negative prompt of the second text encoder");
  app.add_flag("--weighted", given.weighted, "read (emphasis:1.2) and [its opposite] in the prompts");
  app.add_flag("--long-prompts", given.long_prompts,
               "accept prompts over 75 tokens, in chunks; BREAK begins a new one");
  app.add_option("--adapter", given.adapters,
                 "NAME[:WEIGHT[:TEXT_ENCODER_WEIGHT]] (repeatable; --adapter=-NAME if it begins with -)")
      ->allow_extra_args(false);
  app.add_option("--adapter-range", given.adapter_ranges,
                 "NAME=START:END (repeatable): the part of the steps in which an --adapter acts, from 0 to 1")
      ->allow_extra_args(false);
  app.add_option(
         "--adapter-blocks", given.adapter_blocks,
         "NAME=PREFIX:WEIGHT[,PREFIX:WEIGHT...] (repeatable): weights of an --adapter on parts of the UNet, such as "
         "down_blocks or up_blocks.0.attentions.1")
      ->allow_extra_args(false);
  AddControls(app, given.controls);
  AddImagePrompts(app, given.image_prompts);
  app.add_flag("--lora-tags", given.lora_tags, "read <lora:NAME:WEIGHT> in the prompts");
  app.add_option("--embedding", given.embeddings, "NAME[=TOKEN] of a textual-inversion embedding (repeatable)")
      ->allow_extra_args(false);
  app.add_option("--out", arguments.out, "file to write, - for standard output; several images: FILE-0.png, ...")
      ->required();
  app.add_option("--width", given.width, "pixels, a multiple of 8");
  app.add_option("--height", given.height, "pixels, a multiple of 8");
  app.add_option("--steps", given.steps, "denoising steps");
  app.add_option("--guidance", given.guidance, "classifier-free guidance, 1 for none");
  app.add_option("--guidance-rescale", given.guidance_rescale, "0 to 1");
  app.add_option("--guidance-start", given.guidance_start, "fraction of the steps at which guidance begins, 0 to 1");
  app.add_option("--guidance-end", given.guidance_end, "fraction of the steps at which guidance ends, 0 to 1");
  app.add_option("--init", given.init, "picture to begin with (PNG, JPEG, WebP), - for standard input");
  app.add_option("--mask", given.mask, "picture that says what to repaint of --init: white is repainted, black stays");
  app.add_option("--strength", given.strength,
                 "how much of --init may change, above 0 to 1; default 0.3, with --mask 0.9999");
  AddHires(app, given);
  app.add_option("--preview-out", arguments.preview_out, "write rough previews: FILE-STEP.jpg (FILE-IMAGE-STEP.jpg)");
  app.add_option("--preview-every", given.preview_every, "steps between previews, 1");
  app.add_option("--seed", given.seed, "image i uses SEED + i")
      ->check([](const std::string& text) {  // CLI11 takes -1 for 2^64 - 1
        uint64_t seed;
        return absl::SimpleAtoi(text, &seed) ? ""
                                             : absl::StrCat("\"", text, "\" is not a whole number from 0 to 2^64 - 1");
      });
  app.add_option("--images", given.images, "number of images, 1");
  app.add_option("--clip-skip", given.clip_skip, "last layers of the text encoders to leave out, 0");
  app.add_option(
      "--sampler", given.sampler,
      "euler, euler-ancestral, heun, ddim, dpmpp-2m, dpmpp-2m-sde, unipc, lcm, tcd, dpm2, dpm2-ancestral, lms, deis, "
      "dpmpp-2s, dpmpp-3m or dpmpp-3m-sde");
  app.add_option("--schedule", given.schedule, "default, karras, exponential, trailing, beta, ays, sgm-uniform or lu");
  app.add_option("--eta", given.eta, "randomness of tcd (0.3) and ddim (0), 0 to 1");
  app.add_option("--format", given.format, "png, jpeg, webp or raw-rgb8; by default what the file's ending says");
  app.add_option("--quality", given.quality, "quality of jpeg and webp, 1 to 100");
  app.add_option("--priority", given.priority, "priority in the queue: higher first, 0");
  app.add_option("--request-id", given.request_id, "name of the request in logs and answers");
}

absl::Status FinishGenerate(const GenerateOptions& given, Arguments& arguments) {
  v1::GenerateImagesRequest& request = arguments.request;
  request.set_prompt(given.prompt);
  request.set_request_id(given.request_id);
  if (given.negative) request.set_negative_prompt(*given.negative);
  if (given.prompt_2) request.set_prompt_2(*given.prompt_2);
  if (given.negative_2) request.set_negative_prompt_2(*given.negative_2);
  if (given.weighted) request.set_prompt_syntax(v1::PROMPT_SYNTAX_WEIGHTED);
  if (given.long_prompts) request.set_long_prompts(true);
  if (given.lora_tags) request.set_lora_tags(true);
  for (const std::string& embedding : given.embeddings) {
    const size_t equals = embedding.find('=');
    v1::EmbeddingRef* const ref = request.add_embeddings();
    ref->set_name(embedding.substr(0, equals));
    if (equals != std::string::npos) ref->set_token(embedding.substr(equals + 1));
  }
  if (given.width) request.set_width(*given.width);
  if (given.height) request.set_height(*given.height);
  if (given.steps) request.set_steps(*given.steps);
  if (given.guidance) request.set_guidance_scale(*given.guidance);
  if (given.guidance_rescale) request.set_guidance_rescale(*given.guidance_rescale);
  if (given.eta) request.set_eta(*given.eta);
  if (given.guidance_start) request.set_guidance_start(*given.guidance_start);
  if (given.guidance_end) request.set_guidance_end(*given.guidance_end);
  if (given.seed) request.set_seed(*given.seed);
  if (given.images) request.set_num_images(*given.images);
  if (given.clip_skip) request.set_clip_skip(*given.clip_skip);
  if (given.quality) request.set_quality(*given.quality);
  if (given.priority) request.set_priority(*given.priority);
  ABSL_RETURN_IF_ERROR(FinishPictures(given, arguments));
  ABSL_RETURN_IF_ERROR(FinishAdapters(given, request));
  ABSL_RETURN_IF_ERROR(FinishControls(given.controls, request));
  ABSL_RETURN_IF_ERROR(FinishImagePrompts(given.image_prompts, request));
  if (!given.sampler.empty()) {
    ABSL_ASSIGN_OR_RETURN(const auto sampler, ParseEnum<v1::Sampler>("--sampler", "SAMPLER_", given.sampler));
    request.set_sampler(sampler);
  }
  if (!given.schedule.empty()) {
    ABSL_ASSIGN_OR_RETURN(const auto schedule,
                          ParseEnum<v1::NoiseSchedule>("--schedule", "NOISE_SCHEDULE_", given.schedule));
    request.set_schedule(schedule);
  }
  const bool to_stdout = arguments.out == "-";
  v1::ImageFormat format = to_stdout ? v1::IMAGE_FORMAT_PNG : FormatOfEnding(arguments.out);
  if (!given.format.empty()) {
    ABSL_ASSIGN_OR_RETURN(format, ParseEnum<v1::ImageFormat>("--format", "IMAGE_FORMAT_", given.format));
  }
  if (format == v1::IMAGE_FORMAT_UNSPECIFIED) {
    return InvalidArgument("--out ", arguments.out, " ends in none of .png, .jpg, .jpeg, .webp, .rgb: give --format");
  }
  request.set_format(format);
  if (to_stdout && given.images.value_or(1) != 1) {
    return InvalidArgument("--out - takes one image, --images is ", *given.images);
  }
  if (to_stdout && arguments.json) {
    return InvalidArgument("--out - and --json both write to standard output");
  }
  return absl::OkStatus();
}

}  // namespace hotlora
