// Image prompts of requests are lent together with an image encoder that fits, encoded once, and given back.

#include <functional>
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

class ImagePromptLeasesTest : public EngineTest {
 protected:
  void SetUp() override {
    controls_->AddControl("style");
    controls_->AddImagePrompt("style");
    controls_->AddImagePrompt("other", /*projection_dim=*/21);
    EngineTest::SetUp();
  }

  static ImageRequest WithPrompts(const std::vector<std::string>& names) {
    ImageRequest request = Request("one");
    for (const std::string& name : names) {
      ImagePromptRef& prompt = request.image_prompts.emplace_back();
      prompt.name = name;
      prompt.images = {
          *EncodeImage(RgbImage{24, 24, std::vector<uint8_t>(24 * 24 * 3, 99)}, ImageFormat::kPng, 90, "")};
    }
    return request;
  }

  // How many pictures each of the image prompts had that were encoded.
  std::vector<size_t> EncodedPictures() {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->image_prompt_pictures;
  }

  // Enters a request that has its pictures and waits for room; then `change` is made, with the store's mutex held, and
  // there is room.
  std::shared_ptr<RecordingListener> EnterThatWaits(const std::function<void()>& change) {
    controls_->AddImageEncoder();
    ImageRequest waits = WithPrompts({"style"});
    waits.request_id = "waits";
    pipeline_->Hold();
    const auto runs = Enter(WithPrompts({"style"}));
    pipeline_->AwaitHeld();
    const int leases = controls_->Leases();
    {
      absl::MutexLock lock(&controls_->mu);
      controls_->most_leases = leases;
    }
    const auto listener = Enter(waits);
    {
      absl::MutexLock lock(&controls_->mu);
      controls_->mu.Await(absl::Condition(
          +[](FakeAdapterStore::Levers* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return l->waits > 0; }, controls_.get()));
      change();
      controls_->most_leases = 1000;
    }
    pipeline_->LetGo();
    EXPECT_EQ(runs->AwaitDone(), absl::OkStatus());
    return listener;
  }

  // The error that an admitted request ends with.
  void ExpectRefused(const std::vector<std::string>& names, absl::StatusCode code, const std::string& reason) {
    auto listener = std::make_shared<RecordingListener>();
    const auto admission = Submit(WithPrompts(names), listener);
    ASSERT_TRUE(admission.ok()) << admission.status();
    const absl::Status status = listener->AwaitDone();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason);
    ExpectNothingHeld();
  }
};

TEST_F(ImagePromptLeasesTest, TheSummaryTellsThemAndNothingIsHeldAtTheEnd) {
  controls_->AddImageEncoder();
  ImageRequest request = WithPrompts({"style"});
  request.image_prompts[0].scale = 0.5;
  const auto listener = Run(request);
  EXPECT_EQ(listener->images().size(), 1u);
  ASSERT_EQ(listener->summary().image_prompts.size(), 1u);
  EXPECT_EQ(listener->summary().image_prompts[0].name, "style");
  EXPECT_EQ(listener->summary().image_prompts[0].scale, 0.5);
  EXPECT_EQ(listener->summary().image_prompts[0].content_sha256.size(), 64u);
  EXPECT_TRUE(listener->summary().controls.empty()) << "a ControlNet has that name too";
  ExpectNothingHeld();
}

TEST_F(ImagePromptLeasesTest, AnEncoderIsNeededThatFits) {
  ExpectRefused({"style"}, absl::StatusCode::kFailedPrecondition, "NO_IMAGE_ENCODER");
  controls_->AddImageEncoder();
  ExpectRefused({"absent"}, absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");  // the fake store's one reason
  ExpectRefused({"style", "other"}, absl::StatusCode::kFailedPrecondition, "IMAGE_ENCODER_MISMATCH");
  EXPECT_EQ(Run(WithPrompts({"style"}))->images().size(), 1u);
}

TEST_F(ImagePromptLeasesTest, TheyAreEncodedOnceForAllImagesAndPasses) {
  controls_->AddImageEncoder();
  ImageRequest request = WithPrompts({"style"});
  request.image_prompts[0].images.push_back(request.image_prompts[0].images[0]);
  request.num_images = 3;
  request.hires.emplace();
  EXPECT_EQ(Run(request)->images().size(), 3u);
  ExpectNothingHeld();
  EXPECT_EQ(EncodedPictures(), std::vector<size_t>{2});
}

// A request that waits for room after its pictures were cut for the encoder of that time. Of those that come later, one
// reads the new encoder.
TEST_F(ImagePromptLeasesTest, PicturesAreCutAgainForAnEncoderThatIsReplaced) {
  const auto listener = EnterThatWaits([this] { controls_->encoder_sees = {32, 24}; });
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->image_prompt_side, 24u);
  EXPECT_EQ(pipeline_->image_prompt_pictures, (std::vector<size_t>{1, 1}));
}

TEST_F(ImagePromptLeasesTest, AnEncoderMayDisappearMeanwhile) {
  const auto listener = EnterThatWaits([this] { controls_->adapters.erase(kImageEncoderKey); });
  EXPECT_EQ(GetErrorDetails(listener->AwaitDone()).reason, "NO_IMAGE_ENCODER");
  controls_->AddImageEncoder();
  EXPECT_EQ(Run(WithPrompts({"style"}))->images().size(), 1u);
  ExpectNothingHeld();
}

TEST_F(ImagePromptLeasesTest, RowsThatDifferInThemShareAStep) {
  controls_->AddImageEncoder();
  ImageRequest first = WithPrompts({"style"}), plain = WithPrompts({}), other = WithPrompts({"style"});
  first.steps = 100;
  plain.steps = other.steps = 100;
  plain.request_id = "plain";
  other.request_id = "other";
  other.image_prompts[0].scale = 0.3;
  pipeline_->Hold();
  std::vector<std::shared_ptr<RecordingListener>> listeners = {Enter(first)};
  pipeline_->AwaitHeld();
  EXPECT_EQ(pipeline_->live_image_prompts, 1) << "the negative control: a request that runs holds them";
  listeners.push_back(Enter(plain));
  listeners.push_back(Enter(other));
  // Their pictures are decoded meanwhile; once they are there, no step goes by without them.
  for (int step = 1; step < 90 && pipeline_->LastPlan().size() < 3; ++step) {
    absl::SleepFor(absl::Milliseconds(10));
    pipeline_->StepOnce();
  }
  EXPECT_EQ(pipeline_->LastPlan().size(), 3u);
  LetGoAndExpectOk(listeners);
}

TEST_F(ImagePromptLeasesTest, ACancelledRequestHasThemEncodedNoMore) {
  using Call = FakePipeline::Levers::Call;
  controls_->AddImageEncoder();
  pipeline_->Hold(Call::kEncode);
  const auto listener = Enter(WithPrompts({"style"}));
  pipeline_->AwaitHeld(Call::kEncode);
  engine_->Cancel("one", listener.get(), absl::CancelledError("no more"));
  pipeline_->LetGo();
  EXPECT_TRUE(absl::IsCancelled(listener->AwaitDone()));
  ExpectNothingHeld();
  EXPECT_TRUE(EncodedPictures().empty());
}

TEST_F(ImagePromptLeasesTest, WhatDoesNotFitIsNotEncoded) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  controls_->AddImageEncoder();
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->available_memory = 1024 * kMiB;
    pipeline_->image_prompt_bytes = {/*kept=*/400 * kMiB, /*encoding=*/320 * kMiB};
  }
  ExpectRefused({"style"}, absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY");
  EXPECT_TRUE(EncodedPictures().empty());
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->image_prompt_bytes = {/*kept=*/100 * kMiB, /*encoding=*/320 * kMiB};
  }
  EXPECT_EQ(Run(WithPrompts({"style"}))->images().size(), 1u);
  ExpectNothingHeld();
}

TEST_F(ImagePromptLeasesTest, PicturesThatCannotBeDecodedAreNamed) {
  controls_->AddImageEncoder();
  ImageRequest request = WithPrompts({"style"});
  std::vector<std::string>& images = request.image_prompts[0].images;
  images.push_back(images[0].substr(0, images[0].size() - 20));
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, listener).ok());
  const absl::Status status = listener->AwaitDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(GetErrorDetails(status).violations.size(), 1u);
  EXPECT_EQ(GetErrorDetails(status).violations[0].field, "image_prompts[0].images[1]");
  ExpectNothingHeld();
}

}  // namespace
}  // namespace hotlora
