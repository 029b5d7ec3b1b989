#include "src/scheduler/warm_up.h"

#include <pthread.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_pipeline.h"

namespace hotlora {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

std::string ThreadName() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  return name;
}

// Notes how many rows of the network each step has, and which threads decode.
class RecordingPipeline final : public FakePipeline {
 public:
  RecordingPipeline(std::shared_ptr<Levers> levers, std::string device)
      : FakePipeline(std::move(levers)), info_(FakePipeline::info()) {
    info_.device = std::move(device);
    info_.native_size = 64;
  }

  const ModelInfo& info() const override { return info_; }
  void set_native_size(uint32_t size) { info_.native_size = size; }

  absl::Status Step(const BatchPlan& plan) override {
    size_t rows = 0;
    for (const Row* row : plan.rows) {
      rows += row->denoise().cfg_at(row->steps_done(), row->total_steps()) ? 2 : 1;
    }
    step_rows.push_back(rows);
    const uint32_t width = plan.rows.front()->denoise().width;
    step_widths.push_back(width);
    if (width >= slow_from_width) {
      absl::SleepFor(step_time);
    }
    if (width > most_width) {
      return absl::ResourceExhaustedError("too large");
    }
    return FakePipeline::Step(plan);
  }

  absl::StatusOr<RgbImage> Decode(const Row& row, VaeForm form) override {
    decode_threads.push_back(ThreadName());
    return FakePipeline::Decode(row, form);
  }

  uint32_t slow_from_width = 0, most_width = UINT32_MAX;
  absl::Duration step_time;
  std::vector<size_t> step_rows;
  std::vector<uint32_t> step_widths;
  std::vector<std::string> decode_threads;

 private:
  ModelInfo info_;
};

class WarmUpTest : public testing::Test {
 protected:
  void Run(const std::string& device, uint32_t max_batch) {
    pipeline_ = std::make_unique<RecordingPipeline>(levers_, device);
    pipeline_->step_time = step_time_;
    pipeline_->slow_from_width = slow_from_width_;
    pipeline_->most_width = most_width_;
    if (native_size_ != 0) {
      pipeline_->set_native_size(native_size_);
    }
    MemoryAdmission memory(pipeline_.get(), &metrics_);
    DecodeLine decode_line(
        pipeline_.get(), &memory, &metrics_, [](const auto&, const absl::Status&, double) {},
        [](const absl::Status&) {});
    const absl::Status status = WarmUp(*pipeline_, memory, metrics_, decode_line, costs_, max_batch);
    EXPECT_TRUE(status.ok()) << status;
  }

  const std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  Metrics metrics_;
  CostBook costs_;
  absl::Duration step_time_;
  uint32_t slow_from_width_ = 0, most_width_ = UINT32_MAX;
  uint32_t native_size_ = 0;  // 0: the pipeline's own
  std::unique_ptr<RecordingPipeline> pipeline_;
};

TEST_F(WarmUpTest, DecodesOnTheThreadThatWillDecode) {
  Run("cpu", 4);
  EXPECT_THAT(pipeline_->decode_threads, ElementsAre("decode"));
}

TEST_F(WarmUpTest, AGpuStepsEveryNumberOfRowsTwice) {
  Run("cuda:0", 3);
  EXPECT_THAT(pipeline_->step_rows, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6));
  EXPECT_EQ(levers_->live_rows, 0);
  Run("cuda:0", 1);
  EXPECT_THAT(pipeline_->step_rows, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2));
}

TEST_F(WarmUpTest, CostsOfEveryNumberOfRowsAreKnownThen) {
  Run("cuda:0", 2);
  std::vector<std::pair<uint32_t, uint64_t>> known;
  for (const auto& step : costs_.Report().steps) {
    EXPECT_FALSE(step.kind.side);
    EXPECT_EQ(step.kind.width, pipeline_->info().native_size);
    known.emplace_back(step.kind.network_rows, step.count);
  }
  EXPECT_THAT(known, ElementsAre(Pair(1, 1), Pair(2, 1), Pair(3, 1), Pair(4, 1)));
}

TEST_F(WarmUpTest, ALargeBatchStepsUpToALimit) {
  Run("cuda:0", 256);
  EXPECT_EQ(pipeline_->step_rows.back(), kMostWarmRows);
}

TEST_F(WarmUpTest, TheCpuStepsOneImageAloneAtHalfAndAtFullSize) {
  Run("cpu", 3);
  EXPECT_THAT(pipeline_->step_rows, ElementsAre(1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2));
  EXPECT_THAT(pipeline_->step_widths, ElementsAre(32, 32, 32, 32, 64, 64, 64, 64, 64, 64, 64, 64));
}

// Two seconds a step at the native size are half a second at half the width and height.
TEST_F(WarmUpTest, ASlowCpuStaysAtHalfTheSize) {
  step_time_ = absl::Milliseconds(501);
  Run("cpu", 3);
  EXPECT_THAT(pipeline_->step_rows, ElementsAre(1, 1, 2)) << "the second step shows that it is slow";
  EXPECT_THAT(pipeline_->step_widths, ElementsAre(32, 32, 32));
  EXPECT_THAT(pipeline_->decode_threads, ElementsAre("decode"));
  const auto steps = costs_.Report().steps;
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].kind.width, 32u);
  EXPECT_THAT(metrics_.Render(), HasSubstr("hotlora_step_baseline_seconds{cfg=\"on\",height=\"32\""));
}

TEST_F(WarmUpTest, ACpuThatIsSlowAtTheNativeSizeAloneStepsLittleThere) {
  step_time_ = absl::Milliseconds(2001);
  slow_from_width_ = 64;
  Run("cpu", 3);
  EXPECT_THAT(pipeline_->step_rows, ElementsAre(1, 1, 1, 1, 1, 1, 2));
  EXPECT_EQ(pipeline_->step_widths.back(), 64u);
}

TEST_F(WarmUpTest, ACpuWithoutMemoryForTheNativeSizeStaysAtHalfOfIt) {
  most_width_ = 32;
  Run("cpu", 3);
  EXPECT_THAT(pipeline_->step_widths, ElementsAre(32, 32, 32, 32, 64, 32, 32, 32, 32));
  EXPECT_THAT(pipeline_->decode_threads, ElementsAre("decode"));
}

TEST_F(WarmUpTest, ASizeThatNoRequestMayHaveIsLeftOut) {
  native_size_ = 24;
  Run("cpu", 3);
  EXPECT_THAT(pipeline_->step_widths, AllOf(Not(IsEmpty()), Each(24)));
}

// A server with memory for one image starts.
TEST_F(WarmUpTest, MoreRowsThanThereIsMemoryForAreLeftOut) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->most_rows = 1;
  }
  Run("cuda:0", 4);
  EXPECT_EQ(pipeline_->step_rows.back(), 3u);
}

}  // namespace
}  // namespace hotlora
