#ifndef HOTLORA_TESTS_PIPELINE_PIPELINE_FIXTURE_H_
#define HOTLORA_TESTS_PIPELINE_PIPELINE_FIXTURE_H_

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/adapters/adapter_store.h"
#include "src/adapters/adapter_weights.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/sdxl_pipeline.h"
#include "src/request/validation.h"
#include "tests/golden_support.h"

namespace hotlora {

// The tiny golden checkpoint with its pipeline, and the golden adapters by name. On a GPU the test's own operators run
// on another stream than the pipeline's: what a test keeps of a row it brings to the CPU, which waits.
class PipelineFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kDeviceBytes = uint64_t{64} << 20;  // for adapters

  void SetUp() override {
    auto model = SdxlModel::Load(GoldenPath("pipeline"), TestPlace(dtype_));
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->get();
    AdapterStoreOptions options;
    options.directory = GoldenPath("adapters/files");
    auto memory = MakeAdapterMemory(TestPlace(dtype_), /*host_bytes=*/kDeviceBytes, kDeviceBytes);
    ASSERT_TRUE(memory.ok()) << memory.status();
    auto store = AdapterStore::Create(options, model_->modules(), &metrics_.adapters(), *std::move(memory));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto pipeline = MakeSdxlPipeline(*std::move(model), "golden", dora_, base_, conditioning_bytes_);
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    pipeline_ = *std::move(pipeline);
    unet_modules_ = pipeline_->info().unet_modules;
  }

  // Loads everything again, in another dtype.
  void Reload(c10::ScalarType dtype) {
    leases_.clear();
    pipeline_.reset();
    store_.reset();
    dtype_ = dtype;
    PipelineFixture::SetUp();
  }

  // The set of these adapters, each with its weight on everything it changes. The leases live as long as the fixture.
  AdapterSet Set(const std::vector<std::pair<std::string, double>>& adapters) {
    AdapterSet set;
    for (const auto& [name, weight] : adapters) {
      auto lease = store_->Acquire(name);
      EXPECT_TRUE(lease.ok()) << name << ": " << lease.status();
      set.adapters.push_back({(*lease)->weights(), (*lease)->info().content_sha256, weight, weight});
      leases_.push_back(*std::move(lease));
    }
    return set;
  }

  // The adapters of a job, as its request gets them. Leases as Set's.
  AdapterSchedule Schedule(const ImageJob& job) {
    AdapterSet set;
    for (const AdapterUse& use : job.adapters) {
      auto lease = store_->Acquire(use.name);
      EXPECT_TRUE(lease.ok()) << use.name << ": " << lease.status();
      const AdapterInfo& info = (*lease)->info();
      set.Add({(*lease)->weights(), info.content_sha256, use.weight, use.text_encoder_weight, use.range, use.blocks},
              info.targets);
      leases_.push_back(*std::move(lease));
    }
    return AdapterSchedule(set, job.denoise.evaluations());
  }

  // A validated job; fails the test where the request is bad.
  static ImageJob Job(const ImageRequest& request) {
    auto job = ValidateImageRequest(
        request, RequestLimits{.native_size = 128, .max_clip_skip = 2, .unet_modules = unet_modules_});
    EXPECT_TRUE(job.ok()) << job.status();
    return *std::move(job);
  }

  // nullptr where the job has no init image.
  std::shared_ptr<const InitLatents> Init(const ImageJob& job) {
    if (!job.has_init()) {
      return nullptr;
    }
    const auto picture = LoadInitPicture(job);
    EXPECT_TRUE(picture.ok()) << picture.status();
    auto init = pipeline_->EncodeInit(*picture, VaeForm::kWhole);
    EXPECT_TRUE(init.ok()) << init.status();
    return *std::move(init);
  }

  std::unique_ptr<Row> Start(const ImageJob& job, const AdapterSchedule& adapters, uint64_t seed,
                             std::shared_ptr<const Controls> controls = nullptr,
                             std::shared_ptr<const ImagePrompts> image_prompts = nullptr) {
    auto conditioning = pipeline_->Encode(job.prompts, job.denoise.cfg(), adapters.at(0).set, mode_);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    auto row = pipeline_->StartRow(job.denoise, seed, *std::move(conditioning), adapters, Init(job),
                                   std::move(controls), std::move(image_prompts));
    EXPECT_TRUE(row.ok()) << row.status();
    return *std::move(row);
  }

  // The row after all its steps, run alone.
  std::unique_ptr<Row> Finish(std::unique_ptr<Row> row) {
    while (!row->done()) {
      const absl::Status status = pipeline_->Step(BatchPlan{{row.get()}, mode_});
      EXPECT_TRUE(status.ok()) << status;
      if (!status.ok()) {
        break;
      }
    }
    return row;
  }

  // The rows after all their steps, run in one batch. The shorter ones leave it as they are done.
  void FinishTogether(const std::vector<std::unique_ptr<Row>>& rows) {
    while (true) {
      BatchPlan plan;
      plan.mode = mode_;
      for (const std::unique_ptr<Row>& row : rows) {
        if (!row->done()) {
          plan.rows.push_back(row.get());
        }
      }
      if (plan.rows.empty()) {
        return;
      }
      const absl::Status status = pipeline_->Step(plan);
      ASSERT_TRUE(status.ok()) << status;
    }
  }

  RgbImage Decoded(const Row& row) {
    auto image = pipeline_->Decode(row, VaeForm::kWhole);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  }

  // By how many of 255 a colour differs at most.
  static int Difference(const RgbImage& a, const RgbImage& b) {
    int largest = 0;
    for (size_t i = 0; i < a.pixels.size(); ++i) {
      largest = std::max(largest, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
    }
    return largest;
  }

  c10::ScalarType dtype_ = c10::ScalarType::Float;     // to be set before SetUp
  DoraWeighting dora_ = DoraWeighting::kScaledChange;  // to be set before SetUp
  BaseSource base_;                                    // to be set before SetUp
  uint64_t conditioning_bytes_ = 0;                    // to be set before SetUp
  ApplyMode mode_ = ApplyMode::kMerged;
  static inline std::vector<std::string> unet_modules_;  // of the checkpoint loaded last
  SdxlModel* model_ = nullptr;                           // pipeline_'s
  Metrics metrics_;
  std::unique_ptr<AdapterStore> store_;
  std::vector<std::unique_ptr<AdapterLease>> leases_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_PIPELINE_PIPELINE_FIXTURE_H_
