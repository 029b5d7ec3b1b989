// What a step, a swap and a decode ask of a device, against the figures in step_counts.txt beside this file. A
// figure that grows fails the test: it is a wait, an allocation or a launch that each step of each user pays for. To
// accept the figures of a change, run the test with HOTLORA_TEST_WRITE_COUNTS=1 and commit the file.

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "src/tensor/device_kernels.h"
#include "tests/fakes/sim_device/merge_kernel.h"
#include "tests/sim_device/sim_pipeline_fixture.h"

namespace hotlora {
namespace {

using Figures = std::map<std::string, int64_t>;

std::string FiguresPath() { return GoldenPath("../sim_device/step_counts.txt"); }

Figures ReadFigures() {
  std::ifstream stream(FiguresPath());
  Figures figures;
  std::string name;
  for (int64_t value = 0; stream >> name >> value;) {
    figures[name] = value;
  }
  return figures;
}

std::string Print(const Figures& figures) {
  std::ostringstream text;
  for (const auto& [name, value] : figures) {
    text << name << ' ' << value << '\n';
  }
  return text.str();
}

constexpr auto kType = c10::DeviceType::PrivateUse1;

// With the kernel of the merge, so that a swap takes the way that it takes on a GPU.
class StepCountsTest : public SimPipelineTest {
 protected:
  StepCountsTest() { SetKernels(kType, &kSimKernels); }
  ~StepCountsTest() override { SetKernels(kType, nullptr); }

  // What `work` asks for, under `what`; with the launches of each operator if they are wanted.
  template <typename Work>
  void Measure(const std::string& what, bool operators, const Work& work) {
    const SimCounts before = SimCountsOfThisThread();
    const Figures launches = SimLaunches(), drained = DrainedOperators();
    work();
    const SimCounts counts = SimCountsOfThisThread() - before;
    figures_[what + ".synchronizations"] = counts.synchronizations;
    figures_[what + ".blocking_copies"] = counts.blocking_copies;
    figures_[what + ".segments"] = counts.segments;
    if (operators) {
      figures_[what + ".allocations"] = counts.allocations;
      figures_[what + ".launches"] = counts.launches;
      for (const auto& [name, count] : SimLaunches()) {
        const auto known = launches.find(name);
        const int64_t more = count - (known == launches.end() ? 0 : known->second);
        if (more > 0) {
          figures_[what + ".launches." + name] = more;
        }
      }
    }
    EXPECT_EQ(DrainedOperators(), drained) << what << " has an operator without a Meta kernel";
  }

  Figures figures_;
};

TEST_F(StepCountsTest, NoneGrows) {
  // `one` changes modules that `other` does not, so that swap_over restores some and merges others.
  const AdapterSet none, one = Set({{"peft_attention", 1.0}}), other = Set({{"kohya_sgm_mixed_ranks_and_alphas", 0.8}});
  const std::unique_ptr<Row> row = Start(SmallJob(), none, 7);
  StepOnce(*row);
  StepOnce(*row);
  Measure("step", /*operators=*/true, [&] { StepOnce(*row); });

  for (int round = 0; round < 2; ++round) {  // the first takes segments
    const auto swap = [&](const AdapterSet& set) {
      const auto report = pipeline_->Apply(set, ApplyMode::kMerged);
      EXPECT_TRUE(report.ok()) << report.status();
    };
    Measure("swap_in", /*operators=*/true, [&] { swap(one); });
    Measure("swap_over", /*operators=*/true, [&] { swap(other); });
    Measure("swap_out", /*operators=*/true, [&] { swap(none); });
  }

  mode_ = ApplyMode::kSide;
  const std::unique_ptr<Row> beside = Start(SmallJob(), other, 7);
  StepOnce(*beside, mode_);
  StepOnce(*beside, mode_);
  Measure("side_step", /*operators=*/true, [&] { StepOnce(*beside, mode_); });

  for (int round = 0; round < 2; ++round) {
    Measure("decode", /*operators=*/false, [&] { EXPECT_TRUE(pipeline_->Decode(*row, VaeForm::kWhole).ok()); });
  }

  if (std::getenv("HOTLORA_TEST_WRITE_COUNTS") != nullptr) {
    std::ofstream(FiguresPath()) << Print(figures_);
  }
  const Figures golden = ReadFigures();
  ASSERT_FALSE(golden.empty()) << FiguresPath();
  for (const auto& [name, value] : figures_) {
    const auto known = golden.find(name);
    const int64_t before = known == golden.end() ? 0 : known->second;
    EXPECT_LE(value, before) << name << " grew from " << before << " to " << value;
    if (value < before) {
      RecordProperty(name, std::to_string(before) + " became " + std::to_string(value));
    }
  }
  EXPECT_EQ(figures_["step.segments"], 0);
  EXPECT_LE(figures_["step.synchronizations"], 1);
}

}  // namespace
}  // namespace hotlora
