// Units of AUTOMATIC1111's script "controlnet" as controls: what counts, what changes nothing, and what is refused.

#include "server/sdapi_controls.h"

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/sdapi_lists.h"
#include "server/sdapi_mapping.h"
#include "src/image/image_encoder.h"
#include "src/request/control_check.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::string Picture(uint32_t width = 64, uint32_t height = 64) {
  return *EncodeImage({width, height, std::vector<uint8_t>(size_t{width} * height * 3, 7)}, ImageFormat::kPng, 90, "");
}

// A unit that draws with "edges", changed.
Json Unit(const Json& change = Json::object()) {
  Json unit = {{"model", "edges"}, {"image", absl::Base64Escape(Picture())}};
  unit.update(change);
  return unit;
}

MappedImageRequest MapArguments(const Json& args, const std::string& script = "controlnet") {
  const Json request = {{"width", 64}, {"height", 64}, {"alwayson_scripts", {{script, {{"args", args}}}}}};
  sdapi::v1::GenerateRequest message;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(request.dump(), &message).ok()) << request;
  return FromProto(WithDefaults(message, SdapiTask::kTxt2Img), SdapiTask::kTxt2Img, {});
}
MappedImageRequest Map(const std::vector<Json>& units) { return MapArguments(units); }

std::string Faults(const MappedImageRequest& mapped) {
  std::string text;
  for (const FieldViolation& violation : mapped.violations) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", violation.field, " ", violation.description);
  }
  return text;
}

TEST(SdapiControlsTest, AUnitIsAControl) {
  const Json unit =
      Unit({{"weight", 0.5}, {"guidance_start", 0.1}, {"guidance_end", 0.8}, {"union_control_type", "Normal Map"}});
  for (const char* const script : {"controlnet", "ControlNet"}) {
    const MappedImageRequest mapped = MapArguments(std::vector<Json>{unit}, script);
    EXPECT_EQ(Faults(mapped), "");
    ASSERT_EQ(mapped.request.controls.size(), 1u);
    const ControlRef& control = mapped.request.controls[0];
    EXPECT_EQ(control.name, "edges");
    EXPECT_EQ(control.image, Picture());
    EXPECT_EQ(control.scale, 0.5);
    EXPECT_EQ(control.start, 0.1);
    EXPECT_EQ(control.end, 0.8);
    EXPECT_EQ(control.type, 4u);
  }
}

TEST(SdapiControlsTest, WhatIsUnsetIsUnset) {
  const MappedImageRequest mapped = Map({Unit()});
  EXPECT_EQ(Faults(mapped), "");
  ASSERT_EQ(mapped.request.controls.size(), 1u);
  const ControlRef& control = mapped.request.controls[0];
  EXPECT_FALSE(control.scale.has_value() || control.start.has_value() || control.end.has_value() ||
               control.type.has_value());
}

TEST(SdapiControlsTest, UnitsThatAreOffAreNotThere) {
  const MappedImageRequest mapped = Map({Unit({{"enabled", false}, {"module", "canny"}}), nullptr, Json::object(),
                                         false, Unit({{"enabled", true}, {"model", "second"}})});
  EXPECT_EQ(Faults(mapped), "");
  ASSERT_EQ(mapped.request.controls.size(), 1u);
  EXPECT_EQ(mapped.request.controls[0].name, "second");
  EXPECT_TRUE(Map({}).request.controls.empty());
}

TEST(SdapiControlsTest, AliasesAndFormsOfThePicture) {
  const std::string data = absl::Base64Escape(Picture());
  const Json uri = absl::StrCat("data:image/png;base64,", data);
  const Json units[] = {
      {{"model", "edges"}, {"input_image", data}},
      {{"model", "edges"}, {"image", uri}},
      {{"model", "edges"}, {"image", {{"image", data}, {"mask", nullptr}}}},
      {{"model", "edges"}, {"image", data}, {"guidance", 0.5}},
  };
  for (const Json& unit : units) {
    const MappedImageRequest mapped = Map({unit});
    EXPECT_EQ(Faults(mapped), "") << unit;
    ASSERT_EQ(mapped.request.controls.size(), 1u);
    EXPECT_EQ(mapped.request.controls[0].image, Picture());
    EXPECT_EQ(mapped.request.controls[0].end.has_value(), unit.contains("guidance"));
  }
}

// What the extension's clients always send.
TEST(SdapiControlsTest, NeutralValuesPass) {
  const Json changes[] = {
      {{"module", "none"}, {"processor_res", 512}, {"threshold_a", 64}, {"threshold_b", 64}, {"pixel_perfect", true}},
      {{"module", "None"}, {"lowvram", true}, {"low_vram", false}, {"save_detected_map", true}, {"hr_option", "Both"}},
      {{"module", nullptr}, {"control_mode", 0}, {"guessmode", false}, {"mask", nullptr}, {"mask_image", ""}},
      {{"control_mode", "Balanced"}, {"resize_mode", 0}, {"advanced_weighting", nullptr}, {"pulid_mode", "Fidelity"}},
      {{"resize_mode", "Just Resize"}, {"union_control_type", "Unknown"}, {"ipadapter_input", nullptr}},
      {{"resize_mode", 1}, {"input_mode", "simple"}, {"is_ui", false}, {"batch_images", ""}, {"loopback", false}},
      {{"resize_mode", "Resize and Fill"}, {"effective_region_mask", nullptr}, {"inpaint_crop_input_image", true}},
  };
  for (const Json& change : changes) {
    const MappedImageRequest mapped = Map({Unit(change)});
    EXPECT_EQ(Faults(mapped), "") << change;
    EXPECT_EQ(mapped.request.controls.size(), 1u);
  }
}

TEST(SdapiControlsTest, WhatWouldChangeThePictureIsRefusedByName) {
  struct Case {
    Json change;
    const char* fault;  // behind the unit's path
  };
  const Case cases[] = {
      {{{"module", "canny"}}, "module is \"canny\", which is not supported; allowed is \"none\""},
      {{{"module", 1}}, "module is 1"},
      {{{"control_mode", 1}}, "control_mode is 1, which is not supported; allowed are Balanced"},
      {{{"control_mode", "ControlNet is more important"}}, "control_mode is \"ControlNet is more important\""},
      {{{"guessmode", true}}, "guessmode is not supported"},
      {{{"mask", "AAAA"}}, "mask is not supported"},
      {{{"mask_image", "AAAA"}}, "mask_image is not supported"},
      {{{"effective_region_mask", "AAAA"}}, "effective_region_mask is not supported"},
      {{{"advanced_weighting", {0, 0}}}, "advanced_weighting is not supported"},
      {{{"ipadapter_input", {"AAAA"}}}, "ipadapter_input is not supported"},
      {{{"hr_option", "Low res only"}}, "hr_option is \"Low res only\""},
      {{{"input_mode", "merge"}}, "input_mode is \"merge\""},
      {{{"batch_images", "/pictures"}}, "batch_images is not supported"},
      {{{"model", nullptr}}, "model is missing"},
      {{{"model", "None"}}, "model is missing"},
      {{{"model", 7}}, "model is 7; it must be the name of a ControlNet or an image prompt"},
      {{{"image", nullptr}}, "image is missing"},
      {{{"image", 7}}, "image is 7; allowed are an image's bytes in base64"},
      {{{"image", "no base64!"}}, "image is not base64"},
      {{{"image", {{"mask", "AAAA"}}}}, "image has a mask"},
      {{{"input_image", "AAAA"}}, "input_image is another name of image"},
      {{{"weight", "much"}}, "weight is \"much\"; it must be a number"},
      {{{"guidance_start", true}}, "guidance_start is true; it must be a number"},
      {{{"union_control_type", "Doodle"}}, "union_control_type is \"Doodle\"; allowed are OpenPose, Depth"},
      {{{"union_control_type", 3}}, "union_control_type is 3"},
      {{{"resize_mode", 3}}, "resize_mode is 3, which is not supported; allowed are Just Resize, Crop and Resize"},
      {{{"resize_mode", "Crop and Resize"}, {"image", absl::Base64Escape(Picture(64, 32))}},
       "resize_mode is \"Crop and Resize\", which is not supported for a picture of 64x32 and an image of 64x64"},
  };
  for (const Case& c : cases) {
    const std::string faults = Faults(Map({Unit(), Unit(c.change)}));
    EXPECT_THAT(faults, HasSubstr(absl::StrCat("alwayson_scripts.controlnet.args[1].", c.fault))) << c.change;
  }
  EXPECT_EQ(Faults(Map({Unit({{"resize_mode", 1}, {"image", absl::Base64Escape(Picture(32, 32))}})})), "")
      << "of the same shape";
}

TEST(SdapiControlsTest, AUnitWithAnImagePromptsModuleIsAnImagePrompt) {
  const Json prompt = Unit({{"module", "ip-adapter_clip_sdxl_plus_vith"}, {"model", "style"}, {"weight", 0.5}});
  const MappedImageRequest mapped = Map({prompt, Unit(), Unit({{"module", "IP-Adapter-Auto"}, {"guidance_end", 1}})});
  EXPECT_EQ(Faults(mapped), "");
  ASSERT_EQ(mapped.request.controls.size(), 1u);
  ASSERT_EQ(mapped.request.image_prompts.size(), 2u);
  EXPECT_EQ(mapped.request.image_prompts[0].name, "style");
  EXPECT_EQ(mapped.request.image_prompts[0].images, std::vector<std::string>{Picture()});
  EXPECT_EQ(mapped.request.image_prompts[0].scale, 0.5);
  EXPECT_EQ(mapped.request.image_prompts[1].scale, std::nullopt);
  for (const auto& [change, fault] :
       {std::pair<Json, std::string>({{"guidance_end", 0.5}}, "guidance_end is 0.5, which"),
        {{{"guidance_start", 0.5}}, "guidance_start is 0.5, which"},
        {{{"control_mode", 2}}, "control_mode is 2, which"},
        {{{"module", "ip-adapter_face_id"}}, "module is \"ip-adapter_face_id\", which"}}) {
    Json unit = prompt;
    unit.update(change);
    EXPECT_THAT(Faults(Map({unit})), HasSubstr("alwayson_scripts.controlnet.args[0]." + fault));
  }
}

TEST(SdapiControlsTest, ListsNameWhatUnitsMayName) {
  std::vector<AdapterInfo> controls(2), prompts(2);
  controls[0].name = "lines";
  controls[1].name = prompts[0].name = "both";
  prompts[1].name = "style";
  EXPECT_EQ(Json::parse(ControlModelsJson(controls, prompts)), (Json{{"model_list", {"both", "lines", "style"}}}));
  const Json modules = Json::parse(ControlModulesJson()).at("module_list");
  for (const Json& module : modules) {
    EXPECT_EQ(Faults(Map({Unit({{"module", module}})})), "") << module;
  }
  EXPECT_EQ(modules.size(), 6u);
}

TEST(SdapiControlsTest, ArgumentsThatAreNoUnits) {
  EXPECT_EQ(Faults(MapArguments("canny")), "alwayson_scripts.controlnet.args is not a list of units");
  EXPECT_EQ(Faults(Map({Unit(), "canny"})), "alwayson_scripts.controlnet.args[1] is \"canny\"; it must be an object");
  EXPECT_EQ(Faults(Map(std::vector<Json>(101, Unit()))),
            "alwayson_scripts.controlnet.args has 101 units; allowed are at most 100");
}

// The engine's checks, in this API's words.
TEST(SdapiControlsTest, ErrorsOfControlsNameTheUnit) {
  const auto refused = [](const std::vector<Json>& units) {
    MappedImageRequest mapped = Map(units);
    EXPECT_EQ(Faults(mapped), "");
    RequestLimits limits;
    limits.native_size = 64;
    return std::string(InSdapiWords(ValidateImageRequest(mapped.request, limits).status()).message());
  };
  EXPECT_THAT(refused({Unit(), Unit({{"weight", 5}})}),
              HasSubstr("alwayson_scripts.controlnet.args (weight of ControlNet unit 2) is 5; allowed are 0 to 4"));
  EXPECT_THAT(refused({Unit({{"guidance_start", 0.5}, {"guidance_end", 0.25}})}),
              HasSubstr("(guidance_start of ControlNet unit 1) is 0.5; it must be below guidance_end, which is 0.25"));
  EXPECT_THAT(refused(std::vector<Json>(5, Unit())), HasSubstr("alwayson_scripts.controlnet.args has 5 entries"));
  EXPECT_THAT(refused({Unit({{"image", "AAAA"}})}), HasSubstr("(image of ControlNet unit 1)"));
  const Json prompt = Unit({{"module", "ip-adapter-auto"}, {"image", "AAAA"}, {"weight", 5}});
  EXPECT_THAT(refused({Unit(), prompt}), HasSubstr("(image of image prompt unit 1)"));
  EXPECT_THAT(refused({Unit(), prompt}), HasSubstr("(weight of image prompt unit 1) is 5; allowed are 0 to 4"));
}

TEST(SdapiControlsTest, TheAnswersParametersHaveNoPictures) {
  const Json request = {{"alwayson_scripts", {{"ControlNet", {{"args", {Unit({{"weight", 0.5}}), false}}}}, {"x", 1}}}};
  sdapi::v1::GenerateRequest message;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(request.dump(), &message).ok());
  DropControlPictures(*message.mutable_alwayson_scripts());
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(ToParameters(message), &json).ok());
  const Json scripts = Json::parse(json).at("alwayson_scripts");
  EXPECT_EQ(scripts, (Json{{"ControlNet", {{"args", {Json{{"model", "edges"}, {"weight", 0.5}}, false}}}}, {"x", 1}}));
}

}  // namespace
}  // namespace hotlora
