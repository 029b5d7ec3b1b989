#ifndef HOTLORA_TESTS_SDXL_LIVE_WEIGHTS_CHECKSUM_H_
#define HOTLORA_TESTS_SDXL_LIVE_WEIGHTS_CHECKSUM_H_

#include <string>
#include <vector>

#include "absl/types/span.h"

#include "src/sdxl/weight_checksum.h"

namespace hotlora {

// The checksum of the weights that the networks compute with now, as CleanWeightsChecksum makes it of the clean ones.
inline std::string LiveWeightsChecksum(absl::Span<const AdaptableWeight> weights) {
  std::vector<AdaptableWeight> live(weights.begin(), weights.end());
  for (AdaptableWeight& weight : live) {
    weight.clean = weight.live;
  }
  return CleanWeightsChecksum(live);
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SDXL_LIVE_WEIGHTS_CHECKSUM_H_
