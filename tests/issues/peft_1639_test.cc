// huggingface/peft#1639: loading LoRA N moved LoRA N-1 back to the GPU, so that sixty SDXL images with changing LoRAs
// took the device's memory to the top and each image from 20 s to 43 s. Loading one adapter must touch no other, and
// any number of swaps must leave memory and base weights as they were.

#include <vector>

#include <gtest/gtest.h>

#include "src/tensor/memory_stats.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

class Peft1639Test : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  // Leases the adapters, runs one denoising step under them, and lets everything go.
  void Swap(const std::vector<std::pair<std::string, double>>& adapters) {
#ifdef HOTLORA_LEAK_PER_SWAP
    leaked_.push_back(at::empty({HOTLORA_LEAK_PER_SWAP}, at::TensorOptions(model_->place().device).dtype(at::kByte)));
#endif
    ImageRequest request;
    request.width = request.height = 32;
    request.steps = 1;
    Finish(Start(Job(request), Set(adapters), 0));
    leases_.clear();
  }

  int64_t Allocated() const { return GetMemoryStats(model_->place().device).allocated; }

  std::vector<at::Tensor> leaked_;
};

TEST_F(Peft1639Test, LoadingAnotherAdapterLeavesTheFirstAsItWas) {
  const AdapterSet a = Set({{"peft_attention", 1.0}});
  const AdapterInfo before = *store_->Get("peft_attention");
  Set({{"kohya_sgm_named", 1.0}});
  const AdapterInfo after = *store_->Get("peft_attention");
  EXPECT_EQ(before.tier, AdapterTier::kDevice);
  EXPECT_EQ(after.tier, before.tier);
  EXPECT_EQ(after.bytes, before.bytes);
  EXPECT_EQ(after.in_use, before.in_use);
  EXPECT_EQ(after.in_use, 1u);
  EXPECT_EQ(store_->Get("kohya_sgm_named")->in_use, 1u);
}

TEST_F(Peft1639Test, FiveHundredSwapsLeaveMemoryAndBaseAsTheyWere) {
  const std::vector<std::vector<std::pair<std::string, double>>> sets = {
      {{"peft_attention", 1.0}},
      {{"kohya_text_encoders_and_unet", -0.5}},
      {{"kohya_locon_convolutions", 0.7}, {"peft_attention", 0.3}},
      {},
      {{"kohya_sgm_mixed_ranks_and_alphas", 2.0}}};
  const std::string clean = CleanWeightsChecksum(model_->adaptable_weights());
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  for (const auto& set : sets) {  // burn-in: each adapter is read once
    Swap(set);
  }
  const int64_t allocated = Allocated();
  for (int swap = 0; swap < 500; ++swap) {
    mode_ = swap % 3 == 0 ? ApplyMode::kSide : ApplyMode::kMerged;
    Swap(sets[swap % sets.size()]);
    ASSERT_EQ(Allocated(), allocated) << "after swap " << swap;
  }
  ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
  EXPECT_EQ(Allocated(), allocated);
  EXPECT_EQ(CleanWeightsChecksum(model_->adaptable_weights()), clean);
  EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live);
}

}  // namespace
}  // namespace hotlora
