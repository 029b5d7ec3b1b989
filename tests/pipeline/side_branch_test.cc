// Side branch against merged weights: the same request under the same adapters must give the same image, to 2/255 of a
// colour, alone or in a batch with other adapters.

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/tensor/memory_stats.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

using Adapters = std::vector<std::pair<std::string, double>>;

class SideBranchPipelineTest : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  static ImageJob SmallJob() {
    ImageRequest request;
    request.prompt = "a photo of a cat";
    request.negative_prompt = "blurry";
    request.width = request.height = 64;
    request.steps = 3;
    return Job(request);
  }

  RgbImage Image(const AdapterSet& set, ApplyMode mode) {
    mode_ = mode;
    const auto row = Finish(Start(SmallJob(), set, 5));
    absl::StatusOr<RgbImage> image = pipeline_->Decode(*row, VaeForm::kWhole);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  }

  // Every golden adapter by itself, and sets of several, whose modules overlap.
  static std::vector<Adapters> Sets() {
    std::vector<Adapters> sets = {
        {{"peft_attention", 0.7}, {"kohya_sgm_named", 0.5}},
        {{"kohya_locon_convolutions", 1.2}, {"lycoris_locon_tucker", -0.6}, {"kohya_text_encoders_and_unet", 0.4}},
        {{"peft_dora", 1.0}, {"peft_attention", 0.5}},
        {{"lycoris_lokr_full_factors", 1.0}, {"lycoris_loha", 0.8}},
    };
    for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("adapters/files"))) {
      if (entry.path().extension() == ".safetensors") {
        sets.push_back({{entry.path().stem(), 0.8}});
      }
    }
    return sets;
  }
};

TEST_F(SideBranchPipelineTest, ImagesEqualTheMergedOnes) {
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  const RgbImage base = Image({}, ApplyMode::kSide);
  EXPECT_EQ(base.pixels, Image({}, ApplyMode::kMerged).pixels);
  int with_effect = 0;
  for (const Adapters& adapters : Sets()) {
    SCOPED_TRACE(adapters.front().first);
    const AdapterSet set = Set(adapters);
    const RgbImage merged = Image(set, ApplyMode::kMerged);
    ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
    EXPECT_LE(Difference(Image(set, ApplyMode::kSide), merged), 2);
    with_effect += Difference(base, merged) > 8 ? 1 : 0;
    leases_.clear();
  }
  EXPECT_GT(with_effect, 10) << "an adapter without effect proves nothing";
  ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kSide).ok());
  EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live);
}

TEST_F(SideBranchPipelineTest, LowRankAdaptersLeaveTheWeightsAlone) {
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  const AdapterSet set = Set({{"kohya_text_encoders_and_unet", 0.7}, {"kohya_locon_convolutions", 1.0}});
  const auto first = pipeline_->Apply(set, ApplyMode::kSide);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(first->changed);
  EXPECT_EQ(first->modules_merged, 0u);
  EXPECT_FALSE(pipeline_->Apply(set, ApplyMode::kSide)->changed);
  Image(set, ApplyMode::kSide);
  EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live);
}

TEST_F(SideBranchPipelineTest, WhatHasNoSideFormIsMerged) {
  const AdapterSet lokr = Set({{"lycoris_lokr_full_factors", 1.0}});
  EXPECT_GT(pipeline_->Apply(lokr, ApplyMode::kSide)->modules_merged, 0u);
  // A DoRA alone has a side form, beside another adapter on the same modules it has none.
  const AdapterSet alone = Set({{"peft_dora", 1.0}}), beside = Set({{"peft_dora", 1.0}, {"peft_attention", 0.5}});
  EXPECT_EQ(pipeline_->Apply(alone, ApplyMode::kSide)->modules_merged, 0u);
  EXPECT_GT(pipeline_->Apply(beside, ApplyMode::kSide)->modules_merged, 0u);
}

TEST_F(SideBranchPipelineTest, SetsShareAStepWhereTheirMergedPartIsTheSame) {
  const AdapterSet base, lora = Set({{"peft_attention", 1.0}}), locon = Set({{"kohya_locon_convolutions", 1.0}}),
                         lokr = Set({{"lycoris_lokr_full_factors", 1.0}}),
                         weaker = Set({{"lycoris_lokr_full_factors", 0.5}});
  EXPECT_TRUE(pipeline_->CanShareStep(base, lora));
  EXPECT_TRUE(pipeline_->CanShareStep(locon, lora));
  EXPECT_FALSE(pipeline_->CanShareStep(lokr, lora));
  EXPECT_FALSE(pipeline_->CanShareStep(lokr, weaker));
  EXPECT_TRUE(pipeline_->CanShareStep(lokr, lokr));
}

TEST_F(SideBranchPipelineTest, ModesMayChangeFromStepToStep) {
  const AdapterSet a = Set({{"peft_attention", 1.0}}), b = Set({{"kohya_locon_convolutions", 0.9}});
  const RgbImage alone_a = Image(a, ApplyMode::kMerged), alone_b = Image(b, ApplyMode::kMerged);
  const auto row_a = Start(SmallJob(), a, 5);  // its text under merged weights
  ASSERT_TRUE(pipeline_->Step(BatchPlan{{row_a.get()}, ApplyMode::kMerged}).ok());
  mode_ = ApplyMode::kSide;
  const auto row_b = Start(SmallJob(), b, 5);
  while (!row_a->done()) {
    ASSERT_TRUE(pipeline_->Step(BatchPlan{{row_a.get(), row_b.get()}, ApplyMode::kSide}).ok());
  }
  while (!row_b->done()) {
    ASSERT_TRUE(pipeline_->Step(BatchPlan{{row_b.get()}, ApplyMode::kMerged}).ok());
  }
  EXPECT_LE(Difference(*pipeline_->Decode(*row_a, VaeForm::kWhole), alone_a), 2);
  EXPECT_LE(Difference(*pipeline_->Decode(*row_b, VaeForm::kWhole), alone_b), 2);
}

TEST_F(SideBranchPipelineTest, SwapsLeaveNoMemoryBehind) {
  const std::vector<Adapters> sets = Sets();
  for (const Adapters& adapters : sets) {  // burn-in: each adapter is read once
    Image(Set(adapters), ApplyMode::kSide);
    leases_.clear();
  }
  const int64_t allocated = GetMemoryStats(model_->place().device).allocated;
  for (int round = 0; round < 3; ++round) {
    for (const Adapters& adapters : sets) {
      mode_ = round == 1 ? ApplyMode::kMerged : ApplyMode::kSide;
      Start(SmallJob(), Set(adapters), 5);
      leases_.clear();
      ASSERT_EQ(GetMemoryStats(model_->place().device).allocated, allocated) << adapters.front().first;
    }
  }
}

}  // namespace
}  // namespace hotlora
