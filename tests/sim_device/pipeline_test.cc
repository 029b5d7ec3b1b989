// The pipeline on the simulated device against the CPU, and its faults. Most of what it does there is tested by the
// programs that CMakeLists.txt runs with the device preloaded.

#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/sim_device/sim_pipeline_fixture.h"

namespace hotlora {
namespace {

// A case's tensors do not depend on the device: the CPU's generator makes them.
UnetInput InputOf(const SdxlModel& model, int64_t context, int64_t pooled) {
  at::manual_seed(3);
  const at::Tensor sample = at::randn({2, 4, 16, 16}), hidden = at::randn({2, 77, context});
  const at::Tensor text = at::randn({2, pooled}), ids = at::full({2, 6}, 128.0);
  const c10::Device device = model.place().device;
  return {sample.to(device), at::full({2}, 501.0).to(device), hidden.to(device), text.to(device), ids.to(device)};
}

TEST(SimUnetTest, EqualsTheCpusOnTheDemoModel) {
  RegisterSimDevice();
  const c10::InferenceMode inference;
  at::set_num_threads(1);
  const std::string demo = GoldenPath("../../deploy/demo/model");
  std::vector<at::Tensor> outputs;
  for (const c10::Device device : {c10::Device(c10::kCPU), SimDevice(1)}) {
    const auto model = SdxlModel::Load(demo, {device, at::kFloat});
    ASSERT_TRUE(model.ok()) << model.status();
    const SdxlConfig& config = (*model)->config();
    const int64_t context = config.text_encoder.width + config.text_encoder_2.width;
    outputs.push_back((*model)->unet().forward(InputOf(**model, context, config.text_encoder_2.projection)).cpu());
  }
  EXPECT_LT(RelativeError(outputs[1], outputs[0]), 1e-5);
}

TEST_F(SimPipelineTest, MakesTheCpusImage) {
  const ImageJob job = SmallJob();
  std::vector<at::Tensor> latents;
  for (const char* const device : {"sim:1", "cpu"}) {  // sim:0 is the thread's current device
    setenv("HOTLORA_TEST_DEVICE", device, /*replace=*/1);
    Reload(at::kFloat);
    const AdapterSet set = Set({{"peft_attention", 1.0}, {"lycoris_loha", 0.5}});
    const std::unique_ptr<Row> row = Finish(Start(job, set, 5));
    latents.push_back(RowLatentsForTest(*row).cpu());
  }
  EXPECT_LT(RelativeError(latents[0], latents[1]), 1e-4);
}

TEST_F(SimPipelineTest, RowsOfABatchAreAsIfAlone) {
  const ImageJob job = SmallJob();
  const std::unique_ptr<Row> first = Start(job, {}, 1), second = Start(job, {}, 2), alone = Start(job, {}, 2);
  for (int step = 0; step < 2; ++step) {
    ASSERT_TRUE(pipeline_->Step(BatchPlan{{first.get(), second.get()}, mode_}).ok());
    StepOnce(*alone);
  }
  EXPECT_LT(RelativeError(RowLatentsForTest(*second), RowLatentsForTest(*alone)), 1e-5);
  EXPECT_GT(RelativeError(RowLatentsForTest(*first), RowLatentsForTest(*alone)), 0.1);
}

// The step goes on where it was once there is memory again.
TEST_F(SimPipelineTest, StepWithoutMemoryFailsAndCanBeTriedAgain) {
  ImageRequest request;
  request.prompt = "large enough to need more than is cached";
  request.width = request.height = 512;
  const ImageJob job = Job(request);
  const std::unique_ptr<Row> row = Start(job, {}, 4), undisturbed = Start(job, {}, 4);
  auto* const allocator = c10::getDeviceAllocator(c10::DeviceType::PrivateUse1);
  allocator->emptyCache();
  SetSimMemoryLimit(0, allocator->getDeviceStats(0).reserved_bytes[0].current);
  const absl::Status status = pipeline_->Step(BatchPlan{{row.get()}, mode_});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  SetSimMemoryLimit(0, kSimMemory);
  StepOnce(*row);
  StepOnce(*undisturbed);
  EXPECT_TRUE(at::equal(RowLatentsForTest(*row).cpu(), RowLatentsForTest(*undisturbed).cpu()));
}

TEST_F(SimPipelineTest, SwapsTakeNoMemoryFromTheDevice) {
  const AdapterSet one = Set({{"kohya_sgm_mixed_ranks_and_alphas", 0.8}}), other = Set({{"lycoris_locon_tucker", 1.0}});
  const std::unique_ptr<Row> row = Start(SmallJob(), {}, 4);
  const auto round = [&] {
    for (const AdapterSet& set : {one, other, AdapterSet()}) {
      ASSERT_TRUE(pipeline_->Apply(set, ApplyMode::kMerged).ok());
    }
    StepOnce(*row);
  };
  auto* const allocator = c10::getDeviceAllocator(c10::DeviceType::PrivateUse1);
  round();
  const auto before = allocator->getDeviceStats(0);
  round();
  round();
  const auto after = allocator->getDeviceStats(0);
  EXPECT_EQ(after.num_device_alloc, before.num_device_alloc);
  EXPECT_EQ(after.allocated_bytes[0].current, before.allocated_bytes[0].current);
}

}  // namespace
}  // namespace hotlora
