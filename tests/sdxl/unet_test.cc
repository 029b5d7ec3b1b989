#include "src/sdxl/unet.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

TEST(UnetTest, MatchesDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden("unet");
  ASSERT_FALSE(golden.Cases("unet_").empty());
  for (const std::string& name : golden.Cases("unet_")) {
    TensorMap t = golden.Load(name);
    ExpectWithin(TinyModel().unet().forward(GoldenUnetInput(t)), t.at("output"), golden.Tolerance(name, "output"),
                 name);
  }
}

TEST(UnetTest, MatchesDiffusersAfterEachStage) {
  c10::InferenceMode guard;
  const GoldenFolder golden("unet");
  TensorMap t = golden.Load("unet_0");
  int compared = 0;
  TinyModel().unet().forward(GoldenUnetInput(t), [&](const std::string& stage, const at::Tensor& output) {
    const std::string name = "after." + stage;
    if (t.count(name) > 0) {
      ExpectWithin(output, t.at(name), golden.Tolerance("unet_0", name), name);
      ++compared;
    }
  });
  EXPECT_EQ(compared, 10);
}

TEST(UnetTest, EachRowIsAsIfAlone) {
  c10::InferenceMode guard;
  const GoldenFolder golden("unet");
  // Two of the same size with other texts, sizes and timesteps.
  const UnetInput one = GoldenUnetInput(golden.Load("unet_0")), other = GoldenUnetInput(golden.Load("unet_1"));
  UnetInput second = one;
  second.sample = other.sample.narrow(0, 1, 1).narrow(2, 0, 8).narrow(3, 4, 8);
  second.timesteps = at::full_like(one.timesteps, 12.5);
  second.encoder_hidden_states = other.encoder_hidden_states.narrow(0, 1, 1);
  second.pooled = other.pooled.narrow(0, 1, 1);
  second.time_ids = at::full_like(one.time_ids, 3000.0);
  UnetInput both;
  both.sample = at::cat({one.sample, second.sample});
  both.timesteps = at::cat({one.timesteps, second.timesteps});
  both.encoder_hidden_states = at::cat({one.encoder_hidden_states, second.encoder_hidden_states});
  both.pooled = at::cat({one.pooled, second.pooled});
  both.time_ids = at::cat({one.time_ids, second.time_ids});

  const Unet& unet = TinyModel().unet();
  const at::Tensor together = unet.forward(both);
  ExpectWithin(together.narrow(0, 0, 1), unet.forward(one), 1e-5, "first row");
  ExpectWithin(together.narrow(0, 1, 1), unet.forward(second), 1e-5, "second row");
}

TEST(UnetTest, LeavesItsInputAsItWas) {
  c10::InferenceMode guard;
  const UnetInput input = GoldenUnetInput(GoldenFolder("unet").Load("unet_1"));
  const at::Tensor sample = input.sample.clone(), context = input.encoder_hidden_states.clone();
  const at::Tensor once = TinyModel().unet().forward(input);
  EXPECT_TRUE(at::equal(input.sample, sample));
  EXPECT_TRUE(at::equal(input.encoder_hidden_states, context));
  EXPECT_TRUE(at::equal(TinyModel().unet().forward(input), once)) << "the same input gave another output";
  EXPECT_TRUE(once.is_contiguous());
}

TEST(UnetTest, HalfTypesStayCloseToFloat32) {
  c10::InferenceMode guard;
  const GoldenFolder golden("unet");
  for (const std::string& name : {std::string("unet_1"), std::string("unet_4")}) {
    TensorMap t = golden.Load(name);
    for (const auto& [dtype, tolerance] : {std::pair{at::kBFloat16, 0.05}, std::pair{at::kHalf, 0.01}}) {
      const at::Tensor output = TinyModel(dtype).unet().forward(GoldenUnetInput(t, dtype));
      EXPECT_EQ(output.scalar_type(), dtype);
      ExpectError(RelativeError(output, t.at("output")), tolerance, name + " in " + DtypeName(dtype));
    }
  }
}

}  // namespace
}  // namespace hotlora
