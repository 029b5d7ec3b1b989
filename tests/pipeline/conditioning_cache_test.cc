#include "src/pipeline/conditioning_cache.h"

#include <functional>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/tensor/memory_stats.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

constexpr int64_t kWidth = 6, kPooled = 4;
constexpr uint64_t kSlotBytes = (77 * kWidth + kPooled) * sizeof(float);

EncodedPrompts Random(int64_t chunks, bool negative) {
  const auto side = [chunks] { return TextSide{at::randn({1, 77 * chunks, kWidth}), at::randn({1, kPooled})}; };
  return {side(), negative ? side() : TextSide()};
}

void ExpectSame(const std::optional<EncodedPrompts>& found, const EncodedPrompts& kept) {
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(at::equal(found->positive.hidden, kept.positive.hidden));
  EXPECT_TRUE(at::equal(found->positive.pooled, kept.positive.pooled));
  ASSERT_EQ(found->negative.hidden.defined(), kept.negative.hidden.defined());
  if (kept.negative.hidden.defined()) {
    EXPECT_TRUE(at::equal(found->negative.hidden, kept.negative.hidden));
    EXPECT_TRUE(at::equal(found->negative.pooled, kept.negative.pooled));
  }
}

TEST(ConditioningCacheTest, GivesBackWhatItKeptUntilItsSlotsAreNeeded) {
  c10::InferenceMode guard;
  at::manual_seed(1);
  ConditioningCache cache(5 * kSlotBytes + kSlotBytes / 2, kWidth, kPooled, at::TensorOptions(at::kFloat));
  EXPECT_EQ(cache.bytes(), 5 * kSlotBytes);
  EXPECT_FALSE(cache.Find("a").has_value());
  const EncodedPrompts a = Random(1, true), b = Random(3, false), c = Random(1, false), d = Random(2, true);
  cache.Keep("a", a);
  cache.Keep("b", b);
  ExpectSame(cache.Find("b"), b);
  ExpectSame(cache.Find("a"), a);
  cache.Keep("c", c);  // no slot is free, so b goes, which was used before a
  EXPECT_FALSE(cache.Find("b").has_value());
  ExpectSame(cache.Find("a"), a);
  ExpectSame(cache.Find("c"), c);
  cache.Keep("d", d);  // four slots: two are free, and a gives two
  EXPECT_FALSE(cache.Find("a").has_value());
  ExpectSame(cache.Find("c"), c);
  ExpectSame(cache.Find("d"), d);
  cache.Keep("too large", Random(3, true));
  EXPECT_FALSE(cache.Find("too large").has_value());
  ExpectSame(cache.Find("c"), c);
  ExpectSame(cache.Find("d"), d);

  ConditioningCache none(kSlotBytes - 1, kWidth, kPooled, at::TensorOptions(at::kFloat));
  none.Keep("c", c);
  EXPECT_FALSE(none.Find("c").has_value());
  EXPECT_EQ(none.bytes(), 0u);
}

TEST(ConditioningCacheTest, WhatItGaveStaysAsItWas) {
  c10::InferenceMode guard;
  ConditioningCache cache(kSlotBytes, kWidth, kPooled, at::TensorOptions(at::kFloat));
  const EncodedPrompts a = Random(1, false);
  cache.Keep("a", a);
  const std::optional<EncodedPrompts> found = cache.Find("a");
  cache.Keep("b", Random(1, false));
  ExpectSame(found, a);
}

TEST(ConditioningCacheTest, AllThatShapesThePromptsIsInTheKey) {
  Prompts base;
  base.prompt = "a cat";
  base.prompt_2 = "of wool";
  base.negative_prompt = "blurry";
  base.negative_prompt_2 = "grey";
  EmbeddingVectors vectors{1, {1.0f, 2.0f}, {3.0f}};
  base.embeddings = {{"sks", std::make_shared<EmbeddingVectors>(vectors)}};
  AdapterSet set;
  set.adapters = {{nullptr, "aa", 1.0, 0.5}, {nullptr, "bb", 1.0, 0.25}};

  std::set<std::string> keys;
  const auto add = [&](const std::function<void(Prompts&, AdapterSet&)>& change, bool negative = true,
                       ApplyMode mode = ApplyMode::kMerged, uint64_t weights = 0) {
    Prompts prompts = base;
    AdapterSet changed = set;
    change(prompts, changed);
    return keys.insert(ConditioningKey(prompts, negative, changed, mode, weights)).second;
  };
  const auto same = [](Prompts&, AdapterSet&) {};
  EXPECT_TRUE(add(same));
  EXPECT_FALSE(add(same)) << "equal inputs have one key";
  EXPECT_TRUE(add(same, false));
  EXPECT_TRUE(add(same, true, ApplyMode::kSide));
  EXPECT_TRUE(add(same, true, ApplyMode::kMerged, 1));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.prompt = "a cat "; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { std::swap(p.prompt, p.prompt_2); }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.prompt = "a catof", p.prompt_2 = " wool"; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.negative_prompt = ""; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.negative_prompt = std::nullopt; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.negative_prompt_2 = "blue"; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.clip_skip = 1; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.weighted = true; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.long_prompts = true; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.embeddings.clear(); }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) { p.embeddings[0].token = "sk"; }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) {
    p.embeddings[0].vectors = std::make_shared<EmbeddingVectors>(EmbeddingVectors{1, {1.0f, 2.5f}, {3.0f}});
  }));
  EXPECT_TRUE(add([](Prompts& p, AdapterSet&) {
    p.embeddings[0].vectors = std::make_shared<EmbeddingVectors>(EmbeddingVectors{1, {1.0f}, {2.0f, 3.0f}});
  }));
  EXPECT_TRUE(add([](Prompts&, AdapterSet& s) { s.adapters[0].content_sha256 = "ab"; }));
  EXPECT_TRUE(add([](Prompts&, AdapterSet& s) { s.adapters[0].text_encoder_weight = 0.5000001; }));
  EXPECT_TRUE(add([](Prompts&, AdapterSet& s) { std::swap(s.adapters[0], s.adapters[1]); }));
  EXPECT_TRUE(add([](Prompts&, AdapterSet& s) { s.adapters.pop_back(); }));
  // What does not shape them is not.
  EXPECT_FALSE(add([](Prompts&, AdapterSet& s) { s.adapters[0].weight = 7; }));
  EXPECT_FALSE(add([](Prompts&, AdapterSet& s) { s.adapters.push_back({nullptr, "cc", 1.0, 0.0}); }));
  EXPECT_FALSE(add([](Prompts& p, AdapterSet&) { p.negative_prompt = "other"; }, false));
  const auto none = [](Prompts&, AdapterSet& s) { s.adapters.clear(); };
  EXPECT_TRUE(add(none));
  EXPECT_FALSE(add(none, true, ApplyMode::kSide)) << "without adapters both forms are the base model";
}

class KeptConditioningTest : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  void SetUp() override {
    conditioning_bytes_ = uint64_t{1} << 20;
    PipelineFixture::SetUp();
  }

  static ImageRequest Request(const std::string& prompt) {
    ImageRequest request;
    request.prompt = prompt;
    request.negative_prompt = "blurry";
    request.width = request.height = 64;
    request.steps = 2;
    return request;
  }

  std::shared_ptr<const Conditioning> Encode(const std::string& prompt, const AdapterSet& set) {
    const ImageJob job = Job(Request(prompt));
    auto conditioning = pipeline_->Encode(job.prompts, job.denoise.cfg(), set, mode_);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    return *std::move(conditioning);
  }

  at::Tensor Picture(const std::string& prompt, const AdapterSet& set) {
    return RowLatentsForTest(*Finish(Start(Job(Request(prompt)), set, 3))).cpu();
  }
};

TEST_F(KeptConditioningTest, GivesTheBytesThatEncodingGives) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Reload(dtype);
    for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
      mode_ = mode;
      for (const AdapterSet& set : {AdapterSet(), Set({{"kohya_text_encoders_and_unet", 0.8}})}) {
        const std::string prompt = "a cat " + std::to_string(static_cast<int>(mode)) + set.Fingerprint();
        const auto fresh = Encode(prompt, set);
        EXPECT_FALSE(fresh->was_kept());
        const at::Tensor first = Picture(prompt, set);  // the conditioning is kept already
        const auto kept = Encode(prompt, set);
        EXPECT_TRUE(kept->was_kept());
        const ConditioningTensors a = TensorsForTest(*fresh), b = TensorsForTest(*kept);
        EXPECT_TRUE(at::equal(a.hidden, b.hidden) && at::equal(a.pooled, b.pooled));
        EXPECT_TRUE(at::equal(a.negative_hidden, b.negative_hidden) && at::equal(a.negative_pooled, b.negative_pooled));
        // Another pipeline has kept nothing.
        const auto other = [&] {
          auto model = SdxlModel::Load(GoldenPath("pipeline"), TestPlace(dtype_));
          EXPECT_TRUE(model.ok());
          return MakeSdxlPipeline(*std::move(model), "golden").value();
        }();
        std::swap(pipeline_, const_cast<std::unique_ptr<Pipeline>&>(other));
        const at::Tensor encoded = Picture(prompt, set);
        std::swap(pipeline_, const_cast<std::unique_ptr<Pipeline>&>(other));
        EXPECT_TRUE(at::equal(first, encoded));
      }
    }
  }
}

TEST_F(KeptConditioningTest, AdaptersOfTheTextEncodersHaveTheirOwn) {
  Encode("a cat", {});
  const AdapterSet texts = Set({{"kohya_text_encoders_and_unet", 0.8}}), unet = Set({{"peft_attention", 1.0}});
  EXPECT_FALSE(Encode("a cat", texts)->was_kept());
  EXPECT_TRUE(Encode("a cat", texts)->was_kept());
  EXPECT_TRUE(Encode("a cat", {})->was_kept());
  mode_ = ApplyMode::kSide;
  EXPECT_FALSE(Encode("a cat", texts)->was_kept());
}

TEST_F(KeptConditioningTest, AllocatesNothingForWhatComesAndGoes) {
  Encode("warm", {});
  const int64_t allocated = GetMemoryStats(model_->place().device).allocated;
  for (int i = 0; i < 60; ++i) {
    Encode("cat " + std::to_string(i % 20), {});
    ASSERT_EQ(GetMemoryStats(model_->place().device).allocated, allocated) << i;
  }
  const auto held = Encode("dog", {});  // the negative control
  EXPECT_GT(GetMemoryStats(model_->place().device).allocated, allocated);
  const std::vector<MemoryArea>& areas = pipeline_->memory();
  EXPECT_EQ(areas.back().what, "encoded prompts for further requests");
  EXPECT_GT(areas.back().bytes, conditioning_bytes_ * 9 / 10);
  EXPECT_LE(areas.back().bytes, conditioning_bytes_);
}

}  // namespace
}  // namespace hotlora
