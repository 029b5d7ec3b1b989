// Golden pictures of diffusers with ControlNets, through the pipeline: alone, and as rows of one batch whose controls
// differ.

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/controls/control_store.h"
#include "src/image/image_decoder.h"
#include "src/pipeline/request_pictures.h"
#include "src/tensor/memory_stats.h"
#include "tests/golden_controlnets.h"
#include "tests/pipeline/golden_request.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

class ControlsGoldenTest : public PipelineFixture {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  void SetUp() override {
    PipelineFixture::SetUp();
    for (const char* const net : {"lines", "depth", "union"}) {
      WriteControlNetFolder(net, folder_.Under(net));
    }
    OpenControls();
  }

  void OpenControls() {
    ControlStoreOptions options;
    options.controls = folder_.path();
    options.host_bytes = options.device_bytes = kDeviceBytes;
    auto store = MakeControlStore(options, model_->config(), TestPlace(dtype_), &metrics_.controls());
    ASSERT_TRUE(store.ok()) << store.status();
    controls_ = *std::move(store);
  }

  void TearDown() override { nets_.clear(); }

  // The job's controls, as its request gets them; leases live as long as the fixture.
  std::shared_ptr<const Controls> Embed(const ImageJob& job) {
    if (job.controls.empty()) {
      return nullptr;
    }
    auto pictures = LoadRequestPictures(job, {});
    EXPECT_TRUE(pictures.ok()) << pictures.status();
    std::vector<ControlInput> inputs;
    for (size_t i = 0; i < job.controls.size(); ++i) {
      const ControlUse& use = job.controls[i];
      nets_.push_back(controls_->Acquire(use.name).value());
      inputs.push_back(
          {nets_.back()->control_net(), pictures->controls[i], use.scale, use.range, use.type.value_or(0)});
    }
    auto embedded = pipeline_->EmbedControls(inputs);
    EXPECT_TRUE(embedded.ok()) << embedded.status();
    return *std::move(embedded);
  }

  AdapterSchedule Adapters(const nlohmann::json& golden, const ImageJob& job) {
    return AdapterSchedule(Set(GoldenAdapters(golden)), job.denoise.evaluations());
  }

  static std::vector<nlohmann::json> Cases() { return GoldenRuns("control"); }

  TemporaryFolder folder_;
  std::unique_ptr<AdapterStore> controls_;
  std::vector<std::unique_ptr<AdapterLease>> nets_;
};

TEST_F(ControlsGoldenTest, PicturesEqualTheReference) {
  const std::vector<nlohmann::json> cases = Cases();
  EXPECT_EQ(cases.size(), 22u);
  for (const nlohmann::json& golden : cases) {
    const std::string name = golden.at("name");
    const ImageJob job = Job(MakeGoldenRequest(golden));
    const std::shared_ptr<const Controls> controls = Embed(job);
    const TensorMap expected = LoadTensors(GoldenPath(absl::StrCat("control/", golden.at("file").get<std::string>())));
    for (size_t i = 0; i < golden.at("images").size(); ++i) {
      const auto row = Finish(Start(job, Adapters(golden, job), job.seed + i, controls));
      ExpectWithin(RowLatentsForTest(*row), expected.at("latents").narrow(0, static_cast<int64_t>(i), 1),
                   golden.at("tolerance").at("latents").at("absolute"), name + " latents");
      const auto picture =
          DecodeImage(GoldenFile(absl::StrCat("control/", golden.at("images").at(i).get<std::string>())));
      ASSERT_TRUE(picture.ok()) << picture.status();
      EXPECT_LE(Difference(Decoded(*row), *picture), 1) << name;
    }
  }
}

// What the scheduler sets aside for controls before it has measured any.
TEST_F(ControlsGoldenTest, ControlsTakeNoMoreThanTheirShapesSay) {
  const c10::Device device = TestPlace().device;
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    nets_.clear();
    controls_.reset();
    Reload(dtype);
    OpenControls();
    const std::vector<nlohmann::json> cases = Cases();
    const auto two_nets =
        std::find_if(cases.begin(), cases.end(), [](const auto& golden) { return golden.at("name") == "two_nets"; });
    ASSERT_NE(two_nets, cases.end());
    ImageJob job = Job(MakeGoldenRequest(*two_nets));
    const ControlBytes bytes = pipeline_->ControlBytesOf(job.denoise.width, job.denoise.height);
    Embed(job);  // what is made once
    const int64_t before = GetMemoryStats(device).allocated;
    std::shared_ptr<const Controls> controls;
    {
      const std::unique_ptr<PeakMeter> meter = pipeline_->MeasurePeak();
      controls = Embed(job);
      EXPECT_LE(meter->bytes(), 2 * bytes.hint + bytes.embedding);
      EXPECT_GT(meter->bytes(), 2 * bytes.hint);
    }
    EXPECT_EQ(GetMemoryStats(device).allocated - before, 2 * bytes.hint);
    // The second step: the first one keeps what is made of texts and times.
    const auto step = [&](std::shared_ptr<const Controls> of_row) {
      const auto row = Start(job, {}, 1, std::move(of_row));
      EXPECT_TRUE(pipeline_->Step(BatchPlan{{row.get()}, mode_}).ok());
      const std::unique_ptr<PeakMeter> meter = pipeline_->MeasurePeak();
      EXPECT_TRUE(pipeline_->Step(BatchPlan{{row.get()}, mode_}).ok());
      return meter->bytes();
    };
    const int64_t plain = step(nullptr), controlled = step(controls);
    EXPECT_LE(controlled, plain + 2 * (2 * bytes.outputs + bytes.text)) << "two nets, and two rows under guidance";
    EXPECT_GT(controlled, plain + 2 * bytes.outputs) << "a step does not take its controls' outputs";
  }
}

// All cases of the most common size at once, each under its own adapters and controls, with one that has none.
TEST_F(ControlsGoldenTest, RowsOfOneBatchDoNotSeeEachOthersControls) {
  for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
    mode_ = mode;
    std::map<std::pair<uint32_t, uint32_t>, std::vector<nlohmann::json>> by_size;
    for (const nlohmann::json& golden : Cases()) {
      const nlohmann::json& arguments = golden.at("arguments");
      by_size[{arguments.at("width"), arguments.at("height")}].push_back(golden);
    }
    std::vector<nlohmann::json> cases =
        std::max_element(by_size.begin(), by_size.end(), [](const auto& a, const auto& b) {
          return a.second.size() < b.second.size();
        })->second;
    ASSERT_GE(cases.size(), 8u);
    nlohmann::json plain = cases.front();
    plain["control"] = nlohmann::json::array();
    cases.insert(cases.begin() + 2, plain);
    std::vector<RgbImage> alone;
    std::vector<std::unique_ptr<Row>> rows;
    for (const nlohmann::json& golden : cases) {
      const ImageJob job = Job(MakeGoldenRequest(golden));
      const auto start = [&] { return Start(job, Adapters(golden, job), job.seed, Embed(job)); };
      alone.push_back(Decoded(*Finish(start())));
      rows.push_back(start());
    }
    FinishTogether(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_LE(Difference(Decoded(*rows[i]), alone[i]), 2) << cases[i].at("name");
    }
    EXPECT_GT(Difference(alone[0], alone[2]), 20) << "the control has no effect";
  }
}

}  // namespace
}  // namespace hotlora
