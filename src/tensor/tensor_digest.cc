#include "src/tensor/tensor_digest.h"

#include <ATen/ATen.h>

namespace hotlora {
namespace {

// The bytes as rows of the largest integers that a row consists of.
at::Tensor Words(const at::Tensor& tensor) {
  const int64_t rows = tensor.dim() > 1 ? tensor.size(0) : 1;
  const at::Tensor flat = tensor.view({rows, -1});
  const auto element = static_cast<int64_t>(tensor.element_size());
  for (const at::ScalarType word : {at::kLong, at::kInt, at::kShort}) {
    const auto bytes = static_cast<int64_t>(c10::elementSize(word));
    if (flat.size(1) * element % bytes == 0) {
      const bool aligned = tensor.storage_offset() * element % bytes == 0;
      return (aligned ? flat : flat.clone()).view(word);
    }
  }
  return flat.view(at::kByte);
}

// The sum of `sums`, each times an odd number of its own: no change of one of them is lost.
at::Tensor Weighted(const at::Tensor& sums) {
  return (sums * (at::arange(sums.numel(), sums.options()) * 2 + 1)).sum();
}

}  // namespace

TensorDigest DigestOf(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "a digest wants a contiguous tensor");
  if (tensor.numel() == 0) {
    return {};
  }
  const at::Tensor words = Words(tensor);
  const at::Tensor both = at::stack({Weighted(words.sum(at::IntArrayRef({0}), /*keepdim=*/false, at::kLong)),
                                     Weighted(words.sum(at::IntArrayRef({1}), /*keepdim=*/false, at::kLong))})
                              .cpu();
  return {both.const_data_ptr<int64_t>()[0], both.const_data_ptr<int64_t>()[1]};
}

}  // namespace hotlora
