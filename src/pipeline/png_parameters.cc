#include "src/pipeline/png_parameters.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include <nlohmann/json.hpp>

#include "src/request/sampler_names.h"

namespace hotlora {
namespace {

constexpr size_t kModelHashDigits = 10, kFileHashDigits = 12;

std::string Quoted(const std::string& text) {
  if (text.find_first_of(",:\"\n") == std::string::npos) {
    return text;
  }
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// How the reading tool has to take the brackets of the texts.
const char* EmphasisName(const Prompts& prompts) {
  const bool brackets =
      absl::StrCat(prompts.prompt, prompts.negative_prompt.value_or("")).find_first_of("()[]\\") != std::string::npos;
  return !brackets ? nullptr : prompts.weighted ? "No norm" : "None";
}

std::string AdapterTag(const AdapterUse& use) {
  std::string tag = absl::StrCat("<lora:", use.name, ":", use.text_encoder_weight);
  if (use.text_encoder_weight != use.weight) {
    absl::StrAppend(&tag, ":", use.weight);
  }
  return tag + ">";
}

// One entry of a list by name.
template <typename... Parts>
void AppendEntry(std::string& list, const std::string& name, const Parts&... value) {
  absl::StrAppend(&list, list.empty() ? "" : ", ", name, ": ", value...);
}

// The shortest of two forms that is read as the same number: a fraction of the steps must not move.
std::string Exact(double value) {
  std::string text = absl::StrCat(value);
  double read = 0.0;
  return absl::SimpleAtod(text, &read) && read == value ? text : absl::StrFormat("%.17g", value);
}

std::string BlocksText(const std::vector<BlockWeight>& blocks) {
  return absl::StrJoin(blocks, " ", [](std::string* text, const BlockWeight& block) {
    absl::StrAppend(text, block.prefix, "=", Exact(block.weight));
  });
}

// What is said of the adapters: their tags, and lists by name.
struct AdapterTexts {
  std::string tags, hashes, ranges, blocks;
};

AdapterTexts TextsOf(const std::vector<NamedAdapter>& adapters) {
  AdapterTexts texts;
  for (const NamedAdapter& adapter : adapters) {
    const AdapterUse& use = adapter.use;
    absl::StrAppend(&texts.tags, texts.tags.empty() ? "" : " ", AdapterTag(use));
    AppendEntry(texts.hashes, use.name, adapter.content_sha256.substr(0, kFileHashDigits));
    if (!use.range.whole()) {
      AppendEntry(texts.ranges, use.name, Exact(use.range.start), " to ", Exact(use.range.end));
    }
    if (!use.blocks.empty()) {
      AppendEntry(texts.blocks, use.name, BlocksText(use.blocks));
    }
  }
  return texts;
}

// What the texts of ControlNets and image prompts begin with.
template <typename Named>
std::string NetworkText(const Named& named) {
  return absl::StrCat("Model: ", named.use->name, " [", named.content_sha256.substr(0, kFileHashDigits),
                      "], Weight: ", Exact(named.use->scale));
}

// As AUTOMATIC1111's ControlNet extension writes it.
std::string ControlText(const NamedControl& control) {
  const ControlUse& use = *control.use;
  std::string text = absl::StrCat(NetworkText(control), ", Guidance Start: ", Exact(use.range.start),
                                  ", Guidance End: ", Exact(use.range.end));
  if (use.type.has_value()) {
    absl::StrAppend(&text, ", Control Type: ", *use.type);
  }
  return text;
}

std::string ControlsText(const std::vector<NamedControl>& controls) {
  std::string text;
  for (size_t i = 0; i < controls.size(); ++i) {
    absl::StrAppend(&text, ", ControlNet ", i, ": ", Quoted(ControlText(controls[i])));
  }
  return text;
}

std::string ImagePromptsText(const std::vector<NamedImagePrompt>& prompts) {
  std::string text;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const ImagePromptUse& use = *prompts[i].use;
    std::string value = absl::StrCat(NetworkText(prompts[i]), ", Images: ", use.images.size());
    if (!use.blocks.empty()) {
      absl::StrAppend(&value, ", Blocks: ", BlocksText(use.blocks));
    }
    absl::StrAppend(&text, ", Image prompt ", i, ": ", Quoted(value));
  }
  return text;
}

// A list of adapters by name.
std::string ListText(const char* name, const std::string& list) {
  return list.empty() ? "" : absl::StrCat(", ", name, ": \"", list, "\"");
}

// The second pass. Without an init image, the strength is its own.
std::string HiresText(const ImageJob& job) {
  if (!job.hires.has_value()) {
    return "";
  }
  return absl::StrCat(", ", job.has_init() ? "Hires denoising strength" : "Denoising strength", ": ",
                      Exact(job.hires->strength), ", Hires upscale: ", Exact(job.hires_scale),
                      ", Hires steps: ", job.hires->steps, ", Hires upscaler: Lanczos");
}

}  // namespace

std::string ImageParameters(const ImageJob& job, uint64_t seed, const ModelInfo& model, const ImageSources& sources) {
  const DenoiseOptions& denoise = job.denoise;
  const Prompts& prompts = job.prompts;
  const AdapterTexts adapters = TextsOf(sources.adapters);
  std::string text = prompts.prompt;
  absl::StrAppend(&text, text.empty() || adapters.tags.empty() ? "" : " ", adapters.tags);
  std::string embedding_hashes;
  for (const NamedEmbedding& embedding : sources.embeddings) {
    AppendEntry(embedding_hashes, embedding.token, embedding.content_sha256.substr(0, kFileHashDigits));
  }
  if (!prompts.negative_prompt.value_or("").empty()) {
    absl::StrAppend(&text, "\nNegative prompt: ", *prompts.negative_prompt);
  }
  absl::StrAppend(&text, "\nSteps: ", denoise.steps, ", Sampler: ", SamplerName(denoise.sampler));
  const auto add = [&text](const char* name, const auto&... value) {
    absl::StrAppend(&text, ", ", name, ": ", value...);
  };
  if (denoise.schedule != NoiseScheduleKind::kDefault) {
    add("Schedule type", ScheduleName(denoise.schedule));
  }
  if (denoise.sampler == Sampler::kTcd || denoise.eta != 0.0) {
    add(denoise.sampler == Sampler::kDdim ? "Eta DDIM" : "Eta", denoise.eta);
  }
  if (const char* const emphasis = EmphasisName(prompts); emphasis != nullptr) {
    add("Emphasis", emphasis);
  }
  add("CFG scale", denoise.guidance_scale);
  add("Seed", seed);
  add("Size", denoise.width, "x", denoise.height);
  add("Model hash", model.sha256.substr(0, kModelHashDigits));
  add("Model", Quoted(model.name));
  if (job.has_init()) {
    add("Denoising strength", denoise.strength);
  }
  text += HiresText(job);
  if (prompts.clip_skip > 0) {
    add("Clip skip", prompts.clip_skip + 1);  // there, 1 means no skip
  }
  if (prompts.prompt_2 != prompts.prompt) {
    add("Prompt 2", Quoted(prompts.prompt_2));
  }
  if (prompts.negative_prompt_2 != prompts.negative_prompt.value_or("")) {
    add("Negative prompt 2", Quoted(prompts.negative_prompt_2));
  }
  if (denoise.guidance_rescale != 0.0) {
    add("CFG rescale", denoise.guidance_rescale);
  }
  if (denoise.guidance_start != 0.0 || denoise.guidance_end != 1.0) {
    add("CFG window", denoise.guidance_start, " to ", denoise.guidance_end);
  }
  absl::StrAppend(&text, ListText("Lora hashes", adapters.hashes), ListText("Lora ranges", adapters.ranges),
                  ListText("Lora blocks", adapters.blocks));
  text += ControlsText(sources.controls) + ImagePromptsText(sources.image_prompts);
  if (!embedding_hashes.empty()) {
    add("TI hashes", nlohmann::json(embedding_hashes).dump());  // a token may hold a quote
  }
  add("Version", "hotlora ", HOTLORA_VERSION);
  return text;
}

}  // namespace hotlora
