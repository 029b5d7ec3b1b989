#ifndef HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_METADATA_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_METADATA_H_

// What an adapter file says of itself in its header: for people to read, and to refuse what was made for another model.
// No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hotlora {

// The longest JSON text that is read: adapter_config.json, and values of the header. Tag tables of large training sets
// have some hundred kilobytes.
inline constexpr uint64_t kMaxAdapterJsonBytes = uint64_t{4} << 20;

// Untrusted text, each at most kMaxTextBytes (cut between characters), empty if the file says nothing.
struct AdapterMetadata {
  static constexpr size_t kMaxTextBytes = 512;
  static constexpr size_t kMaxTags = 32;

  std::string architecture;    // ss_base_model_version, else modelspec.architecture: "sdxl_base_v1-0"
  std::string base_model;      // ss_sd_model_name, else base_model_name_or_path of a PEFT configuration
  std::string title;           // modelspec.title, else ss_output_name
  std::string trigger_phrase;  // modelspec.trigger_phrase
  // The most frequent of the training captions' tags (ss_tag_frequency, counts of all folders together), the most
  // frequent first and those of one count by name; else modelspec.tags in their order. At most kMaxTags.
  std::vector<std::string> tags;
};

// Reads `header`, the metadata of a safetensors file, and `peft_config`, the text of adapter_config.json or empty.
// Never fails: what cannot be read says nothing.
AdapterMetadata ReadAdapterMetadata(const std::map<std::string, std::string>& header, const std::string& peft_config);

// Where the header names another model than SDXL: that model and how it is named, such as
// `Stable Diffusion 1 (ss_base_model_version "sd_v1")`; else empty.
std::string ForeignModelOfHeader(const std::map<std::string, std::string>& header);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_METADATA_H_
