#include "src/pipeline/applied_adapters.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/nn/packed_weight.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

class AppliedAdaptersTest : public PipelineFixture {
 protected:
  SwapReport Apply(const AdapterSet& set) {
    const auto report = pipeline_->Apply(set, ApplyMode::kMerged);
    EXPECT_TRUE(report.ok()) << report.status();
    return *report;
  }
  std::string Live() { return LiveWeightsChecksum(model_->adaptable_weights()); }
};

TEST_F(AppliedAdaptersTest, EqualSetIsNoWork) {
  const AdapterSet set = Set({{"peft_attention", 0.5}});
  EXPECT_TRUE(Apply(set).changed);
  const SwapReport again = Apply(Set({{"peft_attention", 0.5}}));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.modules_merged + again.modules_restored, 0u);
}

TEST_F(AppliedAdaptersTest, WeightsDependOnTheSetAlone) {
  const AdapterSet a = Set({{"peft_attention", 1.0}}), b = Set({{"kohya_locon_convolutions", -0.5}}),
                   both = Set({{"peft_attention", 1.0}, {"kohya_locon_convolutions", -0.5}});
  const std::string base = Live();
  Apply(a);
  const std::string with_a = Live();
  Apply(both);
  const std::string with_both = Live();
  EXPECT_NE(base, with_a);
  EXPECT_NE(with_a, with_both);
  for (int round = 0; round < 20; ++round) {
    Apply(round % 2 == 0 ? b : both);
    Apply(a);
    EXPECT_EQ(Live(), with_a);
    Apply(both);
    EXPECT_EQ(Live(), with_both);
    Apply({});
    EXPECT_EQ(Live(), base);
  }
}

TEST_F(AppliedAdaptersTest, OrderMattersToDora) {
  const std::pair<std::string, double> plain = {"peft_attention", 0.7}, dora = {"kohya_dora_scale_over_input", 0.6};
  const std::string base = Live();
  Apply(Set({plain, dora}));
  const std::string plain_first = Live();
  const SwapReport turned = Apply(Set({dora, plain}));
  EXPECT_GT(turned.modules_merged, 0u);
  const std::string dora_first = Live();
  EXPECT_NE(plain_first, dora_first);
  Apply(Set({plain, dora}));
  EXPECT_EQ(Live(), plain_first);
  Apply({});
  EXPECT_EQ(Live(), base);
}

TEST_F(AppliedAdaptersTest, OnlyModulesThatDifferAreTouched) {
  const AdapterSet convolutions = Set({{"kohya_locon_convolutions", 1.0}});
  const uint32_t touched = Apply(convolutions).modules_merged;
  EXPECT_GT(touched, 0u);
  const SwapReport added = Apply(Set({{"kohya_locon_convolutions", 1.0}, {"peft_attention", 1.0}}));
  EXPECT_EQ(added.modules_restored, 0u);
  const uint32_t attention = added.modules_merged;
  const SwapReport removed = Apply(convolutions);
  EXPECT_EQ(removed.modules_merged, 0u);
  EXPECT_EQ(removed.modules_restored, attention);
  EXPECT_EQ(Apply({}).modules_restored, touched);
}

TEST_F(AppliedAdaptersTest, TextEncoderWeightIsItsOwn) {
  AdapterSet set = Set({{"kohya_text_encoders_and_unet", 0.0}});
  set.adapters[0].text_encoder_weight = 1.0;
  Apply(set);
  for (size_t i = 0; i < model_->modules().modules.size(); ++i) {
    if (model_->modules().modules[i].component == Component::kUnet) {
      const AdaptableWeight& weight = model_->adaptable_weights()[i];
      EXPECT_TRUE(IsCopyOf(weight.live, weight.clean)) << model_->modules().modules[i].path;
    }
  }
  const std::string adapted = Live();
  Apply({});
  EXPECT_NE(Live(), adapted);
}

TEST_F(AppliedAdaptersTest, VerifyFindsAChangedByteOfTheBase) {
  const size_t modules = model_->adaptable_weights().size();
  for (size_t i = 0; i < modules; ++i) {
    ASSERT_EQ(pipeline_->VerifyNextModule()->mismatches, 0u);
  }
  c10::InferenceMode guard;  // weights are inference tensors
  at::Tensor clean = model_->adaptable_weights()[3].clean;
  clean.view({-1})[0].add_(1.0);
  Synchronize(model_->place().device);  // the pipeline may look from another stream
  uint32_t found = 0;
  for (size_t i = 0; i < modules; ++i) {
    found += pipeline_->VerifyNextModule()->mismatches;
  }
  EXPECT_EQ(found, 1u);
}

TEST_F(AppliedAdaptersTest, VerifyFindsALiveWeightThatIsNotTheBase) {
  c10::InferenceMode guard;  // weights are inference tensors
  at::Tensor live = model_->adaptable_weights()[5].live;
  live.as_strided({1}, {1}).add_(1.0);
  Synchronize(model_->place().device);  // the pipeline may look from another stream
  uint32_t found = 0;
  for (size_t i = 0; i < model_->adaptable_weights().size(); ++i) {
    found += pipeline_->VerifyNextModule()->mismatches;
  }
  EXPECT_EQ(found, 1u);
}

}  // namespace
}  // namespace hotlora
