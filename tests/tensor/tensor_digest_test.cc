#include "src/tensor/tensor_digest.h"

#include <cstddef>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/tensor/seeded_noise.h"

namespace hotlora {
namespace {

at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype) { return SeededNoise(3).Draw(shape).to(dtype); }

// Rows of 8, 4, 2 and 1 bytes' words; convolutions; biases; one element.
std::vector<at::Tensor> Samples() {
  std::vector<at::Tensor> samples;
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{6, 8}, {5, 3}, {4, 6}, {4, 2, 3, 3}, {7}, {1}}) {
      samples.push_back(Random(shape, dtype));
    }
  }
  samples.push_back(Random({3, 5}, at::kByte));
  return samples;
}

TEST(TensorDigestTest, EveryBitCounts) {
  for (const at::Tensor& sample : Samples()) {
    const TensorDigest digest = DigestOf(sample);
    EXPECT_EQ(DigestOf(sample.clone()), digest) << "the negative control: nothing changed";
    auto* const bytes = static_cast<std::byte*>(sample.mutable_data_ptr());
    for (size_t bit = 0; bit < 8 * sample.nbytes(); ++bit) {
      const std::byte mask{static_cast<unsigned char>(1u << bit % 8)};
      bytes[bit / 8] ^= mask;
      EXPECT_NE(DigestOf(sample), digest) << "bit " << bit << " of " << sample.sizes() << " " << sample.scalar_type();
      bytes[bit / 8] ^= mask;
    }
    EXPECT_EQ(DigestOf(sample), digest);
  }
}

TEST(TensorDigestTest, PlacesCount) {
  const at::Tensor sample = at::arange(64, at::kLong).view({8, 8});
  const TensorDigest digest = DigestOf(sample);
  EXPECT_NE(DigestOf(sample.t().contiguous()), digest);
  EXPECT_NE(DigestOf(sample.flip({0})), digest);
  EXPECT_NE(DigestOf(sample.flip({1})), digest);
  // Two bits of the same place in a word, so that the plain sum of all words stays.
  at::Tensor moved = sample.clone();
  moved[1][2] += 1;
  moved[1][5] -= 1;
  EXPECT_NE(DigestOf(moved), digest) << "in one row";
  moved = sample.clone();
  moved[1][2] += 1;
  moved[6][2] -= 1;
  EXPECT_NE(DigestOf(moved), digest) << "in one column";
}

// A view may begin where no word of 8 bytes may.
TEST(TensorDigestTest, AViewHasTheDigestOfItsCopy) {
  const at::Tensor memory = Random({40}, at::kHalf);
  for (int64_t first = 0; first < 4; ++first) {
    const at::Tensor view = memory.narrow(0, first, 32).view({4, 8});
    EXPECT_EQ(DigestOf(view), DigestOf(view.clone())) << first;
  }
}

}  // namespace
}  // namespace hotlora
