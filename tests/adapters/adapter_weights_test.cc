#include "src/adapters/adapter_weights.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/adapters/adapter_store.h"
#include "src/metrics/metrics.h"
#include "src/nn/lora_delta.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/golden_path.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

std::vector<float> Ramp(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i) / 8;
  }
  return values;
}

class AdapterWeightsTest : public testing::Test {
 protected:
  std::unique_ptr<AdapterWeights> Make(const SafetensorsWriter& writer, const AdapterFileOptions& options = {}) {
    parsed_ = std::make_unique<ParsedAdapter>(ParseAdapter(writer.Parse(), keys_, table_, options).value());
    return std::make_unique<AdapterWeights>(ViewAdapter(*parsed_).value());
  }

  const ModuleTable table_ = TinySdxl();
  const KeyMap keys_ = KeyMap::Build(table_).value();
  std::unique_ptr<ParsedAdapter> parsed_;
};

TEST_F(AdapterWeightsTest, ShapesAreThoseOfTheMerge) {
  SafetensorsWriter writer;
  writer.Add("unet.conv_in.lora_A.weight", "F32", {2, 4, 3, 3}, Ramp(72));
  writer.Add("unet.conv_in.lora_B.weight", "F32", {32, 2, 1, 1}, Ramp(64));
  writer.Add("unet.conv_out.lora_A.weight", "BF16", {1, 32, 3, 3}, std::vector<uint16_t>(288, 0x3F80));
  writer.Add("unet.conv_out.lora_B.weight", "F64", {4, 1, 1, 1}, std::vector<double>{1, 2, 3, 4});
  const auto weights = Make(writer);
  ASSERT_EQ(weights->deltas.size(), 2u);
  EXPECT_EQ(table_.modules[weights->deltas[0].module].path, "conv_in");
  const LowRank& first = std::get<LowRank>(weights->deltas[0].change);
  EXPECT_EQ(first.down.sizes(), (std::vector<int64_t>{2, 36}));
  EXPECT_EQ(first.up.sizes(), (std::vector<int64_t>{32, 2}));
  EXPECT_FALSE(first.mid.defined());
  EXPECT_TRUE(at::equal(first.down, at::arange(72, at::kFloat).div(8).view({2, 36})));
  const LowRank& second = std::get<LowRank>(weights->deltas[1].change);
  EXPECT_EQ(second.down.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(second.down.eq(1).all().item<bool>());
  EXPECT_EQ(second.up.scalar_type(), at::kFloat);
  EXPECT_EQ(second.up[3][0].item<float>(), 4.0f);
}

TEST_F(AdapterWeightsTest, TuckerKeepsItsCore) {
  SafetensorsWriter writer;
  writer.Add("lora_unet_conv_in.lora_down.weight", {2, 4, 1, 1});
  writer.Add("lora_unet_conv_in.lora_mid.weight", "F32", {2, 2, 3, 3}, Ramp(36));
  writer.Add("lora_unet_conv_in.lora_up.weight", {32, 2, 1, 1});
  writer.Add("lora_unet_conv_in.alpha", {}, 1.0f);
  const auto weights = Make(writer);
  const LowRank& delta = std::get<LowRank>(weights->deltas.at(0).change);
  EXPECT_EQ(delta.down.sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(delta.mid.sizes(), (std::vector<int64_t>{2, 2, 3, 3}));
  EXPECT_EQ(delta.mid[1][1][2][2].item<float>(), 35 / 8.0f);
  EXPECT_EQ(weights->deltas[0].scale, 0.5);
}

TEST_F(AdapterWeightsTest, LycorisTuckerFactorsAreTurned) {
  SafetensorsWriter writer;
  for (const std::string half : {"1", "2"}) {
    writer.Add("lora_unet_conv_in.hada_w" + half + "_a", "F32", {2, 32}, Ramp(64));
    writer.Add("lora_unet_conv_in.hada_w" + half + "_b", {2, 4});
    writer.Add("lora_unet_conv_in.hada_t" + half, {2, 2, 3, 3});
  }
  const auto weights = Make(writer);
  const Hadamard& change = std::get<Hadamard>(weights->deltas.at(0).change);
  for (const LowRank* factors : {&change.first, &change.second}) {
    EXPECT_TRUE(at::equal(factors->up, at::arange(64, at::kFloat).div(8).view({2, 32}).t()));
    EXPECT_EQ(factors->down.sizes(), (std::vector<int64_t>{2, 4}));
    EXPECT_EQ(factors->mid.sizes(), (std::vector<int64_t>{2, 2, 3, 3}));
  }
}

TEST_F(AdapterWeightsTest, MagnitudeHasTheAxisOfItsNorms) {
  for (const auto& [shape, expected] :
       {std::pair<std::vector<int64_t>, std::vector<int64_t>>{{32, 1, 1, 1}, {32, 1, 1}},
        {{1, 4, 1, 1}, {1, 4, 1}},
        {{32}, {32, 1, 1}}}) {
    SafetensorsWriter writer;
    writer.Add("lora_unet_conv_in.lora_down.weight", {2, 4, 3, 3});
    writer.Add("lora_unet_conv_in.lora_up.weight", {32, 2});
    writer.Add("lora_unet_conv_in.dora_scale", shape);
    EXPECT_EQ(Make(writer)->deltas.at(0).magnitude.sizes(), expected);
  }
}

TEST_F(AdapterWeightsTest, BothLayoutsOfGloraAreOneChange) {
  SafetensorsWriter today, first;
  today.Add("lora_unet_conv_in.a1.weight", "F32", {4, 2}, Ramp(8)).Add("lora_unet_conv_in.a2.weight", {2, 4});
  today.Add("lora_unet_conv_in.b1.weight", {32, 2}).Add("lora_unet_conv_in.b2.weight", {2, 4, 3, 3});
  const auto now = Make(today);
  const GeneralizedLowRank& change = std::get<GeneralizedLowRank>(now->deltas.at(0).change);
  EXPECT_TRUE(at::equal(change.mixed.up, at::arange(8, at::kFloat).div(8).view({4, 2})));
  EXPECT_EQ(change.mixed.down.sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(change.added.up.sizes(), (std::vector<int64_t>{32, 2}));
  EXPECT_EQ(change.added.down.sizes(), (std::vector<int64_t>{2, 36}));
  const std::string linear = "lora_unet_time_embed_0";  // [128, 32]
  first.Add(linear + ".a1.weight", {2, 32}).Add(linear + ".a2.weight", "F32", {32, 2}, Ramp(64));
  first.Add(linear + ".b1.weight", {2, 32}).Add(linear + ".b2.weight", {128, 2});
  const auto then = Make(first);
  const GeneralizedLowRank& old = std::get<GeneralizedLowRank>(then->deltas.at(0).change);
  EXPECT_TRUE(at::equal(old.mixed.up, at::arange(64, at::kFloat).div(8).view({32, 2})));
  EXPECT_EQ(old.mixed.down.sizes(), (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(old.added.up.sizes(), (std::vector<int64_t>{128, 2}));
  EXPECT_EQ(old.added.down.sizes(), (std::vector<int64_t>{2, 32}));
}

TEST_F(AdapterWeightsTest, OftBlocksBecomeRotationsWithinTheirBound) {
  std::vector<float> values(8 * 4 * 4);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::sin(static_cast<float>(i * i));
  }
  const at::Tensor blocks = at::from_blob(values.data(), {8, 4, 4}, at::kFloat).to(at::kDouble);
  const at::Tensor skew = blocks - blocks.transpose(1, 2), identity = at::eye(4, at::kDouble);
  for (const float alpha : {0.0f, 0.0625f}) {  // no bound; 2.0 for 32 outputs, below the norm
    SafetensorsWriter writer;
    writer.Add("oft_unet_conv_in.oft_blocks", "F32", {8, 4, 4}, values).Add("oft_unet_conv_in.alpha", {}, alpha);
    const auto weights = Make(writer);
    const Rotation& rotation = std::get<Rotation>(weights->deltas.at(0).change);
    const double norm = skew.square().sum().sqrt().item<double>();
    ASSERT_GT(norm, 2.0);
    const at::Tensor q = alpha == 0.0f ? skew : skew * (2.0 / norm);
    const at::Tensor r = (identity + q).bmm(at::inverse(identity - q));
    EXPECT_LT((rotation.turn.to(at::kDouble) + identity - r).abs().max().item<double>(), 1e-6);
    const at::Tensor turned = rotation.turn.to(at::kDouble) + identity;
    EXPECT_LT((turned.bmm(turned.transpose(1, 2)) - identity).abs().max().item<double>(), 1e-5);
  }
}

TEST_F(AdapterWeightsTest, OftOfPeftTurnsInputs) {
  std::vector<float> values(8 * 6);  // 8 blocks of 4 inputs, 6 numbers above the diagonal
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.3f * std::sin(static_cast<float>(i * i));
  }
  SafetensorsWriter writer;
  writer.Add("unet.time_embedding.linear_1.oft_R.weight", "F32", {8, 6}, values);
  at::Tensor skew = at::zeros({8, 4, 4}, at::kDouble);
  for (int64_t block = 0, next = 0; block < 8; ++block) {
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t column = row + 1; column < 4; ++column, ++next) {
        skew[block][row][column] = static_cast<double>(values[static_cast<size_t>(next)]);
        skew[block][column][row] = -static_cast<double>(values[static_cast<size_t>(next)]);
      }
    }
  }
  const at::Tensor identity = at::eye(4, at::kDouble), square = skew.bmm(skew), cube = square.bmm(skew);
  const std::pair<const char*, at::Tensor> cases[] = {
      {R"({"peft_type": "OFT", "use_cayley_neumann": false})", (identity - skew).bmm(at::inverse(identity + skew))},
      {R"({"peft_type": "OFT", "use_cayley_neumann": true})",
       identity + 2 * skew + 2 * square + 2 * cube + cube.bmm(skew)},
      {R"({"peft_type": "OFT", "use_cayley_neumann": true, "num_cayley_neumann_terms": 3})",
       identity + 2 * skew + 2 * square + cube},
  };
  for (const auto& [config, expected] : cases) {
    AdapterFileOptions options;
    options.peft_config = config;
    const auto weights = Make(writer, options);
    const Rotation& rotation = std::get<Rotation>(weights->deltas.at(0).change);
    EXPECT_TRUE(rotation.of_inputs);
    EXPECT_LT((rotation.turn.to(at::kDouble) + identity - expected).abs().max().item<double>(), 1e-6) << config;
  }
}

TEST_F(AdapterWeightsTest, BytesCountRotationsAsFloats) {
  SafetensorsWriter writer;
  writer.Add("oft_unet_conv_in.oft_blocks", "F16", {8, 4, 4}, std::vector<uint16_t>(128, 0x3C00));
  writer.Add("oft_unet_conv_in.rescale", "F16", {32, 1, 1, 1}, std::vector<uint16_t>(32, 0x3C00));
  writer.Add("oft_unet_conv_out.oft_blocks", "F64", {2, 2, 2}, std::vector<double>(8, 0.5));
  EXPECT_EQ(Make(writer)->deltas.size(), 2u);
  EXPECT_EQ(parsed_->tensor_bytes, 128 * 4 + 32 * 2 + 8 * 4u);
}

// The tensors of an adapter are views of one block, which both tiers count to the byte.
TEST_F(AdapterWeightsTest, BothTiersHoldOneBlockOfTheBytesTheyCount) {
  const auto memory = MakeAdapterMemory({at::kCPU, at::kFloat}, 1 << 20, 1 << 20).value();
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("adapters/files"))) {
    SCOPED_TRACE(entry.path().filename());
    auto file = SafetensorsFile::ReadFile(entry.path(), 1 << 20).value();
    auto parsed = ParseAdapter(std::move(file), keys_, table_, AdapterFileOptions());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const StagedAdapter staged = memory->Stage(*parsed).value();
    const HeldWeights in_host = staged.lay_out(8192).value();
    const auto hosted = std::get<std::shared_ptr<const AdapterWeights>>(in_host);
    const auto uploaded =
        std::get<std::shared_ptr<const AdapterWeights>>(memory->Upload(in_host, 4096, staged.bytes).value());
    ASSERT_EQ(uploaded->deltas.size(), hosted->deltas.size());
    for (const auto& weights : {hosted, uploaded}) {
      EXPECT_EQ(static_cast<uint64_t>(weights->block.nbytes()), staged.bytes);
      const auto* const begin = static_cast<const char*>(weights->block.const_data_ptr());
      for (ModuleDelta delta : weights->deltas) {
        ForEachTensor(delta, [&](const at::Tensor& tensor) {
          const auto* const data = static_cast<const char*>(tensor.const_data_ptr());
          EXPECT_TRUE(tensor.is_contiguous());
          EXPECT_GE(data, begin);
          EXPECT_LE(data + tensor.nbytes(), begin + staged.bytes);
          EXPECT_TRUE(at::isfinite(tensor).all().item<bool>());
        });
      }
    }
    EXPECT_TRUE(at::equal(hosted->block, uploaded->block));
  }
}

TEST_F(AdapterWeightsTest, StoreLendsThem) {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.Add("unet.conv_in.lora_A.weight", {2, 4, 3, 3}, 0.25f);
  writer.Add("unet.conv_in.lora_B.weight", {32, 2, 1, 1});
  writer.Save(folder.Under("neon.safetensors"));
  AdapterStoreOptions options;
  options.directory = folder.path();
  Metrics metrics;
  auto store = AdapterStore::Create(options, table_, &metrics.adapters(),
                                    MakeAdapterMemory({at::kCPU, at::kFloat}, 1 << 20, 1 << 20).value())
                   .value();
  std::shared_ptr<const AdapterWeights> weights = store->Acquire("neon").value()->weights();
  EXPECT_EQ(store->Get("neon")->in_use, 0u);
  // The lease is gone, the tensors are not: they live as long as something holds them.
  EXPECT_TRUE(store->Unload("neon").ok());
  EXPECT_EQ(std::get<LowRank>(weights->deltas.at(0).change).down[0][0].item<float>(), 0.25f);
}

}  // namespace
}  // namespace hotlora
