#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_LEASE_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_LEASE_H_

// The right of a request to use an adapter, a ControlNet, an image prompt or the image encoder. No LibTorch here.

#include <memory>
#include <variant>

#include "src/adapters/adapter_info.h"

namespace hotlora {

struct AdapterWeights;      // nn/lora_delta.h
struct PlacedControlNet;    // sdxl/placed_control_net.h
struct PlacedImageEncoder;  // sdxl/placed_image_prompt.h
struct PlacedImagePrompt;   // sdxl/placed_image_prompt.h

// What a store holds in memory, by its kind.
using HeldWeights = std::variant<std::shared_ptr<const AdapterWeights>, std::shared_ptr<const PlacedControlNet>,
                                 std::shared_ptr<const PlacedImagePrompt>, std::shared_ptr<const PlacedImageEncoder>>;

// In which tier an adapter was found, and how many seconds each phase took that brought it to the device. Phases that
// did not happen are 0.
struct AcquireReport {
  AdapterTier tier_found = AdapterTier::kDisk;
  double lookup_seconds = 0.0;
  double read_seconds = 0.0;
  double parse_seconds = 0.0;
  double upload_seconds = 0.0;

  double seconds() const { return lookup_seconds + read_seconds + parse_seconds + upload_seconds; }
};

// An adapter in use. While the lease exists, its version is not evicted, whatever happens to the file or the name.
// Threads  immutable; may be destroyed on any thread, also after the store
class AdapterLease {
 public:
  virtual ~AdapterLease() = default;
  virtual const AdapterInfo& info() const = 0;
  virtual HeldWeights held() const = 0;
  virtual const AcquireReport& report() const = 0;

  // Each throws std::bad_variant_access for a lease of another kind.
  std::shared_ptr<const AdapterWeights> weights() const {
    return std::get<std::shared_ptr<const AdapterWeights>>(held());
  }
  std::shared_ptr<const PlacedControlNet> control_net() const {
    return std::get<std::shared_ptr<const PlacedControlNet>>(held());
  }
  std::shared_ptr<const PlacedImagePrompt> image_prompt() const {
    return std::get<std::shared_ptr<const PlacedImagePrompt>>(held());
  }
  std::shared_ptr<const PlacedImageEncoder> image_encoder() const {
    return std::get<std::shared_ptr<const PlacedImageEncoder>>(held());
  }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_LEASE_H_
