#ifndef HOTLORA_SRC_SDXL_WEIGHT_CHECKSUM_H_
#define HOTLORA_SRC_SDXL_WEIGHT_CHECKSUM_H_

#include <string>

#include "absl/types/span.h"

#include "src/sdxl/checkpoint_parameters.h"

namespace hotlora {

// SHA-256 (64 hex digits) over the exact bytes of all clean weights in table order, each in its own dtype and in
// row-major order whatever its layout: two models that compute the same have the same checksum. Bytes come to the CPU
// in slices of bounded size.
//
// Cost     about 1 s per GB on the CPU
// Threads  the step thread, or any while no step runs
std::string CleanWeightsChecksum(absl::Span<const AdaptableWeight> weights);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_WEIGHT_CHECKSUM_H_
