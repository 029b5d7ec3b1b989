// bfloat16 and float16, in which GPUs compute: the same pictures as in float32 but for rounding, with every sampler and
// every format of adapters, merged and beside the weights; and swaps that leave the base's bytes as they were.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/enum_size.h"
#include "src/request/sampler_names.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

struct HalfPrecision {
  std::string name;
  c10::ScalarType dtype;
  // Against float32, and of the two forms of an adapter against each other, in dB. Values in [-1, 1] that are rounded
  // once to the 8 bits of bfloat16 make 20 log10(2 sqrt(3) 2^9) = 65 dB; 23 dB, a factor of 14, are for the
  // roundings before. float16 keeps three bits more, so that the picture's own 8 bits decide: two roundings to them
  // make 56 dB.
  double least_psnr;
};

void PrintTo(const HalfPrecision& precision, std::ostream* out) { *out << precision.name; }

constexpr uint64_t kSeed = 5;
constexpr double kWeight = 0.8;

// 10 log10(255^2 / mean square of the differences).
double Psnr(const RgbImage& a, const RgbImage& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  double squares = 0.0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double difference = static_cast<double>(a.pixels[i]) - b.pixels[i];
    squares += difference * difference;
  }
  return squares == 0.0 ? std::numeric_limits<double>::infinity()
                        : 10.0 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / squares);
}

std::vector<std::string> AdapterNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("adapters/files"))) {
    if (entry.path().extension() == ".safetensors") {
      names.push_back(entry.path().stem());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

class HalfPrecisionTest : public PipelineFixture, public testing::WithParamInterface<HalfPrecision> {
 protected:
  RgbImage Image(Sampler sampler, const std::vector<std::pair<std::string, double>>& adapters,
                 ApplyMode mode = ApplyMode::kMerged) {
    ImageRequest request;
    request.prompt = "a photo of a cat";
    request.negative_prompt = "blurry";
    request.width = request.height = 64;
    request.steps = 3;
    request.sampler = sampler;
    mode_ = mode;
    const auto row = Finish(Start(Job(request), Set(adapters), kSeed));
    absl::StatusOr<RgbImage> image = pipeline_->Decode(*row, VaeForm::kWhole);
    EXPECT_TRUE(image.ok()) << image.status();
    leases_.clear();
    return *std::move(image);
  }

  // Expects the least PSNR, as the difference's root mean square in steps of the 255.
  static void ExpectPicture(const RgbImage& picture, const RgbImage& expected, const std::string& what) {
    const auto root_mean_square = [](double psnr) { return 255.0 * std::pow(10.0, -psnr / 20.0); };
    ExpectError(root_mean_square(Psnr(picture, expected)), root_mean_square(GetParam().least_psnr), what);
  }
};

TEST_P(HalfPrecisionTest, EverySamplerDrawsThePicturesOfFloat32) {
  std::map<Sampler, RgbImage> expected;
  for (const Sampler sampler : AllOf<Sampler>()) {
    expected[sampler] = Image(sampler, {});
  }
  Reload(GetParam().dtype);
  for (const auto& [sampler, picture] : expected) {
    ExpectPicture(Image(sampler, {}), picture, SamplerName(sampler));
  }
}

TEST_P(HalfPrecisionTest, EveryAdapterChangesThePictureAsInFloat32MergedAndBeside) {
  std::map<std::string, RgbImage> expected;
  const RgbImage base = Image(Sampler::kEuler, {});
  for (const std::string& name : AdapterNames()) {
    expected[name] = Image(Sampler::kEuler, {{name, kWeight}});
  }
  Reload(GetParam().dtype);
  for (const auto& [name, picture] : expected) {
    const RgbImage merged = Image(Sampler::kEuler, {{name, kWeight}});
    ExpectPicture(merged, picture, name + " merged");
    ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
    const RgbImage beside = Image(Sampler::kEuler, {{name, kWeight}}, ApplyMode::kSide);
    ExpectPicture(beside, picture, name + " beside");
    ExpectPicture(beside, merged, name + " beside against merged");
    // Else the bound could not tell the adapter's picture from the base's.
    EXPECT_LT(Psnr(base, picture), GetParam().least_psnr) << name;
  }
}

TEST_P(HalfPrecisionTest, SwapsLeaveTheBytesOfTheBase) {
  Reload(GetParam().dtype);
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  const RgbImage base = Image(Sampler::kEuler, {});
  std::string last;
  for (const std::string& name : AdapterNames()) {
    for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
      ASSERT_TRUE(pipeline_->Apply(Set({{name, 0.8}}), mode).ok()) << name;
      if (mode == ApplyMode::kMerged) {
        const std::string merged = LiveWeightsChecksum(model_->adaptable_weights());
        EXPECT_NE(merged, live) << name;
        // From another adapter it is the same as from the base.
        if (!last.empty()) {
          ASSERT_TRUE(pipeline_->Apply(Set({{last, 1.0}}), mode).ok());
          ASSERT_TRUE(pipeline_->Apply(Set({{name, 0.8}}), mode).ok());
          EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), merged) << last << " to " << name;
        }
      }
      ASSERT_TRUE(pipeline_->Apply({}, mode).ok());
      EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live) << name;
      leases_.clear();
    }
    last = name;
  }
  EXPECT_EQ(Image(Sampler::kEuler, {}).pixels, base.pixels);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, HalfPrecisionTest,
                         testing::Values(HalfPrecision{"bfloat16", c10::ScalarType::BFloat16, 42.0},
                                         HalfPrecision{"float16", c10::ScalarType::Half, 52.0}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hotlora
