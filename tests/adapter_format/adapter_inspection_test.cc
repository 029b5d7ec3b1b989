#include "src/adapter_format/adapter_inspection.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/adapter_format/adapter_file.h"
#include "src/base/error_details.h"
#include "src/base/sha256.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

class AdapterInspectionTest : public testing::Test {
 protected:
  // A change of the stock model: one UNet module, its bias, and one of the first text encoder.
  static SafetensorsWriter Good() {
    SafetensorsWriter writer;
    writer.Add("lora_unet_input_blocks_4_1_proj_in.lora_down.weight", {2, 640});
    writer.Add("lora_unet_input_blocks_4_1_proj_in.lora_up.weight", {640, 2});
    writer.Add("lora_unet_input_blocks_4_1_proj_in.diff_b", {640});
    writer.Add("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", {1, 768});
    writer.Add("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", {3072, 1});
    writer.AddMetadata("ss_base_model_version", "sdxl_base_v1-0");
    return writer;
  }

  AdapterInspection Inspect(const SafetensorsWriter& writer) {
    writer.Save(folder_.Under("a.safetensors"));
    return InspectAdapter(folder_.Under("a.safetensors"), table_).value();
  }

  const ModuleTable table_ = FullSdxl();
  const TemporaryFolder folder_;
};

TEST_F(AdapterInspectionTest, SaysWhatAnAdapterIs) {
  const AdapterInspection inspection = Inspect(Good());
  EXPECT_TRUE(inspection.verdict.ok()) << inspection.verdict;
  EXPECT_FALSE(inspection.takes_unmatched);
  EXPECT_EQ(inspection.format, "lora");
  EXPECT_EQ(inspection.rank_max, 2u);
  EXPECT_EQ(inspection.tensors, 5u);
  EXPECT_EQ(inspection.matched_modules, 2u);
  EXPECT_THAT(inspection.modules_by_component, ElementsAre(Pair("text_encoder", 1), Pair("unet", 1)));
  EXPECT_EQ(inspection.changed_biases, 1u);
  EXPECT_THAT(inspection.unmatched_keys, IsEmpty());
  EXPECT_EQ(inspection.metadata.architecture, "sdxl_base_v1-0");
  const std::string bytes = Good().Bytes();
  Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  EXPECT_EQ(inspection.content_sha256, sha.HexDigest());
  EXPECT_EQ(inspection.bytes, bytes.size());
}

TEST_F(AdapterInspectionTest, SaysWhyAnAdapterIsRefused) {
  SafetensorsWriter stray = Good();
  stray.Add("lora_unet_nothing.alpha", {});
  AdapterInspection inspection = Inspect(stray);
  EXPECT_EQ(GetErrorDetails(inspection.verdict).reason, "ADAPTER_MISMATCH") << inspection.verdict;
  EXPECT_TRUE(inspection.takes_unmatched);
  EXPECT_EQ(inspection.matched_modules, 2u);
  EXPECT_THAT(inspection.unmatched_keys, ElementsAre("lora_unet_nothing.alpha"));

  SafetensorsWriter flux;
  flux.Add("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", {1, 768});
  flux.Add("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", {3072, 1});
  flux.Add("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", {4, 4});
  inspection = Inspect(flux);
  EXPECT_THAT(std::string(inspection.verdict.message()), HasSubstr("adapter is for Flux, not for SDXL"));
  EXPECT_FALSE(inspection.takes_unmatched) << "its text encoder alone is no adapter of this model";
  EXPECT_EQ(inspection.format, "");
  EXPECT_EQ(inspection.content_sha256.size(), 64u);
}

TEST_F(AdapterInspectionTest, ReadsPeftFolders) {
  SafetensorsWriter writer;
  writer.Add("base_model.model.unet.conv_in.lora_A.weight", {2, 4, 3, 3});
  writer.Add("base_model.model.unet.conv_in.lora_B.weight", {320, 2, 1, 1});
  writer.Save(folder_.Under("adapter_model.safetensors"));
  EXPECT_FALSE(InspectAdapter(folder_.path(), table_).ok()) << "without a configuration";
  const std::string config = R"({"r": 2, "lora_alpha": 4, "base_model_name_or_path": "stabilityai/sdxl"})";
  std::ofstream(folder_.Under("adapter_config.json")) << config;
  const AdapterInspection inspection = InspectAdapter(folder_.path(), table_).value();
  EXPECT_TRUE(inspection.verdict.ok()) << inspection.verdict;
  EXPECT_EQ(inspection.metadata.base_model, "stabilityai/sdxl");
  const SafetensorsFile file = SafetensorsFile::ReadFile(folder_.Under("adapter_model.safetensors"), 1 << 20).value();
  EXPECT_EQ(inspection.content_sha256, ContentHash(file, config));
  EXPECT_NE(inspection.content_sha256, file.sha256());
}

TEST_F(AdapterInspectionTest, ErrorsNameTheFile) {
  EXPECT_THAT(std::string(InspectAdapter(folder_.Under("none"), table_).status().message()), HasSubstr("none"));
  std::ofstream(folder_.Under("bad.safetensors")) << "nothing";
  const absl::Status status = InspectAdapter(folder_.Under("bad.safetensors"), table_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.safetensors"));
}

}  // namespace
}  // namespace hotlora
