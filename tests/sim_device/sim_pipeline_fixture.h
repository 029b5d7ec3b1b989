#ifndef HOTLORA_TESTS_SIM_DEVICE_SIM_PIPELINE_FIXTURE_H_
#define HOTLORA_TESTS_SIM_DEVICE_SIM_PIPELINE_FIXTURE_H_

#include <cstdlib>
#include <memory>
#include <string>

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include "tests/fakes/sim_device/sim_device.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {

// The tiny golden checkpoint with its pipeline on sim:0, in float32.
class SimPipelineTest : public PipelineFixture {
 protected:
  SimPipelineTest() {
    RegisterSimDevice();
    setenv("HOTLORA_TEST_DEVICE", "sim:0", /*replace=*/1);
  }
  ~SimPipelineTest() override {
    SetSimMemoryLimit(0, kSimMemory);
    ClearSimError();
    unsetenv("HOTLORA_TEST_DEVICE");
  }

  // An image under guidance, of the smallest size that has every stage.
  static ImageJob SmallJob() {
    ImageRequest request;
    request.prompt = "a castle by the sea";
    request.width = request.height = 128;
    request.steps = 8;
    return Job(request);
  }

  void StepOnce(Row& row, ApplyMode mode = ApplyMode::kMerged) {
    const absl::Status status = pipeline_->Step(BatchPlan{{&row}, mode});
    EXPECT_TRUE(status.ok()) << status;
  }
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SIM_DEVICE_SIM_PIPELINE_FIXTURE_H_
