// What happens to requests when memory is short, seen from outside of the engine.

#include <algorithm>
#include <memory>
#include <string>

#include <gmock/gmock.h>

#include "src/base/error_details.h"
#include "src/image/image_encoder.h"
#include "src/scheduler/memory_admission.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;
// A pixel takes 1 MiB. A step of one image of 16x16 needs 640 MiB and head-room, one of two twice that.
constexpr int64_t kRoomForOne = 1024 * kMiB, kRoomForTwo = 2048 * kMiB;

class MemoryTest : public EngineTest {
 protected:
  using Listener = std::shared_ptr<RecordingListener>;

  void SetUp() override {
    {
      absl::MutexLock lock(&pipeline_->mu);
      pipeline_->pixel_bytes = kMiB;
    }
    controls_->AddControl("lines");
    EngineTest::SetUp();
    SetAvailable(kRoomForOne);
  }
  void SetAvailable(int64_t bytes) {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->available_memory = bytes;
  }
  static ImageRequest Sized(const std::string& id, uint32_t width, uint32_t height) {
    ImageRequest request = Request(id);
    request.width = width;
    request.height = height;
    return request;
  }
  static void ExpectOutOfMemory(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY") << status;
  }
  // A request of 16x16 pixels with a control.
  ImageRequest Controlled(const std::string& id) {
    ImageRequest request = Request(id);
    request.controls.emplace_back();
    request.controls[0].name = "lines";
    request.controls[0].image = Picture();
    return request;
  }
  static std::string Picture() {
    const RgbImage picture{16, 16, std::vector<uint8_t>(size_t{16} * 16 * 3)};
    return *EncodeImage(picture, ImageFormat::kPng, 90, "");
  }
  // Of images of any size, from now on.
  void SetControlBytes(const ControlBytes& bytes) {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->control_bytes = bytes;
  }
  uint32_t LargestPlan() {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->largest_plan;
  }
};

TEST_F(MemoryTest, RefusesAtOnceASizeThatDoesNotFitAlone) {
  auto listener = std::make_shared<RecordingListener>();
  const absl::Status status = Submit(Sized("large", 32, 16), listener).status();
  ExpectOutOfMemory(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("32x16 needs 1536 MiB"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1024 MiB are available"));
  EXPECT_EQ(listener->dones(), 0);
  ExpectNothingHeld();
  Run(Request("small"));
  SetAvailable(kRoomForTwo);
  Run(Sized("large", 32, 16));
}

TEST_F(MemoryTest, WhatARowKeepsIsNeededBeforeItsFirstStep) {
  pipeline_->kept_bytes = 400 * kMiB;
  ExpectOutOfMemory(Enter(Request("long prompts"))->AwaitDone());
  ExpectNothingHeld();
  pipeline_->kept_bytes = 200 * kMiB;
  Run(Request("shorter"));
  pipeline_->kept_bytes = 0;
  Run(Request("small"));
}

TEST_F(MemoryTest, ImagesRunOneAfterTheOtherIfOneFits) {
  const Listener listener = Run(Request("four", {}, 4));
  EXPECT_EQ(listener->images().size(), 4u);
  EXPECT_EQ(LargestPlan(), 1u);
  SetAvailable(kRoomForTwo);
  Run(Request("again", {}, 4));
  EXPECT_EQ(LargestPlan(), 2u);
  ExpectNothingHeld();
}

TEST_F(MemoryTest, ARowJoinsOnceThereIsRoom) {
  pipeline_->Hold();
  const Listener first = Enter(Request("first"));
  pipeline_->AwaitHeld();
  ImageRequest request = Request("second");
  request.seed = 9;
  const Listener second = Enter(request);
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan().size(), 1u);
  EXPECT_TRUE(HasMetric("hotlora_batch_regroup_total{reason=\"memory\"} 1"));
  SetAvailable(kRoomForTwo);
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan().size(), 2u);
  pipeline_->LetGo();
  EXPECT_TRUE(first->AwaitDone().ok());
  EXPECT_TRUE(second->AwaitDone().ok());
  ExpectNothingHeld();
}

TEST_F(MemoryTest, RowsPartIfTheirStepNoLongerFits) {
  SetAvailable(kRoomForTwo);
  pipeline_->Hold();
  const Listener listener = Enter(Request("two", {}, 2));
  pipeline_->AwaitHeld();
  EXPECT_EQ(pipeline_->LastPlan().size(), 2u);
  SetAvailable(kRoomForOne);
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan().size(), 1u);
  pipeline_->LetGo();
  EXPECT_TRUE(listener->AwaitDone().ok());
  EXPECT_EQ(listener->images().size(), 2u);
}

TEST_F(MemoryTest, EndsARequestForWhichThereIsNoRoomWhenItIsItsTurn) {
  pipeline_->Hold();
  const Listener running = Enter(Request("running"));
  pipeline_->AwaitHeld();
  const Listener waiting = Enter(Request("waiting", {{"a", 1.0, {}}}));
  SetAvailable(kMiB);
  pipeline_->LetGo();
  ExpectOutOfMemory(running->AwaitDone());
  ExpectOutOfMemory(waiting->AwaitDone());
  ExpectNothingHeld();
  SetAvailable(kRoomForOne);
  Run(Request("next"));
}

TEST_F(MemoryTest, DoesNotDecodeWithoutRoom) {
  pipeline_->Hold();
  const Listener listener = Enter(Request("one"));
  pipeline_->AwaitHeld();
  pipeline_->StepOnce();
  pipeline_->StepOnce();  // the last of three is held
  SetAvailable(kMiB);
  pipeline_->LetGo();
  const absl::Status status = listener->AwaitDone();
  ExpectOutOfMemory(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("decoding an image at 16x16"));
  EXPECT_TRUE(listener->images().empty());
  ExpectNothingHeld();
  SetAvailable(kRoomForOne);
  Run(Request("next"));
}

TEST_F(MemoryTest, DecodesBandByBandWhatWouldNotFit) {
  const auto tiled_decodes = [this] {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->tiled_decodes;
  };
  ImageRequest request = Sized("one", 32, 16);
  request.guidance_scale = 1.0;
  // As much as the first step and the first decode of this size need, without the answer's 32 * 16 * 3 bytes, twice.
  constexpr int64_t kRoom = 640 * kMiB + MemoryAdmission::kFirstHeadRoom;
  SetAvailable(kRoom);
  EXPECT_EQ(Run(request)->images().size(), 1u);
  EXPECT_EQ(tiled_decodes(), 1u);
  EXPECT_TRUE(HasMetric("hotlora_vae_tiled_total{work=\"decode\"} 1"));
  SetAvailable(kRoom + 2 * 32 * 16 * 3);
  request.request_id = "two";
  Run(request);
  EXPECT_EQ(tiled_decodes(), 1u);
  ExpectNothingHeld();
}

TEST_F(MemoryTest, DoesNotEncodeAnInitImageWithoutRoom) {
  using Call = FakePipeline::Levers::Call;
  pipeline_->Hold(Call::kDecode);
  const Listener first = Enter(Request("first"));
  pipeline_->AwaitHeld(Call::kDecode);
  ImageRequest request = Request("second");
  request.init_image = Picture();
  request.strength = 1.0;
  const Listener second = Enter(request);
  SetAvailable(kMiB);
  pipeline_->LetGo();
  EXPECT_TRUE(first->AwaitDone().ok());
  const absl::Status status = second->AwaitDone();
  ExpectOutOfMemory(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("encoding an image at 16x16"));
  ExpectNothingHeld();
  SetAvailable(kRoomForOne);
  Run(request);
}

// A step of 16x16 pixels under guidance takes 640 MiB with its margin, 256 MiB are head-room at first.
TEST_F(MemoryTest, RefusesAtOnceControlsThatDoNotFitAlone) {
  SetControlBytes({/*hint=*/8 * kMiB, /*embedding=*/16 * kMiB, /*outputs=*/64 * kMiB, /*text=*/0});
  auto listener = std::make_shared<RecordingListener>();
  const absl::Status status = Submit(Controlled("controlled"), listener).status();
  ExpectOutOfMemory(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a denoising step at 16x16 needs 1064 MiB"));
  ExpectNothingHeld();
  Run(Request("plain"));
  SetAvailable(1064 * kMiB);
  Run(Controlled("controlled"));
  ExpectNothingHeld();
}

TEST_F(MemoryTest, AnImageWithControlsWaitsUntilThereIsRoomForThem) {
  SetControlBytes({/*hint=*/0, /*embedding=*/0, /*outputs=*/300 * kMiB, /*text=*/0});
  SetAvailable(kRoomForTwo);
  pipeline_->Hold();
  ImageRequest request = Request("first");
  request.steps = 100;
  const Listener first = Enter(request);
  pipeline_->AwaitHeld();
  const Listener second = Enter(Controlled("second"));
  while (!HasMetric("hotlora_batch_regroup_total{reason=\"memory\"} 1") && !first->IsDone()) {
    pipeline_->StepOnce();
  }
  EXPECT_EQ(LargestPlan(), 1u);
  SetAvailable(2 * kRoomForTwo);
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan().size(), 2u);
  LetGoAndExpectOk({first, second});
}

TEST_F(MemoryTest, DoesNotStartWithoutHeadRoom) {
  engine_ = nullptr;
  SetAvailable(kMiB);
  engine_ =
      Engine::Create({}, std::make_unique<FakePipeline>(pipeline_), std::make_unique<FakeAdapterStore>(store_),
                     std::make_unique<FakeAdapterStore>(controls_), std::make_unique<FakeEmbeddingStore>(), &metrics_);
  ExpectOutOfMemory(engine_->WarmUp());
}

}  // namespace
}  // namespace hotlora
