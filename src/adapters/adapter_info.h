#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_INFO_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_INFO_H_

// What can be said of an adapter without its tensors.

#include <cstdint>
#include <string>
#include <vector>

#include "src/adapter_format/adapter_metadata.h"
#include "src/image/middle_square.h"
#include "src/request/image_request.h"

namespace hotlora {

// Sizes of an image encoder, in its config's words. An image prompt takes one of the first two; all others are 0.
struct EncoderSizes {
  int64_t hidden_size = 0, projection_dim = 0;  // widths of what it gives
  MiddleSquare square;                          // what it sees of a picture
};

enum class AdapterState { kAvailable, kLoading, kFailed };

struct AdapterInfo {
  std::string name;
  // The hash of the file; if it has configurations, SHA-256(hex SHA-256 of the tensors' file, then their texts): they
  // shape the weights too. Empty until it was read once.
  std::string content_sha256;
  // ParsedAdapter::format; of a ControlNet "controlnet" or "union"; of an image prompt "ip_adapter" or
  // "ip_adapter_plus"; of the image encoder "clip_vision"; empty until read.
  std::string format;
  uint32_t control_types = 0;  // of a union net
  EncoderSizes encoder;        // of an image prompt or the image encoder
  uint32_t rank_max = 0;
  uint64_t bytes = 0;        // of the file
  uint64_t block_bytes = 0;  // of its block in either tier of memory; 0 until read
  AdapterTier tier = AdapterTier::kDisk;
  bool pinned = false;
  uint32_t in_use = 0;  // leases
  AdapterState state = AdapterState::kAvailable;
  // With kFailed: what the last read of the file said. An earlier version may be resident and serve
  // all the same.
  std::string error;
  // Components it changes, sorted: "text_encoder", "text_encoder_2", "unet".
  std::vector<std::string> targets;
  uint32_t matched_modules = 0;
  std::vector<std::string> unmatched_keys;  // with --allow-unmatched-keys
  std::vector<std::string> notes;           // ParsedAdapter::notes
  AdapterMetadata metadata;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_INFO_H_
