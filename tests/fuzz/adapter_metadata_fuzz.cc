// What an adapter says of itself: any text in each field of the header, and as the configuration of a PEFT folder.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "src/adapter_format/adapter_metadata.h"

namespace {

using hotlora::AdapterMetadata;

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void CheckSound(const AdapterMetadata& metadata) {
  for (const std::string* const text :
       {&metadata.architecture, &metadata.base_model, &metadata.title, &metadata.trigger_phrase}) {
    Check(text->size() <= AdapterMetadata::kMaxTextBytes);
  }
  Check(metadata.tags.size() <= AdapterMetadata::kMaxTags);
  for (const std::string& tag : metadata.tags) {
    Check(!tag.empty() && tag.size() <= AdapterMetadata::kMaxTextBytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::map<std::string, std::string> header;
  for (const char* const key :
       {"ss_base_model_version", "modelspec.architecture", "ss_sd_model_name", "modelspec.title", "ss_output_name",
        "modelspec.trigger_phrase", "ss_tag_frequency", "modelspec.tags"}) {
    header[key] = text;
    CheckSound(hotlora::ReadAdapterMetadata({{key, text}}, text));
  }
  CheckSound(hotlora::ReadAdapterMetadata(header, text));
  // The model's name is printable whatever the header holds.
  for (const char c : hotlora::ForeignModelOfHeader(header)) {
    Check(static_cast<unsigned char>(c) >= ' ');
  }
  return 0;
}
