#include "client/inspection_report.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

using testing::HasSubstr;
using testing::Not;

AdapterInspection Sound() {
  AdapterInspection inspection;
  inspection.content_sha256 = std::string(64, 'a');
  inspection.bytes = 3 << 20;
  inspection.tensors = 12;
  inspection.format = "locon";
  inspection.rank_max = 16;
  inspection.matched_modules = 5;
  inspection.modules_by_component = {{"text_encoder", 2}, {"unet", 3}};
  inspection.metadata.base_model = "sd_xl_base_1.0.safetensors";
  inspection.metadata.architecture = "sdxl_base_v1-0";
  inspection.metadata.title = "Neon \x1b[2J";
  inspection.metadata.tags = {"night", "rain"};
  return inspection;
}

TEST(InspectionReportTest, TextSaysWhatFits) {
  const std::string text = InspectionText(Sound(), "neon.safetensors", "stock SDXL");
  EXPECT_THAT(text, HasSubstr("format      locon, rank up to 16\n"));
  EXPECT_THAT(text, HasSubstr("modules     5 (text_encoder 2, unet 3)\n"));
  EXPECT_THAT(text, HasSubstr("trained on  sd_xl_base_1.0.safetensors (sdxl_base_v1-0)\n"));
  EXPECT_THAT(text, HasSubstr("tags        night, rain\n"));
  EXPECT_THAT(text, HasSubstr("verdict     fits stock SDXL\n"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b"))) << "the file's words must not reach the terminal as they are";
}

TEST(InspectionReportTest, TextSaysWhyNot) {
  AdapterInspection inspection;
  inspection.verdict = MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_MISMATCH", "adapter is for Flux");
  inspection.takes_unmatched = true;
  inspection.unmatched_keys = {"stray"};
  inspection.notes = {"its metadata say otherwise"};
  const std::string text = InspectionText(inspection, "x", "stock SDXL");
  EXPECT_THAT(text, HasSubstr("verdict     refused for stock SDXL: adapter is for Flux\n"));
  EXPECT_THAT(text, HasSubstr("reason      ADAPTER_MISMATCH\n"));
  EXPECT_THAT(text, HasSubstr("unmatched   stray\n"));
  EXPECT_THAT(text, HasSubstr("note        its metadata say otherwise\n"));
  EXPECT_THAT(text, HasSubstr("--allow-unmatched-keys"));
  EXPECT_THAT(text, Not(HasSubstr("format")));
}

TEST(InspectionReportTest, JsonHasTheSame) {
  nlohmann::json json = InspectionJson(Sound(), "neon.safetensors", "stock SDXL");
  EXPECT_TRUE(json["fits"].get<bool>());
  EXPECT_EQ(json["format"], "locon");
  EXPECT_EQ(json["modules"]["unet"], 3);
  EXPECT_FALSE(json.contains("error"));
  EXPECT_TRUE(json["notes"].empty());
  AdapterInspection refused = Sound();
  refused.verdict = MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID", "broken");
  json = InspectionJson(refused, "neon.safetensors", "stock SDXL");
  EXPECT_FALSE(json["fits"].get<bool>());
  EXPECT_EQ(json["error"]["reason"], "ADAPTER_INVALID");
  EXPECT_EQ(json["error"]["message"], "broken");
}

}  // namespace
}  // namespace hotlora
