#include "server/openai_mapping.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

#include "server/field_names.h"
#include "src/base/enum_size.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using openai::v1::CreateImageRequest;

constexpr absl::string_view kBaseModel = "sdxl";
constexpr uint32_t kMaxCompression = 100;

constexpr FieldName kFieldNames[] = {
    {"num_images", "n"},
    {"width", "size", "width"},
    {"height", "size", "height"},
    {"adapters", "model"},
    {"adapters[].name", "model", "name of adapter #"},
    {"adapters[].weight", "model", "weight of adapter #"},
    {"name", "model", "name of an adapter"},  // of a call that is about one
};

const char* FormatName(ImageFormat format) {
  static constexpr const char* kNames[] = {"png", "jpeg", "webp", "raw"};
  static_assert(std::size(kNames) == kEnumSize<ImageFormat>);
  return kNames[static_cast<size_t>(format)];
}

// Refuses a text that is neither "" nor one of `allowed`; `hint` ends the sentence.
void CheckText(const char* field, absl::string_view text, std::initializer_list<absl::string_view> allowed,
               absl::string_view hint, std::vector<FieldViolation>& violations) {
  if (!text.empty() && std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
    violations.push_back({field, absl::StrCat("is ", PrintableName(text), "; allowed: \"",
                                              absl::StrJoin(allowed, "\", \""), "\"", hint)});
  }
}

void CheckUnsupported(const CreateImageRequest& message, std::vector<FieldViolation>& violations) {
  CheckText("response_format", message.response_format(), {"b64_json"}, ", since images are in the answer itself",
            violations);
  CheckText("background", message.background(), {"auto", "opaque"}, "", violations);
  CheckText("quality", message.quality(), {"auto", "standard"}, "; steps says how much work an image is", violations);
  CheckText("style", message.style(), {"vivid"}, "; the prompt says the style", violations);
  if (message.stream()) {
    violations.push_back({"stream", "is true; allowed: false, since there are no partial images"});
  }
  if (message.partial_images() > 0) {
    violations.push_back({"partial_images", absl::StrCat("is ", message.partial_images(), "; allowed: 0")});
  }
}

// Sets `number` to what digits alone say; false for all other texts.
bool ReadDigits(absl::string_view text, uint32_t& number) {
  return std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isdigit(static_cast<uint8_t>(c)); }) &&
         absl::SimpleAtoi(text, &number);
}

void ReadSize(absl::string_view size, ImageRequest& request, std::vector<FieldViolation>& violations) {
  if (size.empty() || size == "auto") {
    return;
  }
  const std::pair<absl::string_view, absl::string_view> sides = absl::StrSplit(size, absl::MaxSplits('x', 1));
  uint32_t width = 0, height = 0;
  if (!ReadDigits(sides.first, width) || !ReadDigits(sides.second, height)) {
    violations.push_back({"size", absl::StrCat("is ", PrintableName(size),
                                               "; allowed: \"auto\", and WIDTHxHEIGHT, such as \"1024x1024\"")});
    return;
  }
  request.width = width;
  request.height = height;
}

void ReadFormat(const CreateImageRequest& message, ImageRequest& request, std::vector<FieldViolation>& violations) {
  CheckText("output_format", message.output_format(), {"png", "jpeg", "webp"}, "", violations);
  for (const ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg, ImageFormat::kWebp}) {
    if (message.output_format() == FormatName(format)) {
      request.format = format;
    }
  }
  if (message.output_compression() > kMaxCompression) {
    violations.push_back({"output_compression",
                          absl::StrCat("is ", message.output_compression(), "; allowed are 0 to ", kMaxCompression)});
  } else if (message.has_output_compression()) {
    request.quality = std::max<uint32_t>(message.output_compression(), 1);
  }
}

// What ReadModel reads back as the adapter.
std::string EntryOf(const AdapterRef& adapter) {
  std::string entry = absl::StrReplaceAll(adapter.name, {{"%", "%25"}, {"+", "%2B"}});
  if (adapter.weight.has_value() || adapter.name == kBaseModel) {
    char weight[32];  // the shortest text of that number has up to 24 characters
    const char* const end = std::to_chars(weight, std::end(weight), adapter.weight.value_or(1.0)).ptr;
    const absl::string_view text(weight, static_cast<size_t>(end - weight));
    absl::StrAppend(&entry, ":", absl::StrReplaceAll(text, {{"+", ""}}));  // 1e+20 would be two entries
  }
  return entry;
}

}  // namespace

MappedImageRequest FromProto(const CreateImageRequest& message) {
  v1::GenerateImagesRequest same;
  same.set_prompt(message.prompt());
  if (message.has_negative_prompt()) same.set_negative_prompt(message.negative_prompt());
  if (message.has_n()) same.set_num_images(message.n());
  if (message.has_seed()) same.set_seed(message.seed());
  if (message.has_steps()) same.set_steps(message.steps());
  if (message.has_guidance_scale()) same.set_guidance_scale(message.guidance_scale());
  same.set_sampler(message.sampler());
  same.set_schedule(message.schedule());
  MappedImageRequest mapped = FromProto(same);
  if (!message.has_prompt()) {
    mapped.violations.push_back({"prompt", "is not set, but required"});
  }
  mapped.request.adapters = ReadModel(message.model(), mapped.violations);
  ReadSize(message.size(), mapped.request, mapped.violations);
  ReadFormat(message, mapped.request, mapped.violations);
  CheckUnsupported(message, mapped.violations);
  return mapped;
}

absl::Status InOpenAiWords(const absl::Status& status) { return WithFieldNames(status, kFieldNames); }

std::vector<AdapterRef> ReadModel(absl::string_view model, std::vector<FieldViolation>& violations) {
  if (model.empty() || model == kBaseModel) {
    return {};
  }
  const auto entries = static_cast<size_t>(std::count(model.begin(), model.end(), '+')) + 1;
  if (entries > kMaxAdapters) {  // a hostile list of millions is not worth splitting
    violations.push_back({"model", absl::StrCat("has ", entries, " entries; allowed are at most ", kMaxAdapters)});
    return {};
  }
  std::vector<AdapterRef> adapters;
  for (const absl::string_view entry : absl::StrSplit(model, '+')) {
    const size_t colon = entry.rfind(':');
    const absl::StatusOr<std::string> name = DecodeName(entry.substr(0, colon));
    if (!name.ok()) {
      violations.push_back({"model", absl::StrCat(PrintableName(entry), " ", name.status().message())});
      continue;
    }
    AdapterRef& adapter = adapters.emplace_back();
    adapter.name = *name;
    if (colon != absl::string_view::npos && !absl::SimpleAtod(entry.substr(colon + 1), &adapter.weight.emplace())) {
      violations.push_back({"model", absl::StrCat(PrintableName(entry), " has a weight that is not a number")});
    }
  }
  return adapters;
}

void PutImage(FinishedImage image, openai::v1::CreateImageResponse& response) {
  while (response.data_size() <= static_cast<int>(image.index)) {
    response.add_data();
  }
  openai::v1::GeneratedImage& message = *response.mutable_data(static_cast<int>(image.index));
  message.set_b64_json(std::move(image.data));
  message.set_seed(image.seed);
  response.set_output_format(FormatName(image.format));
  response.set_size(absl::StrCat(image.width, "x", image.height));
  response.set_background("opaque");
}

openai::v1::Model ToModel(const std::vector<AdapterRef>& adapters) {
  openai::v1::Model model;
  model.set_id(adapters.empty() ? std::string(kBaseModel)
                                : absl::StrJoin(adapters, "+", [](std::string* id, const AdapterRef& adapter) {
                                    absl::StrAppend(id, EntryOf(adapter));
                                  }));
  model.set_object("model");
  model.set_created(0);
  model.set_owned_by("hotlora");
  return model;
}

openai::v1::ListModelsResponse ToModels(const std::vector<AdapterInfo>& adapters) {
  openai::v1::ListModelsResponse models;
  models.set_object("list");
  *models.add_data() = ToModel({});
  for (const AdapterInfo& adapter : adapters) {
    if (NormalizeName(adapter.name).ok()) {  // a file whose name is not valid is listed to say so
      *models.add_data() = ToModel({{adapter.name, {}, {}}});
    }
  }
  return models;
}

}  // namespace hotlora
