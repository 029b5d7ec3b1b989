#include "src/sdxl/vae_encoder.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/tensor/torch_guard.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

TEST(VaeEncoderTest, MatchesDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden("vae");
  const double scaling_factor = TinyModel().config().vae.scaling_factor;
  ASSERT_FALSE(golden.Cases("encode_").empty());
  for (const std::string& name : golden.Cases("encode_")) {
    TensorMap t = golden.Load(name);
    const VaeEncoder& encoder = TinyModel().vae_encoder();
    const LatentPosterior posterior = encoder.forward(t.at("image").to(TestPlace().device));
    ExpectWithin(posterior.mean, t.at("mean"), golden.Tolerance(name, "mean"), name + " mean");
    ExpectWithin(posterior.std.log().mul(2), t.at("logvar"), golden.Tolerance(name, "logvar"), name + " logvar");
    ExpectWithin(encoder.Sample(posterior, t.at("noise")).div(scaling_factor), t.at("sample"),
                 golden.Tolerance(name, "sample"), name + " sample");
  }
}

TEST(VaeEncoderTest, ComputesInFloat32WhateverTheModelsDtype) {
  c10::InferenceMode guard;
  const GoldenFolder golden("vae");
  TensorMap t = golden.Load("encode_0");
  const LatentPosterior posterior = TinyModel(at::kHalf).vae_encoder().forward(t.at("image").to(TestPlace().device));
  EXPECT_EQ(posterior.mean.scalar_type(), at::kFloat);
  ExpectWithin(posterior.mean, t.at("mean"), golden.Tolerance("encode_0", "mean"), "mean");
}

TEST(VaeEncoderTest, InAHalfTypeStaysCloseToDiffusers) {
  c10::InferenceMode guard;
  TensorMap t = GoldenFolder("vae").Load("encode_0");
  const at::Tensor image = t.at("image").to(TestPlace().device);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const VaeEncoder& encoder = TinyModel(at::kFloat, dtype).vae_encoder();
    for (const LatentPosterior& posterior : {encoder.forward(image), encoder.forward_tiled(image, 1 << 12)}) {
      EXPECT_EQ(posterior.std.scalar_type(), at::kFloat);
      ExpectFromHalfType(posterior.mean, t.at("mean"), dtype);
    }
  }
}

TEST(VaeEncoderTest, ReportsAPosteriorThatIsNotFinite) {
  c10::InferenceMode guard;
  const at::Tensor image = at::full({1, 3, 64, 64}, std::numeric_limits<float>::quiet_NaN()).to(TestPlace().device);
  EXPECT_THROW(TinyModel().vae_encoder().forward(image), NonfiniteError);
}

TEST(VaeEncoderTest, AppliesTheConfigsLatentStatistics) {
  c10::InferenceMode guard;
  VaeConfig config;
  config.latent_channels = 2;
  config.layers_per_block = 1;
  config.groups = 2;
  config.scaling_factor = 0.5;
  config.channels = {4, 4};
  config.latents_mean = {0.25, -1.0};
  config.latents_std = {2.0, 0.5};
  RandomParameters parameters(9);
  const VaeEncoder encoder(ParameterScope(parameters), config);
  const at::Tensor scale = at::tensor({2.0f, 0.5f}).view({2, 1, 1}), mean = at::tensor({0.25f, -1.0f}).view({2, 1, 1});
  const LatentPosterior posterior = encoder.forward(at::randn({1, 3, 8, 8}));
  EXPECT_EQ(posterior.mean.sizes(), at::IntArrayRef({1, 2, 4, 4}));
  const at::Tensor noise = at::randn({1, 2, 4, 4});
  ExpectWithin(encoder.Sample(posterior, noise), (posterior.mean + posterior.std * noise - mean) * 0.5 / scale, 1e-5,
               "latents");
}

}  // namespace
}  // namespace hotlora
