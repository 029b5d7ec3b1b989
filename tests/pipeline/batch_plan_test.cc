// One step takes rows that differ in everything but size; each must come out as it does alone.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/enum_size.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

// Rows of different batches meet different kernels, so sums round differently.
constexpr double kRounding = 2e-4;

class BatchPlanTest : public PipelineFixture {
 protected:
  struct Case {
    ImageRequest request;
    AdapterSet set;
    uint64_t seed;
  };

  std::vector<Case> MixedCases() {
    std::vector<Case> cases(4);
    const char* prompts[] = {"a photo of a cat", "a red square on a blue background", "",
                             "an astronaut riding a horse"};
    for (size_t i = 0; i < cases.size(); ++i) {
      cases[i].request.prompt = prompts[i];
      cases[i].request.width = cases[i].request.height = 64;
      cases[i].request.steps = 3 + static_cast<uint32_t>(i);
      cases[i].seed = 100 * i;
    }
    cases[0].request.negative_prompt = "blurry";
    cases[1].request.guidance_scale = 1.0;  // no guidance: one network row
    cases[2].request.guidance_scale = 9.0;
    cases[3].request.guidance_rescale = 0.5;
    cases[3].request.guidance_end = 0.5;
    cases[3].request.schedule = NoiseScheduleKind::kTrailing;
    cases[1].set = Set({{"peft_attention", 0.7}});
    cases[2].set = Set({{"kohya_text_encoders_and_unet", 0.8}});
    cases[3].set = cases[1].set;
    return cases;
  }

  void ExpectMixedEqualAlone(const std::vector<Case>& cases, size_t largest_plan) {
    std::vector<at::Tensor> alone;
    for (const Case& one : cases) {
      alone.push_back(RowLatentsForTest(*Finish(Start(Job(one.request), one.set, one.seed))).cpu());
    }
    std::vector<std::unique_ptr<Row>> rows;
    for (const Case& one : cases) {
      rows.push_back(Start(Job(one.request), one.set, one.seed));
    }
    // Rows join at different steps, so that they are at different timesteps, and leave when they are done.
    size_t largest = 0;
    for (uint32_t step = 0;; ++step) {
      BatchPlan plan;
      plan.mode = mode_;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (step >= i && !rows[i]->done()) {
          plan.rows.push_back(rows[i].get());
        }
      }
      if (plan.rows.empty()) {
        break;
      }
      largest = std::max(largest, plan.rows.size());
      ASSERT_TRUE(pipeline_->Step(plan).ok());
    }
    EXPECT_EQ(largest, largest_plan);
    for (size_t i = 0; i < rows.size(); ++i) {
      ExpectWithin(RowLatentsForTest(*rows[i]), alone[i], kRounding, "row " + std::to_string(i));
    }
  }
};

TEST_F(BatchPlanTest, MixedRowsEqualTheirRunsAlone) { ExpectMixedEqualAlone(MixedCases(), 3); }

TEST_F(BatchPlanTest, MixedRowsEqualTheirRunsAloneInSideMode) {
  mode_ = ApplyMode::kSide;
  ExpectMixedEqualAlone(MixedCases(), 3);
}

TEST_F(BatchPlanTest, RowsOfDifferentSamplersEqualTheirRunsAlone) {
  std::vector<Case> cases;
  for (const Sampler sampler : AllOf<Sampler>()) {
    Case& one = cases.emplace_back();
    one.request.prompt = "a photo of a cat";
    one.request.width = one.request.height = 64;
    one.request.steps = 5;
    one.request.sampler = sampler;
    one.seed = 7;
  }
  ExpectMixedEqualAlone(cases, 7);  // the rows of two evaluations a step stay longest
}

TEST_F(BatchPlanTest, GuidanceRunsOnlyInsideItsWindow) {
  ImageRequest request;
  request.prompt = "a photo of a cat";
  request.width = request.height = 64;
  request.steps = 4;
  const auto latents_after = [this](const ImageRequest& of, uint32_t steps) {
    const auto row = Start(Job(of), {}, 1);
    for (uint32_t step = 0; step < steps; ++step) {
      EXPECT_TRUE(pipeline_->Step(BatchPlan{{row.get()}}).ok());
    }
    return RowLatentsForTest(*row).cpu();
  };
  ImageRequest early = request, late = request, unguided = request;
  early.guidance_end = 0.5;
  late.guidance_start = 0.5;
  unguided.guidance_scale = 1.0;
  EXPECT_TRUE(latents_after(early, 2).equal(latents_after(request, 2)));
  EXPECT_GT(RelativeError(latents_after(early, 3), latents_after(request, 3)), 1e-4);
  EXPECT_TRUE(latents_after(late, 2).equal(latents_after(unguided, 2)));
  EXPECT_GT(RelativeError(latents_after(late, 3), latents_after(unguided, 3)), 1e-4);
}

TEST_F(BatchPlanTest, RowsOfOneTimestepButDifferentAdaptersDiffer) {
  ImageRequest request;
  request.prompt = "a photo of a cat";
  request.width = request.height = 64;
  request.steps = 2;
  const ImageJob job = Job(request);
  const auto base = Start(job, {}, 1);
  const auto adapted = Start(job, Set({{"peft_attention", 1.0}}), 1);
  ASSERT_TRUE(pipeline_->Step(BatchPlan{{base.get(), adapted.get()}}).ok());
  EXPECT_GT(RelativeError(RowLatentsForTest(*adapted), RowLatentsForTest(*base)), 1e-4);
}

}  // namespace
}  // namespace hotlora
