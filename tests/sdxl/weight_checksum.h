#ifndef HOTLORA_TESTS_SDXL_WEIGHT_CHECKSUM_H_
#define HOTLORA_TESTS_SDXL_WEIGHT_CHECKSUM_H_

#include <string>

#include "absl/types/span.h"

#include "src/base/sha256.h"
#include "src/sdxl/checkpoint_parameters.h"

namespace hotlora {

// SHA-256 (64 hex digits) over the exact bytes of one tensor of each weight, in table order, each in its own dtype and in
// row-major order whatever its layout: two models that compute the same have the same checksum.
inline std::string WeightsChecksum(absl::Span<const AdaptableWeight> weights, at::Tensor AdaptableWeight::*tensor) {
  Sha256 sha;
  for (const AdaptableWeight& weight : weights) {
    const at::Tensor bytes = (weight.*tensor).contiguous().cpu();
    sha.Update(bytes.const_data_ptr(), bytes.nbytes());
  }
  return sha.HexDigest();
}

inline std::string CleanWeightsChecksum(absl::Span<const AdaptableWeight> weights) {
  return WeightsChecksum(weights, &AdaptableWeight::clean);
}

// The weights that the networks compute with now.
inline std::string LiveWeightsChecksum(absl::Span<const AdaptableWeight> weights) {
  return WeightsChecksum(weights, &AdaptableWeight::live);
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SDXL_WEIGHT_CHECKSUM_H_
