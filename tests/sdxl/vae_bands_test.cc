#include "src/sdxl/vae_bands.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/sdxl/vae_decoder.h"
#include "src/sdxl/vae_encoder.h"
#include "src/tensor/allocation_peak.h"
#include "src/tensor/memory_stats.h"
#include "src/tensor/torch_guard.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

// Float32 sums in another order differ by less, for values of about 1. 2/255 of a picture from -1 to 1 is 0.0157.
constexpr double kTolerance = 1e-4;
constexpr int64_t kSmallBands = 1;  // four lines each
// Latents: tall, wide, and heights that bands of four lines do not divide.
const std::vector<std::pair<int64_t, int64_t>> kSizes = {{8, 8}, {13, 5}, {3, 21}, {16, 16}};

VaeConfig MediumConfig() {
  VaeConfig config;
  config.latent_channels = 4;
  config.out_channels = 3;
  config.layers_per_block = 2;
  config.groups = 8;
  config.scaling_factor = 0.5;
  config.channels = {32, 64, 128, 128};
  return config;
}

// The same random parameters in another dtype.
class CastParameters final : public RandomParameters {
 public:
  explicit CastParameters(c10::ScalarType dtype) : RandomParameters(5), dtype_(dtype) {}
  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override {
    return RandomParameters::Take(name, shape).to(dtype_);
  }
  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) override {
    AdaptableParameter parameter = RandomParameters::TakeAdaptable(name, shape, WeightOrder::kPlain);
    parameter.live = parameter.live.to(dtype_);
    return parameter;
  }

 private:
  const c10::ScalarType dtype_;
};

struct Peaks {
  int64_t whole = 0, tiled = 0, left = 0;
};

// What both forms take on the CPU, and what the tiled one leaves allocated.
template <typename Whole, typename Tiled>
Peaks Measure(const Whole& whole, const Tiled& tiled) {
  InstallCountingCpuAllocator();
  whole();  // makes the kernels
  tiled();
  Peaks peaks;
  {
    const AllocationPeak peak;
    whole();
    peaks.whole = peak.bytes();
  }
  const int64_t before = GetMemoryStats(at::kCPU).allocated;
  {
    const AllocationPeak peak;
    tiled();
    peaks.tiled = peak.bytes();
  }
  peaks.left = GetMemoryStats(at::kCPU).allocated - before;
  return peaks;
}

TEST(VaeBandsTest, DecodesAsOnTheWholePicture) {
  c10::InferenceMode guard;
  const VaeDecoder& decoder = TinyModel().vae_decoder();
  for (const auto& [height, width] : kSizes) {
    const at::Tensor latents = at::randn({2, 4, height, width}).to(TestPlace().device);
    const at::Tensor whole = decoder.forward(latents);
    for (const int64_t band_values : {kSmallBands, kBandValues}) {
      const at::Tensor tiled = decoder.forward_tiled(latents, band_values);
      EXPECT_TRUE(tiled.is_contiguous());
      ExpectWithin(tiled, whole, kTolerance, "decoded");
    }
  }
}

TEST(VaeBandsTest, EncodesAsOnTheWholePicture) {
  c10::InferenceMode guard;
  const VaeEncoder& encoder = TinyModel().vae_encoder();
  const int64_t factor = TinyModel().config().vae.factor();
  for (const auto& [height, width] : kSizes) {
    const at::Tensor image = (at::rand({2, 3, height * factor, width * factor}) * 2 - 1).to(TestPlace().device);
    const LatentPosterior whole = encoder.forward(image);
    for (const int64_t band_values : {kSmallBands, kBandValues}) {
      const LatentPosterior tiled = encoder.forward_tiled(image, band_values);
      ExpectWithin(tiled.mean, whole.mean, kTolerance, "mean");
      ExpectWithin(tiled.std, whole.std, kTolerance, "std");
    }
  }
}

// What the norms' statistics of the whole picture are for.
TEST(VaeBandsTest, PartsDecodedByThemselvesDiffer) {
  c10::InferenceMode guard;
  const VaeDecoder& decoder = TinyModel().vae_decoder();
  const at::Tensor latents = at::randn({1, 4, 16, 8}).to(TestPlace().device);
  const at::Tensor halves =
      at::cat({decoder.forward(latents.narrow(2, 0, 8)), decoder.forward(latents.narrow(2, 8, 8))}, 2);
  EXPECT_GT((halves - decoder.forward(latents)).abs().max().item<double>(), 4.0 / 255);
}

// The rounding of bfloat16 is what both forms differ from float32 by.
TEST(VaeBandsTest, IsAsExactAsTheWholePictureInBfloat16) {
  c10::InferenceMode guard;
  const at::Tensor latents = at::randn({1, 4, 13, 9}), image = at::rand({1, 3, 104, 72}) * 2 - 1;
  CastParameters exact_up(at::kFloat);
  const at::Tensor decoded = VaeDecoder(ParameterScope(exact_up), MediumConfig()).forward(latents);
  CastParameters rounded_up(at::kBFloat16);
  const VaeDecoder decoder(ParameterScope(rounded_up), MediumConfig());
  EXPECT_LT(RelativeError(decoder.forward_tiled(latents, kSmallBands).to(at::kFloat), decoded),
            1.5 * RelativeError(decoder.forward(latents).to(at::kFloat), decoded));
  CastParameters exact_down(at::kFloat);
  const at::Tensor mean = VaeEncoder(ParameterScope(exact_down), MediumConfig()).forward(image).mean;
  CastParameters rounded_down(at::kBFloat16);
  const VaeEncoder encoder(ParameterScope(rounded_down), MediumConfig());
  EXPECT_LT(RelativeError(encoder.forward_tiled(image, kSmallBands).mean.to(at::kFloat), mean),
            1.5 * RelativeError(encoder.forward(image).mean.to(at::kFloat), mean));
}

TEST(VaeBandsTest, ReportsValuesThatAreNotFinite) {
  c10::InferenceMode guard;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(TinyModel().vae_decoder().forward_tiled(at::full({1, 4, 8, 8}, nan).to(TestPlace().device)),
               NonfiniteError);
  EXPECT_THROW(TinyModel().vae_encoder().forward_tiled(at::full({1, 3, 64, 64}, nan).to(TestPlace().device)),
               NonfiniteError);
}

TEST(VaeBandsTest, DecodesWithinItsEstimateAndWithLessMemory) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const VaeDecoder decoder(ParameterScope(parameters), MediumConfig());
  const at::Tensor latents = at::randn({1, 4, 32, 20});
  for (const int64_t band_values : {int64_t{1} << 14, kBandValues}) {
    const Peaks peaks =
        Measure([&] { decoder.forward(latents); }, [&] { decoder.forward_tiled(latents, band_values); });
    EXPECT_LT(peaks.tiled, decoder.TiledBytes(32, 20, band_values)) << "whole " << peaks.whole;
    EXPECT_EQ(peaks.left, 0);
    if (band_values != kBandValues) {
      EXPECT_LT(peaks.tiled, peaks.whole / 2);
      EXPECT_LT(decoder.TiledBytes(32, 20, band_values), peaks.whole);
    }
  }
}

TEST(VaeBandsTest, EncodesWithinItsEstimateAndWithLessMemory) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const VaeEncoder encoder(ParameterScope(parameters), MediumConfig());
  const at::Tensor image = at::rand({1, 3, 256, 160}) * 2 - 1;
  for (const int64_t band_values : {int64_t{1} << 14, kBandValues}) {
    const Peaks peaks = Measure([&] { encoder.forward(image); }, [&] { encoder.forward_tiled(image, band_values); });
    EXPECT_LT(peaks.tiled, encoder.TiledBytes(256, 160, band_values)) << "whole " << peaks.whole;
    EXPECT_EQ(peaks.left, 0);
    if (band_values != kBandValues) {
      EXPECT_LT(peaks.tiled, peaks.whole * 2 / 3);
      EXPECT_LT(encoder.TiledBytes(256, 160, band_values), peaks.whole);
    }
  }
}

// float16 is left out: LibTorch's convolutions in it take other memory, on CPUs without float16 instructions.
TEST(VaeBandsTest, InBfloat16StaysWithinItsEstimate) {
  c10::InferenceMode guard;
  const at::Tensor latents = at::randn({1, 4, 16, 12}), image = at::rand({1, 3, 128, 96}) * 2 - 1;
  CastParameters up(at::kBFloat16), down(at::kBFloat16);
  const VaeDecoder decoder(ParameterScope(up), MediumConfig());
  const VaeEncoder encoder(ParameterScope(down), MediumConfig());
  for (const int64_t band_values : {int64_t{1} << 14, kBandValues}) {
    const Peaks decoding =
        Measure([&] { decoder.forward(latents); }, [&] { decoder.forward_tiled(latents, band_values); });
    EXPECT_LT(decoding.tiled, decoder.TiledBytes(16, 12, band_values)) << "whole " << decoding.whole;
    const Peaks encoding = Measure([&] { encoder.forward(image); }, [&] { encoder.forward_tiled(image, band_values); });
    EXPECT_LT(encoding.tiled, encoder.TiledBytes(128, 96, band_values)) << "whole " << encoding.whole;
  }
}

}  // namespace
}  // namespace hotlora
