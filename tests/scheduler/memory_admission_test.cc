#include "src/scheduler/memory_admission.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/fakes/fake_pipeline.h"

namespace hotlora {
namespace {

using Kind = MemoryWork::Kind;
using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

class MemoryAdmissionTest : public testing::Test {
 protected:
  void SetAvailable(int64_t bytes) {
    absl::MutexLock lock(&levers_->mu);
    levers_->available_memory = bytes;
  }

  // Work that takes `peak`, while there is plenty.
  void Measure(const MemoryWork& work, int64_t peak) {
    SetAvailable(int64_t{1} << 40);
    EXPECT_TRUE(Take(work, peak).ok());
  }
  absl::Status Take(const MemoryWork& work, int64_t peak = 0) {
    return admission_.Call(work, [peak] {
      FakePipeline::taken_bytes = peak;
      return absl::OkStatus();
    });
  }

  // A job of 64x64 pixels whose tiled form would take more than the whole.
  ImageJob JobWithoutTiles() {
    absl::MutexLock lock(&levers_->mu);
    levers_->pixel_bytes = kMiB;
    ImageJob job;
    job.denoise.width = job.denoise.height = 64;
    return job;
  }

  void ExpectNeed(const MemoryWork& work, int64_t bytes) {
    SetAvailable(bytes);
    EXPECT_TRUE(admission_.FitsNow(work)) << bytes;
    SetAvailable(bytes - 1);
    EXPECT_FALSE(admission_.FitsNow(work)) << bytes;
  }

  std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  FakePipeline pipeline_{levers_};
  Metrics metrics_;
  MemoryAdmission admission_{&pipeline_, &metrics_};
};

constexpr int64_t kFirst = MemoryAdmission::kFirstHeadRoom, kLater = MemoryAdmission::kHeadRoom;

TEST_F(MemoryAdmissionTest, KnowsWhatASizeTook) {
  const MemoryWork step{Kind::kStep, 64, 64, 2};
  ExpectNeed(step, kFirst);  // nothing is known of it
  Measure(step, 100 * kMiB);
  ExpectNeed(step, 125 * kMiB + kLater);
  Measure(step, 60 * kMiB);
  ExpectNeed(step, 125 * kMiB + kLater);
  Measure(step, 200 * kMiB);
  ExpectNeed(step, 250 * kMiB + kLater);
}

TEST_F(MemoryAdmissionTest, ImagePromptsNeedNoLessThanTheirShapesSay) {
  const auto work = [](size_t pictures, int64_t encoding) {
    ImagePromptInputs inputs;
    inputs.prompts.resize(1);
    inputs.prompts[0].pictures.resize(pictures);
    return ImagePromptWork(inputs, {/*kept=*/30 * kMiB, encoding});
  };
  ExpectNeed(work(2, 100 * kMiB), 155 * kMiB + kFirst);
  Measure(work(2, 100 * kMiB), 90 * kMiB);
  ExpectNeed(work(2, 100 * kMiB), 155 * kMiB + kLater);
  ExpectNeed(work(2, 200 * kMiB), 280 * kMiB + kLater);  // another net
  Measure(work(2, 100 * kMiB), 190 * kMiB);
  ExpectNeed(work(2, 100 * kMiB), 230 * kMiB + kLater);
  ExpectNeed(work(1, 100 * kMiB), 155 * kMiB + kFirst);
}

TEST_F(MemoryAdmissionTest, WhatACallKeepsIsNoMatterOfItsSize) {
  const MemoryWork later{Kind::kStep, 64, 64, 2};
  MemoryWork first = later;
  first.kept_bytes = 50 * kMiB;
  Measure(first, 150 * kMiB);  // of which 50 stay
  ExpectNeed(later, 125 * kMiB + kLater);
  ExpectNeed(first, 175 * kMiB + kLater);
}

TEST_F(MemoryAdmissionTest, WorkThatFailsTellsNothingAndHoldsNothing) {
  const MemoryWork step{Kind::kStep, 64, 64, 2};
  SetAvailable(int64_t{1} << 40);
  EXPECT_FALSE(admission_.Call(step, [] { return absl::InternalError("broken"); }).ok());
  EXPECT_THROW(admission_.Call(step, []() -> absl::Status { throw std::bad_alloc(); }).IgnoreError(), std::bad_alloc);
  ExpectNeed(step, kFirst);
}

TEST_F(MemoryAdmissionTest, EstimatesASizeByTheNearestOne) {
  Measure({Kind::kStep, 64, 64, 1}, 64 * kMiB);
  Measure({Kind::kStep, 128, 128, 1}, 160 * kMiB);
  ExpectNeed({Kind::kStep, 64, 64, 2}, 160 * kMiB + kFirst);    // twice the first
  ExpectNeed({Kind::kStep, 32, 32, 1}, 20 * kMiB + kFirst);     // a quarter of it
  ExpectNeed({Kind::kStep, 256, 128, 2}, 800 * kMiB + kFirst);  // four times the second
  ExpectNeed({Kind::kDecode, 64, 64, 1}, kFirst);               // of another kind
}

TEST_F(MemoryAdmissionTest, AnInitImageIsTakenToNeedWhatADecodeDoes) {
  Measure({Kind::kDecode, 64, 64}, 64 * kMiB);
  ExpectNeed({Kind::kInit, 128, 64}, 160 * kMiB + kFirst);
  Measure({Kind::kInit, 128, 64}, 40 * kMiB);
  ExpectNeed({Kind::kInit, 128, 64}, 50 * kMiB + kLater);
}

TEST_F(MemoryAdmissionTest, AnswersNeedRoomToo) {
  ImageJob job;
  job.denoise.width = 1024;
  job.denoise.height = 512;
  job.num_images = 4;
  ExpectNeed(DecodeWork(job), kFirst + 12 * kMiB);  // pixels of 3 bytes, twice
}

TEST_F(MemoryAdmissionTest, LongPromptsNeedMore) {
  Prompts prompts;
  Measure(TextWork(prompts), 8 * kMiB);
  prompts.prompt = std::string(750, 'x');
  ExpectNeed(TextWork(prompts), 10 * kMiB + kLater);  // cut off at one chunk
  prompts.long_prompts = true;
  ExpectNeed(TextWork(prompts), 110 * kMiB + kFirst);
}

TEST_F(MemoryAdmissionTest, DoesNotBeginWhatDoesNotFit) {
  const MemoryWork step{Kind::kStep, 64, 32, 1};
  Measure(step, 400 * kMiB);
  SetAvailable(500 * kMiB);
  bool called = false;
  const absl::Status status = admission_.Call(step, [&called] {
    called = true;
    return absl::OkStatus();
  });
  EXPECT_FALSE(called);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY");
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(HasSubstr("64x32"), HasSubstr("596 MiB"), HasSubstr("500 MiB are available"),
                             HasSubstr("ask for a smaller image")));
  SetAvailable(596 * kMiB);
  EXPECT_TRUE(Take(step).ok());
}

TEST_F(MemoryAdmissionTest, GivesCachesBackBeforeItRefuses) {
  const MemoryWork step{Kind::kStep, 64, 64, 1};
  Measure(step, 400 * kMiB);
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->available_memory = 500 * kMiB;
    levers_->cached_memory = 96 * kMiB;
  }
  EXPECT_TRUE(Take(step).ok());
}

TEST_F(MemoryAdmissionTest, ChecksAllThatAJobGoesThrough) {
  ImageJob job = JobWithoutTiles();
  Measure(TextWork(job.prompts), 1 * kMiB);
  Measure(StepWork(job.denoise), 100 * kMiB);
  Measure(DecodeWork(job), 200 * kMiB);
  Measure(InitWork(job.denoise), 300 * kMiB);
  SetAvailable(200 * kMiB);
  EXPECT_THAT(std::string(admission_.CheckAlone(job).message()), HasSubstr("step at 64x64 needs 221 MiB"));
  SetAvailable(300 * kMiB);
  EXPECT_THAT(std::string(admission_.CheckAlone(job).message()), HasSubstr("decoding an image at 64x64"));
  SetAvailable(400 * kMiB);
  EXPECT_TRUE(admission_.CheckAlone(job).ok());
  job.init_image = "picture";
  EXPECT_THAT(std::string(admission_.CheckAlone(job).message()), HasSubstr("encoding an image at 64x64"));
}

TEST_F(MemoryAdmissionTest, ChecksBothPassesAtOnce) {
  ImageJob job = JobWithoutTiles();
  Measure(TextWork(job.prompts), 1 * kMiB);
  Measure(StepWork(job.denoise), 10 * kMiB);
  Measure(DecodeWork(job), 20 * kMiB);
  job.hires = job.denoise;
  job.hires->width = job.hires->height = 128;
  Measure(StepWork(*job.hires), 200 * kMiB);
  Measure(InitWork(*job.hires), 300 * kMiB);
  Measure(DecodeWork(job), 400 * kMiB);
  SetAvailable(400 * kMiB);
  EXPECT_THAT(std::string(admission_.CheckAlone(job).message()), HasSubstr("encoding an image at 128x128"));
  SetAvailable(600 * kMiB);
  EXPECT_TRUE(admission_.CheckAlone(job).ok());
  Measure(StepWork(*job.hires), 900 * kMiB);
  SetAvailable(600 * kMiB);
  EXPECT_THAT(std::string(admission_.CheckAlone(job).message()), HasSubstr("step at 128x128"));
}

// Before a step with controls was measured, it is what one without them takes, and the outputs of their nets.
TEST_F(MemoryAdmissionTest, AStepNeedsTheOutputsOfItsControls) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->control_bytes.outputs = 10 * kMiB;
    levers_->control_bytes.text = 2 * kMiB;
  }
  const MemoryWork plain{Kind::kStep, 64, 64, 2};
  MemoryWork controlled = plain, larger = {Kind::kStep, 128, 64, 2};
  controlled.control_rows = 4;
  larger.control_rows = 4;
  Measure(plain, 100 * kMiB);
  ExpectNeed(controlled, 180 * kMiB + kFirst);
  ExpectNeed(larger, 305 * kMiB + kFirst);
  Measure(controlled, 120 * kMiB);
  ExpectNeed(controlled, 150 * kMiB + kLater);
  ExpectNeed(plain, 125 * kMiB + kLater);
  ExpectNeed({Kind::kStep, 128, 64, 2}, 250 * kMiB + kFirst);  // scaled from the step without controls
}

TEST_F(MemoryAdmissionTest, EmbeddingPicturesNeedsWhatTheirShapesSay) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->control_bytes = {/*hint=*/4 * kMiB, /*embedding=*/20 * kMiB, /*outputs=*/0, /*text=*/0};
  }
  DenoiseOptions options;
  options.width = options.height = 64;
  ExpectNeed(HintWork(options, 3), 40 * kMiB + kFirst);
  Measure(HintWork(options, 3), 20 * kMiB);
  ExpectNeed(HintWork(options, 3), 25 * kMiB + kLater);
}

TEST_F(MemoryAdmissionTest, AJobsControlsMustFitAlone) {
  ImageJob job = JobWithoutTiles();
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->control_bytes = {/*hint=*/50 * kMiB, /*embedding=*/30 * kMiB, /*outputs=*/100 * kMiB, /*text=*/0};
  }
  Measure(TextWork(job.prompts), 1 * kMiB);
  Measure(StepWork(job.denoise), 10 * kMiB);
  Measure(DecodeWork(job), 10 * kMiB);
  const auto refused_at = [&](int64_t available) {
    SetAvailable(available);
    return std::string(admission_.CheckAlone(job).message());
  };
  EXPECT_EQ(refused_at(120 * kMiB), "");
  job.controls.resize(2);
  // Two rows under guidance with two controls each, and two hints: 1.25 * (10 + 400) + 100 + 256 MiB.
  EXPECT_THAT(refused_at(868 * kMiB), HasSubstr("a denoising step at 64x64 needs 869 MiB"));
  EXPECT_EQ(refused_at(869 * kMiB), "");
  EXPECT_THAT(refused_at(400 * kMiB), HasSubstr("embedding a control picture at 64x64 needs 419 MiB"));
  // The controls are in force one after the other.
  job.controls[0].range.end = 0.5;
  job.controls[1].range.start = 0.5;
  EXPECT_EQ(refused_at(619 * kMiB), "");
  EXPECT_THAT(refused_at(618 * kMiB), HasSubstr("a denoising step at 64x64 needs 619 MiB"));
}

TEST_F(MemoryAdmissionTest, WorkWaitsForThatOfAnotherThread) {
  const MemoryWork step{Kind::kStep, 64, 64, 1}, decode{Kind::kDecode, 64, 64};
  Measure(step, 400 * kMiB);
  Measure(decode, 400 * kMiB);
  SetAvailable(700 * kMiB);
  absl::Notification decoding, stepped;
  std::thread other([&] {
    const absl::Status status = admission_.Call(decode, [&] {
      decoding.Notify();
      EXPECT_FALSE(admission_.FitsNow(step));
      EXPECT_FALSE(stepped.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  });
  decoding.WaitForNotification();
  const absl::Status status = admission_.Call(step, [&] {
    stepped.Notify();
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  other.join();
}

TEST_F(MemoryAdmissionTest, WorkOfTwoThreadsRunsTogetherIfItFits) {
  const MemoryWork step{Kind::kStep, 64, 64, 1}, decode{Kind::kDecode, 64, 64};
  Measure(step, 400 * kMiB);
  Measure(decode, 400 * kMiB);
  SetAvailable(1000 * kMiB + kLater);
  absl::Notification decoding, stepped;
  std::thread other([&] {
    EXPECT_TRUE(admission_
                    .Call(decode,
                          [&] {
                            decoding.Notify();
                            stepped.WaitForNotification();
                            return absl::OkStatus();
                          })
                    .ok());
  });
  decoding.WaitForNotification();
  EXPECT_TRUE(Take(step).ok());
  stepped.Notify();
  other.join();
}

TEST_F(MemoryAdmissionTest, WhileOthersRunAJobIsJudgedByWhatWasThereBefore) {
  ImageJob job;
  job.denoise.width = job.denoise.height = 64;
  const MemoryWork step = StepWork(job.denoise);
  Measure(step, 400 * kMiB);
  SetAvailable(700 * kMiB);
  EXPECT_TRUE(admission_
                  .Call(step,
                        [&] {
                          SetAvailable(300 * kMiB);  // the step has the rest
                          EXPECT_TRUE(admission_.CheckAlone(job).ok());
                          return absl::OkStatus();
                        })
                  .ok());
  EXPECT_FALSE(admission_.CheckAlone(job).ok());
}

TEST_F(MemoryAdmissionTest, TilesWhatDoesNotFitAsAWhole) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->pixel_bytes = 100 * kMiB / (64 * 64);  // tiled 50 MiB
  }
  ImageJob job;
  job.denoise.width = job.denoise.height = 64;
  job.init_image = "picture";
  std::vector<VaeForm> forms;
  const auto take = [&](const MemoryWork& work, int64_t whole_peak) {
    return admission_.CallVae(work, [&](VaeForm form) {
      forms.push_back(form);
      FakePipeline::taken_bytes = form == VaeForm::kTiled ? 20 * kMiB : whole_peak;
      return absl::OkStatus();
    });
  };
  MemoryWork decode = DecodeWork(job), init = InitWork(job.denoise);
  decode.answer_bytes = 0;
  SetAvailable(int64_t{1} << 40);
  EXPECT_TRUE(take(decode, 800 * kMiB).ok());
  EXPECT_TRUE(take(init, 800 * kMiB).ok());
  EXPECT_THAT(metrics_.Render(), HasSubstr("hotlora_vae_tiled_total{work=\"decode\"} 0\n"));

  SetAvailable(1000 * kMiB + kLater - 1);  // a byte too little for the whole picture
  EXPECT_TRUE(admission_.CheckAlone(job).ok());
  EXPECT_TRUE(take(decode, 0).ok());
  EXPECT_TRUE(take(init, 0).ok());
  EXPECT_EQ(forms, std::vector<VaeForm>({VaeForm::kWhole, VaeForm::kWhole, VaeForm::kTiled, VaeForm::kTiled}));
  EXPECT_THAT(metrics_.Render(), HasSubstr("hotlora_vae_tiled_total{work=\"decode\"} 1\n"));
  EXPECT_THAT(metrics_.Render(), HasSubstr("hotlora_vae_tiled_total{work=\"encode\"} 1\n"));

  SetAvailable(25 * kMiB + kLater);  // what the tiled form has taken, with its margin
  EXPECT_TRUE(take(decode, 0).ok());
  SetAvailable(25 * kMiB + kLater - 1);
  const absl::Status status = take(decode, 0);
  EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY");
  EXPECT_THAT(std::string(status.message()), HasSubstr("decoding an image at 64x64 needs 121 MiB"));
  EXPECT_EQ(forms.size(), 5u);
  SetAvailable(1000 * kMiB + kLater);  // it fits again, so it is decoded as ever
  EXPECT_TRUE(take(decode, 0).ok());
  EXPECT_EQ(forms.back(), VaeForm::kWhole);
}

TEST_F(MemoryAdmissionTest, TakesThePipelinesWordForTheFirstTiledPicture) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->pixel_bytes = 800 * kMiB / (64 * 64);  // tiled 400 MiB, 500 with its margin
  }
  const MemoryWork decode{Kind::kDecode, 64, 64};
  Measure(decode, 800 * kMiB);
  SetAvailable(500 * kMiB + kFirst - 1);
  EXPECT_FALSE(Take(decode).ok());
  SetAvailable(500 * kMiB + kFirst);
  EXPECT_TRUE(Take(decode).ok());
}

TEST_F(MemoryAdmissionTest, ForgetsTheSizeUsedLongestAgo) {
  const MemoryWork first{Kind::kStep, 8, 8, 1};
  Measure(first, 1 * kMiB);
  for (uint32_t i = 1; i < MemoryAdmission::kSizes; ++i) {
    Measure({Kind::kStep, 8 + 8 * i, 8, 1}, 1 * kMiB);
  }
  ExpectNeed(first, kMiB * 5 / 4 + kLater);
  Measure({Kind::kStep, 8, 16, 4}, 1 * kMiB);
  SetAvailable(kMiB * 5 / 4 + kLater);
  EXPECT_FALSE(admission_.FitsNow(first));
}

TEST_F(MemoryAdmissionTest, TellsWhatIsThereAndWhatWasNeeded) {
  const MemoryWork step{Kind::kStep, 64, 64, 1};
  Measure(step, 400 * kMiB);
  SetAvailable(700 * kMiB);
  EXPECT_TRUE(Take(step).ok());
  EXPECT_THAT(metrics_.Render(), HasSubstr("\nhotlora_work_memory_available_bytes 734003200\n"));
  EXPECT_THAT(metrics_.Render(), HasSubstr("\nhotlora_work_memory_needed_bytes 624951296\n"));  // 500 + 96 MiB
}

}  // namespace
}  // namespace hotlora
