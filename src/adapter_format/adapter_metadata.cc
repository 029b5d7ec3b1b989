#include "src/adapter_format/adapter_metadata.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <nlohmann/json.hpp>

#include "src/base/json_text.h"
#include "src/base/printable.h"

namespace hotlora {
namespace {

using Json = nlohmann::json;
using Header = std::map<std::string, std::string>;

// How kohya's ss_base_model_version and the Model Metadata Standard's modelspec.architecture begin for other models.
constexpr std::pair<absl::string_view, absl::string_view> kForeignBeginnings[] = {
    {"sd_v1", "Stable Diffusion 1"},
    {"sd_1", "Stable Diffusion 1"},
    {"stable-diffusion-v1", "Stable Diffusion 1"},
    {"sd_v2", "Stable Diffusion 2"},
    {"sd_2", "Stable Diffusion 2"},
    {"stable-diffusion-v2", "Stable Diffusion 2"},
    {"sd3", "Stable Diffusion 3"},
    {"sd_v3", "Stable Diffusion 3"},
    {"stable-diffusion-3", "Stable Diffusion 3"},
    {"stable-diffusion-v3", "Stable Diffusion 3"},
    {"stable-diffusion-xl-v1-refiner", "the SDXL refiner"},
    {"sdxl_refiner", "the SDXL refiner"},
    {"stable-cascade", "Stable Cascade"},
    {"flux", "Flux"},
    {"chroma", "Chroma"},
    {"lumina", "Lumina"},
    {"pixart", "PixArt"},
    {"hunyuan", "Hunyuan"},
    {"auraflow", "AuraFlow"},
    {"qwen", "Qwen-Image"},
    {"wan", "Wan"},
};

std::string Text(const std::string& value) { return Shortened(value, AdapterMetadata::kMaxTextBytes); }

std::string TextOf(const Header& header, std::initializer_list<const char*> keys) {
  for (const char* const key : keys) {
    const auto found = header.find(key);
    if (found != header.end() && !found->second.empty() && found->second != "None") {
      return Text(found->second);
    }
  }
  return "";
}

// An empty object if the text cannot be read.
Json ObjectOrEmpty(const std::string& text) {
  if (text.size() > kMaxAdapterJsonBytes) {
    return Json::object();
  }
  auto json = ParseJsonObject(text);
  return json.ok() ? *std::move(json) : Json::object();
}

// {"10_folder": {"tag": 12}, ...}
std::vector<std::string> TagsByFrequency(const std::string& text) {
  std::map<std::string, double> counts;
  const Json folders = ObjectOrEmpty(text);  // items() only refers to it
  for (const auto& [folder, tags] : folders.items()) {
    if (tags.is_object()) {
      for (const auto& [tag, count] : tags.items()) {
        const std::string name(absl::StripAsciiWhitespace(tag));
        if (count.is_number() && !name.empty()) {
          counts[name] += count.template get<double>();
        }
      }
    }
  }
  std::vector<std::pair<std::string, double>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> tags;
  for (size_t i = 0; i < sorted.size() && i < AdapterMetadata::kMaxTags; ++i) {
    tags.push_back(Text(sorted[i].first));
  }
  return tags;
}

std::vector<std::string> TagsInOrder(const std::string& text) {
  std::vector<std::string> tags;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::string tag(absl::StripAsciiWhitespace(part));
    if (!tag.empty() && tags.size() < AdapterMetadata::kMaxTags) {
      tags.push_back(Text(tag));
    }
  }
  return tags;
}

}  // namespace

AdapterMetadata ReadAdapterMetadata(const Header& header, const std::string& peft_config) {
  AdapterMetadata metadata;
  metadata.architecture = TextOf(header, {"ss_base_model_version", "modelspec.architecture"});
  metadata.base_model = TextOf(header, {"ss_sd_model_name"});
  metadata.title = TextOf(header, {"modelspec.title", "ss_output_name"});
  metadata.trigger_phrase = TextOf(header, {"modelspec.trigger_phrase"});
  if (metadata.base_model.empty() && !peft_config.empty()) {
    const Json config = ObjectOrEmpty(peft_config);
    const auto name = config.find("base_model_name_or_path");
    metadata.base_model = name != config.end() && name->is_string() ? Text(name->get<std::string>()) : "";
  }
  if (const auto tags = header.find("ss_tag_frequency"); tags != header.end()) {
    metadata.tags = TagsByFrequency(tags->second);
  }
  if (const auto tags = header.find("modelspec.tags"); metadata.tags.empty() && tags != header.end()) {
    metadata.tags = TagsInOrder(tags->second);
  }
  return metadata;
}

std::string ForeignModelOfHeader(const Header& header) {
  for (const char* const key : {"ss_base_model_version", "modelspec.architecture"}) {
    const auto found = header.find(key);
    if (found == header.end()) {
      continue;
    }
    const std::string value = absl::AsciiStrToLower(found->second);
    for (const auto& [beginning, model] : kForeignBeginnings) {
      if (absl::StartsWith(value, beginning)) {
        return absl::StrCat(model, " (", key, " ", PrintableName(found->second), ")");
      }
    }
  }
  return "";
}

}  // namespace hotlora
