#include "src/tensor/seeded_noise.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include <ATen/ATen.h>

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

  // Whether `noise` is byte for byte what the reference drew.
  bool Equals(const std::string& name, const at::Tensor& noise) {
    const StoredTensor* const stored = golden_->Find(name);
    EXPECT_NE(stored, nullptr) << name;
    return stored != nullptr && noise.is_contiguous() && noise.nbytes() == stored->bytes() &&
           std::memcmp(noise.const_data_ptr(), golden_->Data(*stored), stored->bytes()) == 0;
  }

  std::unique_ptr<SafetensorsFile> golden_;
};

TEST_F(SeededNoiseTest, EqualsTorchRandnExactly) {
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
