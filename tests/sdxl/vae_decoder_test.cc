#include "src/sdxl/vae_decoder.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/tensor/torch_guard.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

TEST(VaeDecoderTest, MatchesDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden("vae");
  ASSERT_FALSE(golden.Cases("decode_").empty());
  for (const std::string& name : golden.Cases("decode_")) {
    TensorMap t = golden.Load(name);
    const at::Tensor image = TinyModel().vae_decoder().forward(t.at("latent").to(TestPlace().device));
    ExpectWithin(image, t.at("image"), golden.Tolerance(name, "image"), name);
    EXPECT_TRUE(image.is_contiguous());
  }
}

TEST(VaeDecoderTest, ComputesInFloat32WhateverTheModelsDtype) {
  c10::InferenceMode guard;
  const GoldenFolder golden("vae");
  TensorMap t = golden.Load("decode_0");
  const at::Tensor image = TinyModel(at::kHalf).vae_decoder().forward(t.at("latent").to(TestPlace().device));
  EXPECT_EQ(image.scalar_type(), at::kFloat);
  ExpectWithin(image, t.at("image"), golden.Tolerance("decode_0", "image"), "image");
}

// As it is served with a half type: on a GPU its convolutions may use TF32, which has 10 bits of mantissa.
TEST(VaeDecoderTest, StaysCloseToFloat32AsServedWithHalfTypes) {
  c10::InferenceMode guard;
  TensorMap t = GoldenFolder("vae").Load("decode_0");
  const ComputePlace place = TestPlace(at::kHalf);
  const at::Tensor image = TinyModel(at::kHalf).vae_decoder().forward(t.at("latent").to(place.device));
  ExpectError(RelativeError(image, t.at("image")), 5e-3, "image");
}

TEST(VaeDecoderTest, InAHalfTypeStaysCloseToDiffusers) {
  c10::InferenceMode guard;
  TensorMap t = GoldenFolder("vae").Load("decode_0");
  const at::Tensor latent = t.at("latent").to(TestPlace().device);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const VaeDecoder& decoder = TinyModel(at::kFloat, dtype).vae_decoder();
    for (const at::Tensor& image : {decoder.forward(latent), decoder.forward_tiled(latent, 1 << 12)}) {
      ExpectFromHalfType(image, t.at("image"), dtype);
    }
  }
}

TEST(VaeDecoderTest, ReportsAnImageThatIsNotFinite) {
  c10::InferenceMode guard;
  const at::Tensor latents = at::full({1, 4, 8, 8}, std::numeric_limits<float>::quiet_NaN()).to(TestPlace().device);
  EXPECT_THROW(TinyModel().vae_decoder().forward(latents), NonfiniteError);
}

TEST(VaeDecoderTest, AppliesTheConfigsLatentStatistics) {
  c10::InferenceMode guard;
  VaeConfig config;
  config.latent_channels = 2;
  config.out_channels = 3;
  config.layers_per_block = 1;
  config.groups = 2;
  config.scaling_factor = 0.5;
  config.channels = {4, 4};
  RandomParameters plain_parameters(9);
  const VaeDecoder plain(ParameterScope(plain_parameters), config);
  config.latents_mean = {0.25, -1.0};
  config.latents_std = {2.0, 0.5};
  RandomParameters parameters(9);
  const VaeDecoder decoder(ParameterScope(parameters), config);
  const at::Tensor latents = at::randn({1, 2, 4, 4});
  // plain divides by the scaling factor alone, so it gets what the statistics make of the latents,
  // times that factor.
  const at::Tensor scale = at::tensor({2.0f, 0.5f}).view({2, 1, 1}), mean = at::tensor({0.25f, -1.0f}).view({2, 1, 1});
  const at::Tensor image = decoder.forward(latents);
  ExpectWithin(image, plain.forward((latents * scale / 0.5 + mean) * 0.5), 1e-4, "image");
  EXPECT_EQ(image.sizes(), at::IntArrayRef({1, 3, 8, 8}));
}

}  // namespace
}  // namespace hotlora
