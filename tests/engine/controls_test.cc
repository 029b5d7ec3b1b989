// ControlNets of requests: lent, their pictures embedded once for each pass, and given back.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/image/image_encoder.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

class ControlsTest : public EngineTest {
 protected:
  void SetUp() override {
    controls_->AddControl("lines");
    controls_->AddControl("union", 6);
    EngineTest::SetUp();
  }

  static ControlRef Control(const std::string& name, uint32_t width = 24, uint32_t height = 24) {
    const RgbImage image{width, height, std::vector<uint8_t>(size_t{width} * height * 3, 99)};
    ControlRef control;
    control.name = name;
    control.image = *EncodeImage(image, ImageFormat::kPng, 90, "");
    return control;
  }

  // The error that an admitted request ends with.
  absl::Status Refused(const ImageRequest& request) {
    auto listener = std::make_shared<RecordingListener>();
    const auto admission = Submit(request, listener);
    EXPECT_TRUE(admission.ok()) << admission.status();
    const absl::Status status = listener->AwaitDone();
    ExpectNothingHeld();
    return status;
  }
};

TEST_F(ControlsTest, PicturesAreEmbeddedOnceForAllImagesAndFreeAtTheEnd) {
  ImageRequest request = Request("one", {{"a", 1.0, {}}}, 3);
  request.controls = {Control("lines", 40, 33), Control("union"), Control("lines")};
  request.controls[0].scale = 0.5;
  request.controls[1].type = 5;
  const auto listener = Run(request);
  EXPECT_EQ(listener->images().size(), 3u);
  ASSERT_EQ(listener->summary().controls.size(), 3u);
  EXPECT_EQ(listener->summary().controls[0].name, "lines");
  EXPECT_EQ(listener->summary().controls[0].scale, 0.5);
  EXPECT_EQ(listener->summary().controls[0].content_sha256, std::string(64, 'l'));
  ExpectNothingHeld();
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->control_sizes, (std::vector<std::pair<uint32_t, uint32_t>>(3, {16, 16})));
  EXPECT_EQ(pipeline_->control_scales, (std::vector<double>{0.5, 1.0, 1.0}));
}

TEST_F(ControlsTest, ASecondPassHasThemAtItsOwnSize) {
  ImageRequest request = Request("one");
  request.controls = {Control("lines")};
  request.hires.emplace();
  const auto listener = Run(request);
  EXPECT_EQ(listener->images().size(), 1u);
  ExpectNothingHeld();
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->control_sizes, (std::vector<std::pair<uint32_t, uint32_t>>{{16, 16}, {32, 32}}));
}

TEST_F(ControlsTest, TypesAreCheckedAgainstTheirNets) {
  ImageRequest request = Request("one");
  request.controls = {Control("union"), Control("lines")};
  request.controls[1].type = 0;
  const absl::Status status = Refused(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetails(status).violations) {
    fields.push_back(violation.field);
  }
  EXPECT_EQ(fields, (std::vector<std::string>{"controls[0].type", "controls[1].type"}));
  EXPECT_EQ(Run(Request("two"))->images().size(), 1u);
}

TEST_F(ControlsTest, WhatCannotBeLentOrDecodedEndsTheRequest) {
  ImageRequest request = Request("one", {{"a", 1.0, {}}});
  request.controls = {Control("lines"), Control("absent")};
  EXPECT_EQ(Refused(request).code(), absl::StatusCode::kNotFound);
  request.controls = {Control("lines"), Control("lines")};
  request.controls[1].image.resize(request.controls[1].image.size() - 20);
  const absl::Status cut = Refused(request);
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(GetErrorDetails(cut).violations.size(), 1u);
  EXPECT_EQ(GetErrorDetails(cut).violations[0].field, "controls[1].image");
}

}  // namespace
}  // namespace hotlora
