#include "src/sdxl/weight_checksum.h"

#include <algorithm>

#include "src/base/sha256.h"

namespace hotlora {
namespace {

constexpr int64_t kSliceBytes = int64_t{64} << 20;

void Update(Sha256& sha, const at::Tensor& weight) {
  const int64_t row_bytes = std::max<int64_t>(1, weight.nbytes() / std::max<int64_t>(1, weight.size(0)));
  const int64_t rows = std::max<int64_t>(1, kSliceBytes / row_bytes);
  for (int64_t begin = 0; begin < weight.size(0); begin += rows) {
    const at::Tensor slice = weight.narrow(0, begin, std::min(rows, weight.size(0) - begin)).contiguous().cpu();
    sha.Update(slice.const_data_ptr(), slice.nbytes());
  }
}

}  // namespace

std::string CleanWeightsChecksum(absl::Span<const AdaptableWeight> weights) {
  Sha256 sha;
  for (const AdaptableWeight& weight : weights) {
    Update(sha, weight.clean);
  }
  return sha.HexDigest();
}

}  // namespace hotlora
