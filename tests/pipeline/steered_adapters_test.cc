// Adapters by block of the UNet and by range of evaluations, in batches and over many requests.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/base/enum_size.h"
#include "src/tensor/memory_stats.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

class SteeredAdaptersTest : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  static AdapterRef Ref(const std::string& name, double weight, double start = 0.0, double end = 1.0,
                        std::vector<BlockWeight> blocks = {}) {
    AdapterRef ref;
    ref.name = name;
    ref.weight = weight;
    ref.start = start;
    ref.end = end;
    ref.blocks = std::move(blocks);
    return ref;
  }

  static ImageJob SmallJob(std::vector<AdapterRef> adapters, Sampler sampler = Sampler::kEuler, uint32_t steps = 5) {
    ImageRequest request;
    request.prompt = "a photo of a cat";
    request.negative_prompt = "blurry";
    request.width = request.height = 64;
    request.steps = steps;
    request.sampler = sampler;
    request.adapters = std::move(adapters);
    return Job(request);
  }

  // Blocks, ranges, both, formats with and without a side branch, text encoders, a swap inside a step of Heun, and
  // plain requests beside them.
  static std::vector<ImageJob> Mixture() {
    return {
        SmallJob({}),
        SmallJob({Ref("peft_attention", 1.0)}),
        SmallJob({Ref("peft_attention", 1.0, 0, 1, {{"down_blocks", 0.3}, {"up_blocks.0.attentions.1", 1.6}})}),
        SmallJob({Ref("peft_attention", 1.0, 0.0, 0.6)}),
        SmallJob({Ref("kohya_locon_convolutions", 1.0, 0.0, 0.4), Ref("peft_attention", 1.2, 0.4, 1.0)}),
        SmallJob({Ref("kohya_text_encoders_and_unet", 0.9, 0.6, 1.0, {{"mid_block", 0.0}})}),
        SmallJob({Ref("peft_attention", 1.5, 0.0, 0.6)}, Sampler::kHeun, 3),
        SmallJob({Ref("peft_dora", 1.0, 0.2, 1.0, {{"up_blocks", 0.5}})}, Sampler::kDpm2Ancestral),
    };
  }

  RgbImage Decode(const Row& row) {
    absl::StatusOr<RgbImage> image = pipeline_->Decode(row, VaeForm::kWhole);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  }

  RgbImage Image(const ImageJob& job, ApplyMode mode) {
    mode_ = mode;
    return Decode(*Finish(Start(job, Schedule(job), 5)));
  }

  // All of them in one batch, each joining a step after the one before.
  std::vector<RgbImage> Batch(const std::vector<ImageJob>& jobs, ApplyMode mode) {
    mode_ = mode;
    std::vector<std::unique_ptr<Row>> rows;
    const auto is_left = [](const std::unique_ptr<Row>& row) { return !row->done(); };
    do {
      if (rows.size() < jobs.size()) {
        const ImageJob& job = jobs[rows.size()];
        rows.push_back(Start(job, Schedule(job), 5));
      }
      BatchPlan plan;
      plan.mode = mode;
      for (const std::unique_ptr<Row>& row : rows) {
        if (is_left(row)) {
          plan.rows.push_back(row.get());
        }
      }
      const absl::Status status = pipeline_->Step(plan);
      EXPECT_TRUE(status.ok()) << status;
    } while (rows.size() < jobs.size() || std::any_of(rows.begin(), rows.end(), is_left));
    std::vector<RgbImage> images;
    for (const std::unique_ptr<Row>& row : rows) {
      images.push_back(Decode(*row));
    }
    return images;
  }

  int64_t Allocated() const { return GetMemoryStats(model_->place().device).allocated; }
};

TEST_F(SteeredAdaptersTest, EvaluationsAreAsManyAsTheRowMakes) {
  for (const Sampler sampler : AllOf<Sampler>()) {
    for (const uint32_t steps : {1u, 2u, 5u}) {
      const ImageJob job = SmallJob({}, sampler, steps);
      EXPECT_EQ(Finish(Start(job, {}, 5))->evaluations(), job.denoise.evaluations())
          << static_cast<int>(sampler) << " of " << steps << " steps";
    }
  }
}

TEST_F(SteeredAdaptersTest, EachOfABatchIsAsIfAlone) {
  const std::vector<ImageJob> jobs = Mixture();
  std::vector<RgbImage> alone;
  for (const ImageJob& job : jobs) {
    alone.push_back(Image(job, ApplyMode::kMerged));
  }
  for (const ApplyMode mode : {ApplyMode::kSide, ApplyMode::kMerged}) {
    const std::vector<RgbImage> batch = Batch(jobs, mode);
    for (size_t i = 0; i < jobs.size(); ++i) {
      EXPECT_LE(Difference(batch[i], alone[i]), 2) << i << (mode == ApplyMode::kSide ? " side" : " merged");
    }
  }
  int apart = 0;
  for (size_t i = 1; i < 6; ++i) {
    apart += Difference(alone[i], alone[i - 1]) > 4 ? 1 : 0;
  }
  EXPECT_EQ(apart, 5) << "requests without a difference prove nothing";
}

// A rule for all, by hand: prefixes that name each module with the adapter's own weight are the plain request.
TEST_F(SteeredAdaptersTest, TheOwnWeightForEachBlockChangesNothing) {
  const ImageJob plain = SmallJob({Ref("kohya_text_encoders_and_unet", 0.7)}),
                 blocks = SmallJob({Ref("kohya_text_encoders_and_unet", 0.7, 0, 1,
                                        {{"down_blocks", 0.7}, {"mid_block", 0.7}, {"up_blocks", 0.7}})});
  for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
    EXPECT_EQ(Image(plain, mode).pixels, Image(blocks, mode).pixels);
  }
}

TEST_F(SteeredAdaptersTest, ARangeWithoutEvaluationsIsTheBaseModel) {
  const ImageJob job = SmallJob({Ref("kohya_text_encoders_and_unet", 0.9, 0.25, 0.35)});
  EXPECT_TRUE(job.adapters.empty());
  EXPECT_EQ(Image(job, ApplyMode::kMerged).pixels, Image(SmallJob({}), ApplyMode::kMerged).pixels);
}

// Only the modules whose weights differ are rebuilt where a set changes.
TEST_F(SteeredAdaptersTest, AChangeRebuildsWhatDiffers) {
  const auto apply = [this](const ImageJob& job) { return *pipeline_->Apply(Schedule(job).at(0).set, mode_); };
  const SwapReport all = apply(SmallJob({Ref("peft_attention", 1.0)}));
  const SwapReport block = apply(SmallJob({Ref("peft_attention", 1.0, 0, 1, {{"mid_block", 0.5}})}));
  EXPECT_GT(block.modules_merged, 0u);
  EXPECT_LT(block.modules_merged, all.modules_merged / 2);
  EXPECT_EQ(block.modules_restored, 0u);
  const SwapReport without = apply(SmallJob({Ref("peft_attention", 1.0, 0, 1, {{"mid_block", 0.0}})}));
  EXPECT_EQ(without.modules_merged, 0u);
  EXPECT_EQ(without.modules_restored, block.modules_merged);
}

TEST_F(SteeredAdaptersTest, ManyRequestsLeaveMemoryAndBaseAsTheyWere) {
  const std::string clean = CleanWeightsChecksum(model_->adaptable_weights());
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  const std::vector<ImageJob> jobs = Mixture();
  for (const ImageJob& job : jobs) {  // burn-in: each adapter is read once
    Image(job, ApplyMode::kMerged);
    leases_.clear();
  }
  const int64_t allocated = Allocated();
  for (int round = 0; round < 4; ++round) {
    const ApplyMode mode = round % 3 == 0 ? ApplyMode::kSide : ApplyMode::kMerged;
    for (const ImageJob& job : jobs) {
      Image(job, mode);
      leases_.clear();
      ASSERT_EQ(Allocated(), allocated) << "round " << round;
    }
    Batch(jobs, mode);
    leases_.clear();
    ASSERT_EQ(Allocated(), allocated) << "batch of round " << round;
  }
  ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
  EXPECT_EQ(Allocated(), allocated);
  const at::Tensor kept = at::empty({1}, at::TensorOptions(model_->place().device).dtype(at::kByte));
  EXPECT_GT(Allocated(), allocated) << "the counter does not see a byte that is kept";
  EXPECT_EQ(CleanWeightsChecksum(model_->adaptable_weights()), clean);
  EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live);
}

}  // namespace
}  // namespace hotlora
