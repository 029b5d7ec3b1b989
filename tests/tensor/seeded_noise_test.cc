#include "src/tensor/seeded_noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <gtest/gtest.h>

#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

class SeededNoiseTest : public testing::Test {
 protected:
  void SetUp() override {
    auto file = SafetensorsFile::ReadFile(GoldenPath("random_latents/randn.safetensors"), 1 << 20);
    ASSERT_TRUE(file.ok()) << file.status();
    golden_ = std::make_unique<SafetensorsFile>(*std::move(file));
  }

  // Whether `noise` is what the reference drew: byte for byte with the kernels that the reference ran on, AVX2's, which
  // LibTorch takes for AVX-512 too. Its baseline kernels take logarithm and cosine from libm: radius * cos(angle) with
  // radius at most sqrt(-2 ln 2^-24) and angle at most 2 pi, whose roundings differ by an epsilon of each factor.
  bool Equals(const std::string& name, const at::Tensor& noise) {
    const StoredTensor* const stored = golden_->Find(name);
    EXPECT_NE(stored, nullptr) << name;
    if (stored == nullptr || !noise.is_contiguous() || noise.nbytes() != stored->bytes()) {
      return false;
    }
    if (at::get_cpu_capability() != "DEFAULT") {
      return std::memcmp(noise.const_data_ptr(), golden_->Data(*stored), stored->bytes()) == 0;
    }
    const double tolerance = std::sqrt(2 * 24 * std::log(2.0)) * 2 * M_PI * std::numeric_limits<float>::epsilon();
    std::vector<float> expected(static_cast<size_t>(noise.numel()));
    std::memcpy(expected.data(), golden_->Data(*stored), stored->bytes());
    return std::equal(expected.begin(), expected.end(), noise.const_data_ptr<float>(),
                      [tolerance](float a, float b) { return std::abs(a - b) <= tolerance; });
  }

  std::unique_ptr<SafetensorsFile> golden_;
};

TEST_F(SeededNoiseTest, EqualsTorchRandn) {
  for (const uint64_t seed : {0ull, 1ull, 42ull, 4294967301ull}) {
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{1, 4, 8, 8}, {1, 4, 16, 24}, {2, 4, 8, 8}, {1, 4, 1, 3}}) {
      const at::Tensor noise = SeededNoise(seed).Draw(shape);
      EXPECT_EQ(noise.scalar_type(), at::kFloat);
      EXPECT_TRUE(Equals(absl::StrCat("fp32_seed_", seed, "_shape_", absl::StrJoin(shape, "x")), noise)) << seed;
    }
  }
  EXPECT_FALSE(Equals("fp32_seed_0_shape_1x4x8x8", SeededNoise(1).Draw({1, 4, 8, 8})));
}

TEST_F(SeededNoiseTest, SuccessiveDrawsGoOn) {
  for (const uint64_t seed : {0ull, 1ull, 42ull, 4294967301ull}) {
    SeededNoise noise(seed);
    noise.Draw({1, 4, 8, 8});
    EXPECT_TRUE(Equals(absl::StrCat("fp32_seed_", seed, "_second_draw_1x4x8x8"), noise.Draw({1, 4, 8, 8}))) << seed;
  }
}

TEST_F(SeededNoiseTest, OnlyTheLow32BitsOfASeedMatter) {
  constexpr uint64_t kSeed = 42;
  const at::Tensor noise = SeededNoise(kSeed).Draw({1, 4, 8, 8});
  for (const uint64_t high : {uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0} << 32}) {
    EXPECT_TRUE(SeededNoise(kSeed | high).Draw({1, 4, 8, 8}).equal(noise)) << high;
  }
  for (int bit = 0; bit < 32; ++bit) {
    EXPECT_FALSE(SeededNoise(kSeed ^ (uint64_t{1} << bit)).Draw({1, 4, 8, 8}).equal(noise)) << bit;
  }
}

// Each image of a request draws from a generator of its own: image 1 of seed s equals image 0 of
// seed s + 1.
TEST_F(SeededNoiseTest, AnImagesNoiseDoesNotDependOnItsNeighbours) {
  SeededNoise first(0);
  SeededNoise second(1);
  first.Draw({1, 4, 8, 8});
  EXPECT_TRUE(Equals("fp32_seed_1_shape_1x4x8x8", second.Draw({1, 4, 8, 8})));
}

}  // namespace
}  // namespace hotlora
