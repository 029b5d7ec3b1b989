#include "src/sdxl/controlnet.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/sdxl/controlnet_file.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

constexpr char kFolder[] = "control";

class ControlNetTest : public testing::Test {
 protected:
  const PlacedControlNet& Load(const std::string& net, c10::ScalarType dtype = at::kFloat) {
    const std::string path = folder_.Under(net);
    if (!std::filesystem::exists(path)) {
      WriteControlNetFolder(net, path);
    }
    auto loaded = LoadControlNet(path, TinyModel().config(), TestPlace(dtype));
    TORCH_CHECK(loaded.ok(), loaded.status().ToString());
    nets_.push_back(*std::move(loaded));
    return *nets_.back();
  }

  TemporaryFolder folder_;
  std::vector<std::shared_ptr<const PlacedControlNet>> nets_;
};

uint64_t ParametersOf(const std::string& net) {
  uint64_t count = 0;
  for (const auto& [name, tensor] : GoldenControlNet(net)) {
    count += tensor.numel();
  }
  return count;
}

at::Tensor HintOf(const ControlNet& net, const TensorMap& t, const std::string& picture) {
  return net.EmbedHint(t.at(picture).to(TestPlace().device));
}

TEST(GoldenControlNetsTest, AreThoseOfTheReference) {
  std::ifstream stream(GoldenPath("control/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  for (const char* const net : {"lines", "depth", "union"}) {
    EXPECT_EQ(GoldenControlNetSha256(net), manifest.at("net_sha256").at(net)) << net;
  }
}

// Compares what a call of the net and of the UNet give with the golden case.
void ExpectCall(const ControlNet& net, const std::string& name, const std::vector<ControlHint>& hints) {
  const GoldenFolder golden(kFolder);
  const TensorMap t = golden.Load(name);
  UnetInput input = GoldenUnetInput(t);
  ControlResiduals residuals = net.forward(input, ControlledImage{input.sample.size(0), hints});
  const auto compare = [&](const at::Tensor& actual, const std::string& output) {
    ExpectWithin(actual, t.at(output), golden.Tolerance(name, output), name + " " + output);
  };
  ASSERT_EQ(residuals.down.size(), 9u);
  for (size_t i = 0; i < residuals.down.size(); ++i) {
    compare(residuals.down[i], "down_" + std::to_string(i));
  }
  compare(residuals.mid, "mid");
  input.control.push_back({0, std::move(residuals)});
  compare(TinyModel().unet().forward(input), "unet_output");
}

TEST_F(ControlNetTest, ACallEqualsDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const TensorMap t = golden.Load("net_call");
  const ControlNet& net = Load("lines").network;
  const at::Tensor hint = HintOf(net, t, "picture_0");
  ExpectWithin(hint.expand_as(t.at("hint_0")), t.at("hint_0"), golden.Tolerance("net_call", "hint_0"), "hint");
  ExpectCall(net, "net_call", {{hint}});
}

TEST_F(ControlNetTest, AUnionCallEqualsDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const TensorMap t = golden.Load("union_call");
  const ControlNet& net = Load("union").network;
  std::vector<ControlHint> hints;
  const std::pair<double, int64_t> said[] = {{0.9, 1}, {0.6, 4}};  // scale and type, as the manifest has them
  for (size_t i = 0; i < 2; ++i) {
    const std::string name = "hint_" + std::to_string(i);
    hints.push_back({HintOf(net, t, "picture_" + std::to_string(i)), said[i].first, said[i].second});
    ExpectWithin(hints.back().embedded.expand_as(t.at(name)), t.at(name), golden.Tolerance("union_call", name), name);
  }
  ExpectCall(net, "union_call", hints);
}

// Three images: one without control, one of two rows, one of a single row with another picture and scale.
TEST_F(ControlNetTest, RowsOfABatchAreAsIfAlone) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("union_call");
  const UnetInput four = DoubledInput(GoldenUnetInput(t));
  const ControlNet& net = Load("lines").network;
  const std::vector<ControlledImage> images = {{2, {{HintOf(net, t, "picture_0")}}},
                                               {1, {{HintOf(net, t, "picture_1"), 0.5}}}};
  UnetInput together = four;
  together.control.push_back({1, net.forward(RowsOfInput(four, 1, 3), images)});
  const at::Tensor output = TinyModel().unet().forward(together);

  const auto alone = [&](int64_t first, int64_t rows, const ControlledImage* image) {
    UnetInput input = RowsOfInput(four, first, rows);
    if (image != nullptr) {
      input.control.push_back({0, net.forward(input, *image)});
    }
    return TinyModel().unet().forward(input);
  };
  ExpectWithin(output.narrow(0, 0, 1), alone(0, 1, nullptr), 2e-5, "without control");
  ExpectWithin(output.narrow(0, 1, 2), alone(1, 2, &images[0]), 2e-5, "two rows");
  ExpectWithin(output.narrow(0, 3, 1), alone(3, 1, &images[1]), 2e-5, "one row");
  EXPECT_GT(RelativeError(alone(3, 1, &images[1]), alone(3, 1, nullptr)), 0.01) << "control does nothing";
}

// Under guidance, without it, and beside another image with other pictures.
TEST_F(ControlNetTest, RowsOfAUnionNetAreAsIfAlone) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("union_call");
  const UnetInput pair = GoldenUnetInput(t);
  const ControlNet& net = Load("union").network;
  const ControlHint lines{HintOf(net, t, "picture_0"), 0.9, 1}, depth{HintOf(net, t, "picture_1"), 0.6, 4};
  const auto mid = [&](const UnetInput& input, const std::vector<ControlledImage>& images) {
    return net.forward(input, images).mid;
  };
  const at::Tensor first = mid(RowsOfInput(pair, 0, 1), {{1, {lines, depth}}});
  const at::Tensor second = mid(RowsOfInput(pair, 1, 1), {{1, {depth}}});
  EXPECT_GT(RelativeError(mid(RowsOfInput(pair, 1, 1), {{1, {lines, depth}}}), second), 0.01)
      << "pictures do not matter";
  ExpectWithin(mid(pair, {{2, {lines, depth}}}).narrow(0, 0, 1), first, 1e-4, "first row under guidance");
  const at::Tensor apart = mid(pair, {{1, {lines, depth}}, {1, {depth}}});
  ExpectWithin(apart.narrow(0, 0, 1), first, 1e-4, "first image");
  ExpectWithin(apart.narrow(0, 1, 1), second, 1e-4, "second image");
}

// With one picture the outputs are scaled; with several the pictures are.
TEST_F(ControlNetTest, ScaleActsWhereDiffusersHasIt) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("union_call");
  const UnetInput input = GoldenUnetInput(t);
  const ControlNet& net = Load("union").network;
  const at::Tensor hint = HintOf(net, t, "picture_0");
  const auto mid = [&](std::vector<ControlHint> hints) {
    return net.forward(input, ControlledImage{2, std::move(hints)}).mid;
  };
  ExpectWithin(mid({{hint, 0.5, 1}}), mid({{hint, 1.0, 1}}) * 0.5, 1e-6, "one picture");
  EXPECT_GT(RelativeError(mid({{hint, 0.5, 1}, {hint, 0.5, 4}}), mid({{hint, 1.0, 1}, {hint, 1.0, 4}}) * 0.5), 1e-3);
}

TEST_F(ControlNetTest, RefusesCallsThatMakeNoSense) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("union_call");
  const UnetInput input = GoldenUnetInput(t);
  const ControlNet &plain = Load("lines").network, &types = Load("union").network;
  const at::Tensor hint = HintOf(plain, t, "picture_0"), of_union = HintOf(types, t, "picture_0");
  EXPECT_THROW(plain.forward(input, ControlledImage{2, {}}), c10::Error);
  EXPECT_THROW(plain.forward(input, ControlledImage{2, {{hint}, {hint}}}), c10::Error);
  EXPECT_THROW(plain.forward(input, ControlledImage{1, {{hint}}}), c10::Error);
  EXPECT_THROW(types.forward(input, ControlledImage{2, {{of_union, 1.0, 6}}}), c10::Error);
  EXPECT_THROW(types.forward(input, ControlledImage{2, {{of_union, 1.0, -1}}}), c10::Error);
  UnetInput controlled = input;
  controlled.control.push_back({0, plain.forward(input, ControlledImage{2, {{hint}}})});
  EXPECT_THROW(plain.forward(controlled, ControlledImage{2, {{hint}}}), c10::Error);
  controlled.control.front().first = 1;
  EXPECT_THROW(TinyModel().unet().forward(controlled), c10::Error) << "residuals beyond the last row";
}

TEST_F(ControlNetTest, HalfTypesStayCloseToFloat32) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("union_call");
  for (const auto& [dtype, tolerance] : {std::pair{at::kBFloat16, 0.05}, std::pair{at::kHalf, 0.01}}) {
    const PlacedControlNet& loaded = Load("union", dtype);
    // Each parameter is aligned to 64 bytes.
    EXPECT_GE(loaded.block.nbytes(), 2 * ParametersOf("union"));
    EXPECT_LT(loaded.block.nbytes(), 2 * ParametersOf("union") + 64 * loaded.layout.parameters.size());
    std::vector<ControlHint> hints;
    const std::pair<double, int64_t> said[] = {{0.9, 1}, {0.6, 4}};
    for (size_t i = 0; i < 2; ++i) {
      const at::Tensor picture = t.at("picture_" + std::to_string(i)).to(TestPlace().device, dtype);
      hints.push_back({loaded.network.EmbedHint(picture), said[i].first, said[i].second});
    }
    const ControlResiduals residuals = loaded.network.forward(GoldenUnetInput(t, dtype), ControlledImage{2, hints});
    EXPECT_EQ(residuals.mid.scalar_type(), dtype);
    ExpectError(RelativeError(residuals.mid, t.at("mid")), tolerance, DtypeName(dtype));
  }
}

}  // namespace
}  // namespace hotlora
