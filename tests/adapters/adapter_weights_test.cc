#include "src/adapters/adapter_weights.h"

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/adapters/adapter_store.h"
#include "src/nn/lora_delta.h"
#include "tests/adapters/safetensors_writer.h"
#include "tests/adapters/sdxl_modules.h"
#include "tests/adapters/temporary_folder.h"

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
  std::shared_ptr<const AdapterWeights> Make(const SafetensorsWriter& writer) {
    parsed_ =
        std::make_unique<ParsedAdapter>(ParseAdapter(writer.Parse(), keys_, table_, AdapterFileOptions()).value());
    return MakeAdapterWeights(*parsed_).value();
  }

  const ModuleTable table_ = MakeModules(TinySdxl());
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
  const LoraDelta& first = weights->deltas[0];
  EXPECT_EQ(table_.modules[first.module].path, "conv_in");
  EXPECT_EQ(first.down.sizes(), (std::vector<int64_t>{2, 36}));
  EXPECT_EQ(first.up.sizes(), (std::vector<int64_t>{32, 2}));
  EXPECT_FALSE(first.mid.defined());
  EXPECT_TRUE(at::equal(first.down, at::arange(72, at::kFloat).div(8).view({2, 36})));
  const LoraDelta& second = weights->deltas[1];
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
  const LoraDelta& delta = weights->deltas.at(0);
  EXPECT_EQ(delta.down.sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(delta.mid.sizes(), (std::vector<int64_t>{2, 2, 3, 3}));
  EXPECT_EQ(delta.mid[1][1][2][2].item<float>(), 35 / 8.0f);
  EXPECT_EQ(delta.scale, 0.5);
}

TEST_F(AdapterWeightsTest, BytesAreExactlyThoseOfTheTensors) {
  for (const auto& entry : std::filesystem::directory_iterator(HOTLORA_GOLDEN_DIR "/adapters/files")) {
    SCOPED_TRACE(entry.path().filename());
    auto file = SafetensorsFile::ReadFile(entry.path(), 1 << 20).value();
    const auto parsed = ParseAdapter(std::move(file), keys_, table_, AdapterFileOptions());
    if (!parsed.ok()) {
      continue;  // formats to come; adapter_file_test says which
    }
    const auto weights = MakeAdapterWeights(*parsed).value();
    uint64_t bytes = 0;
    for (const LoraDelta& delta : weights->deltas) {
      for (const at::Tensor& tensor : {delta.down, delta.up, delta.mid}) {
        if (tensor.defined()) {
          EXPECT_TRUE(tensor.is_contiguous());
          bytes += tensor.storage().nbytes();
        }
      }
    }
    EXPECT_EQ(bytes, parsed->tensor_bytes);
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
  auto store = AdapterStore::Create(options, table_, /*metrics=*/nullptr).value();
  std::shared_ptr<const AdapterWeights> weights = store->Acquire("neon").value()->weights();
  EXPECT_EQ(store->Get("neon")->in_use, 0u);
  // The lease is gone, the tensors are not: they live as long as somebody holds them.
  EXPECT_TRUE(store->Unload("neon").ok());
  EXPECT_EQ(weights->deltas.at(0).down[0][0].item<float>(), 0.25f);
}

}  // namespace
}  // namespace hotlora
