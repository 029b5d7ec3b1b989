#include "src/pipeline/unet_batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/sampling/euler_sampler.h"
#include "src/tensor/memory_stats.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class UnetBatchTest : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  // The network row of a prompt, with a sampler that goes from 990 downwards by 10.
  struct Image {
    explicit Image(NetworkRow r, uint32_t steps) : row(std::move(r)) {
      StepPlan plan;
      for (uint32_t i = 0; i < steps; ++i) {
        plan.timesteps.push_back(990.0f - 10.0f * i);
        plan.sigmas.push_back(static_cast<float>(steps - i));
      }
      plan.sigmas.push_back(0.0f);
      sampler = std::make_unique<EulerSampler>(plan);
    }

    NetworkRow row;
    std::unique_ptr<SamplerState> sampler;
    at::Tensor latents = at::randn({1, 4, 8, 8}).to(TestPlace().device);
    uint32_t evaluation = 0;
  };

  std::unique_ptr<Image> MakeImage(const std::string& prompt, uint32_t steps = 4) {
    const auto conditioning = pipeline_->Encode(Job(Request(prompt)).prompts, false, {}, ApplyMode::kMerged);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    const ConditioningTensors tensors = TensorsForTest(**conditioning);
    return std::make_unique<Image>(
        NetworkRow({tensors.hidden, tensors.pooled},
                   at::tensor({64.f, 64.f, 0.f, 0.f, 64.f, 64.f}).view({1, 6}).to(TestPlace().device)),
        steps);
  }

  static ImageRequest Request(const std::string& prompt) {
    ImageRequest request;
    request.prompt = prompt;
    request.width = request.height = 64;
    return request;
  }

  // One evaluation of all images; their predictions.
  at::Tensor Step(const std::vector<Image*>& images, const std::string& adapters = "",
                  const SideTable* side = nullptr) {
    UnetBatch batch;
    for (Image* image : images) {
      batch.Add({&image->row, image->latents, image->sampler.get(), image->evaluation, adapters, side});
    }
    at::Tensor predictions = batch.Predict(model_->unet(), model_->place().dtype);
    for (Image* image : images) {
      image->sampler->Step(image->latents, image->latents);
      ++image->evaluation;
    }
    return predictions;
  }

  // What the network makes of the image as it is now, of all its input.
  at::Tensor Whole(const Image& image) {
    UnetInput input;
    input.sample = image.latents.to(model_->place().dtype);
    input.timesteps = at::full({1}, image.sampler->timestep()).to(TestPlace().device);
    input.encoder_hidden_states = image.row.text.hidden;
    input.pooled = image.row.text.pooled;
    input.time_ids = image.row.size_ids;
    return model_->unet().forward(input);
  }

  at::Tensor LiveWeight(const std::string& path) {
    const auto& modules = model_->modules().modules;
    for (size_t i = 0; i < modules.size(); ++i) {
      if (modules[i].component == Component::kUnet && modules[i].path == path) {
        return model_->adaptable_weights()[i].live;
      }
    }
    ADD_FAILURE() << path;
    return {};
  }

  const c10::InferenceMode guard_;
};

TEST_F(UnetBatchTest, StepsOfTheSameRowsShareWhatWasMadeOfTheirTexts) {
  const auto one = MakeImage("a cat"), other = MakeImage("a dog");
  Step({one.get(), other.get()});
  const auto text = one->row.projected_text;
  const void* shifts = one->row.shifts.const_data_ptr();
  EXPECT_EQ(other->row.projected_text, text);
  for (int step = 0; step < 2; ++step) {
    const at::Tensor expected = Whole(*other);
    ExpectWithin(Step({one.get(), other.get()}).narrow(0, 1, 1), expected, 1e-4, "prediction");
    EXPECT_EQ(one->row.projected_text, text);
    EXPECT_EQ(one->row.shifts.const_data_ptr(), shifts);
  }
}

TEST_F(UnetBatchTest, RowsThatJoinAndLeaveKeepTheirs) {
  const auto one = MakeImage("a cat"), other = MakeImage("a dog"), third = MakeImage("");
  Step({one.get()});
  const ProjectedText alone = *one->row.projected_text;  // keeps the tensors, which the batch gives back
  const at::Tensor one_shifts = one->row.shifts;
  const at::Tensor expected = Whole(*other);
  ExpectWithin(Step({other.get(), one.get(), third.get()}).narrow(0, 0, 1), expected, 1e-4, "the row that joined");
  EXPECT_EQ(one->row.place, 1);
  for (size_t i = 0; i < alone.text.size(); ++i) {
    EXPECT_TRUE(at::equal(one->row.projected_text->text[i].narrow(0, 1, 1), alone.text[i])) << "not copied: " << i;
  }
  EXPECT_EQ(one->row.shifts.const_data_ptr(), one_shifts.const_data_ptr());
  const at::Tensor before = one->row.projected_text->text[0].narrow(0, 2, 1).clone();
  const at::Tensor expected_third = Whole(*third);
  ExpectWithin(Step({third.get()}), expected_third, 1e-4, "the row that is left alone");
  EXPECT_EQ(third->row.projected_text->rows, 1);
  EXPECT_TRUE(at::equal(third->row.projected_text->text[0], before));
}

TEST_F(UnetBatchTest, AnotherSetInEffectMakesThemAnew) {
  const auto image = MakeImage("a cat");
  Step({image.get()}, "base");
  for (const char* path : {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
                           "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
                           "mid_block.resnets.0.time_emb_proj", "time_embedding.linear_1", "add_embedding.linear_2"}) {
    at::Tensor weight = LiveWeight(path);
    ASSERT_TRUE(weight.defined());
    const at::Tensor clean = weight.clone();
    weight.mul_(-3);
    const at::Tensor expected = Whole(*image);
    Image stale(image->row, 4);  // the negative control keeps what the base made
    stale.latents = image->latents;
    stale.sampler->Step(stale.latents, stale.latents);
    stale.evaluation = 1;
    EXPECT_GT(RelativeError(Step({&stale}, "base"), expected), 1e-4)
        << path << " changes nothing, so the test is blind";
    Image changed(image->row, 4);
    changed.latents = image->latents;
    changed.sampler->Step(changed.latents, changed.latents);
    changed.evaluation = 1;
    ExpectWithin(Step({&changed}, path), expected, 1e-4, path);
    weight.copy_(clean);
  }
}

TEST_F(UnetBatchTest, LongRunsMakeTheirShiftsPieceByPiece) {
  const auto image = MakeImage("a cat", 70);
  const int64_t ahead = UnetBatch::kEvaluationsAhead;
  for (uint32_t step = 0; step < 70; ++step) {
    const bool compared = step % 23 == 0 || step == 64 || step == 69;
    const at::Tensor expected = compared ? Whole(*image) : at::Tensor();
    const at::Tensor prediction = Step({image.get()});
    if (compared) {
      ExpectWithin(prediction, expected, 1e-4, "step " + std::to_string(step));
    }
    ASSERT_EQ(image->row.shifts.size(0), step < ahead ? ahead : 70 - ahead);
  }
}

TEST_F(UnetBatchTest, WhatWasMadeIsGivenBackWithTheLastStep) {
  ImageRequest request = Request("a cat");
  request.negative_prompt = "blurry";
  request.steps = 3;
  const auto allocated = [this] { return GetMemoryStats(model_->place().device).allocated; };
  Finish(Start(Job(request), {}, 1));
  const int64_t idle = allocated();
  auto row = Start(Job(request), {}, 1);
  const int64_t started = allocated();
  const int64_t to_keep = row->bytes_to_keep();
  ASSERT_TRUE(pipeline_->Step(BatchPlan{{row.get()}}).ok());
  const UnetConfig& config = model_->config().unet;
  int64_t widths = 0;  // of all cross attentions
  for (const UnetLevel& level : config.levels) {
    const int64_t attentions = (level.down_attention ? config.layers_per_block : 0) +
                               (level.up_attention ? config.layers_per_block + 1 : 0) +
                               (&level == &config.levels.back() ? 1 : 0);
    widths += attentions * level.transformer_depth * level.channels;
  }
  const int64_t text_bytes = 2 * 77 * 2 * widths * static_cast<int64_t>(sizeof(float));
  EXPECT_GT(allocated() - started, text_bytes) << "the negative control: a running row holds them";
  EXPECT_LT(allocated() - started, text_bytes * 3 / 2);
  EXPECT_EQ(to_keep, text_bytes);
  EXPECT_EQ(row->bytes_to_keep(), 0);
  row = Finish(std::move(row));
  EXPECT_EQ(allocated(), started) << "a row that waits for its decode holds none";
  row.reset();
  EXPECT_EQ(allocated(), idle);
}

TEST_F(UnetBatchTest, RowsThatJoinAndLeaveTakeNoMoreThanTheirOwn) {
  ImageRequest request = Request(std::string(600, 'x'));  // nine chunks: more than a step of this size takes otherwise
  request.guidance_scale = 1.0;
  request.long_prompts = true;
  request.steps = 6;
  const ImageJob job = Job(request);
  auto first = Start(job, {}, 1);
  const auto second = Start(job, {}, 2);
  const int64_t each = first->bytes_to_keep();
  const auto peak_of = [this](const std::vector<Row*>& rows) {
    const auto meter = pipeline_->MeasurePeak();
    EXPECT_TRUE(pipeline_->Step(BatchPlan{rows}).ok());
    return meter->bytes();
  };
  peak_of({first.get()});
  const int64_t alone = peak_of({first.get()});
  EXPECT_LT(alone, each) << "the negative control: what a step takes would hide it";
  EXPECT_LT(peak_of({first.get(), second.get()}), each + each / 4 + 2 * alone) << "the first row's were copied whole";
  const int64_t together = peak_of({first.get(), second.get()});
  first.reset();
  EXPECT_LT(peak_of({second.get()}), together + each / 4);
}

}  // namespace
}  // namespace hotlora
