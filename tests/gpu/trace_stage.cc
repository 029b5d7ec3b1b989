// What the device did in a step, by classes of kernels.

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <c10/core/InferenceMode.h>

#include "src/base/enum_size.h"
#include "src/sdxl/unet.h"
#include "src/tensor/device.h"
#include "tests/gpu/cupti.h"
#include "tests/gpu/kernel_class.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/shapes.h"
#include "tests/gpu/stages.h"

namespace hotlora {
namespace {

constexpr int kSteps = 3;
constexpr double kMilliseconds = 1e-6;  // of a nanosecond

// What one step was made of: an entry for each step.
struct StepClasses {
  std::array<std::vector<double>, kEnumSize<KernelClass>> milliseconds;
  std::vector<double> launches, busy, span;
};

void AddStep(const std::vector<DeviceActivity>& activities, StepClasses* step) {
  std::array<double, kEnumSize<KernelClass>> sums{};
  uint64_t begin = activities.front().begin, end = 0;
  for (const DeviceActivity& activity : activities) {
    sums[static_cast<size_t>(ClassOfKernel(activity.name))] +=
        static_cast<double>(activity.end - activity.begin) * kMilliseconds;
    begin = std::min(begin, activity.begin);
    end = std::max(end, activity.end);
  }
  double busy = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    step->milliseconds[i].push_back(sums[i]);
    busy += sums[i];
  }
  step->launches.push_back(static_cast<double>(activities.size()));
  step->busy.push_back(busy);
  step->span.push_back(static_cast<double>(end - begin) * kMilliseconds);
}

// The kernels that took the longest in all, with their class: shows what the patterns miss.
nlohmann::ordered_json Longest(const std::vector<DeviceActivity>& activities) {
  std::map<std::string, double> by_name;
  for (const DeviceActivity& activity : activities) {
    by_name[activity.name] += static_cast<double>(activity.end - activity.begin) * kMilliseconds;
  }
  std::vector<std::pair<double, std::string>> longest;
  for (const auto& [name, time] : by_name) {
    longest.emplace_back(time, name);
  }
  std::sort(longest.rbegin(), longest.rend());
  longest.resize(std::min<size_t>(longest.size(), 30));
  nlohmann::ordered_json result = nlohmann::ordered_json::array();
  for (const auto& [time, name] : longest) {
    result.push_back({{"kernel", name.substr(0, 200)}, {"class", NameOf(ClassOfKernel(name))}, {"ms", time}});
  }
  return result;
}

}  // namespace

absl::Status RunTrace(Probe& probe) {
  const c10::InferenceMode inference;
  const UnetConfig config = ShapesOf(probe).unet;
  SeededParameters parameters(probe.device(), at::kBFloat16);
  const Unet unet(ParameterScope(parameters), config);
  for (const int64_t pixels : {1024, 512}) {
    const std::string name = absl::StrCat("trace.bfloat16.", pixels, ".rows_2");
    if (!HasTime(probe, name)) {
      continue;
    }
    const UnetInput input = MakeUnetInput(config, 2, SizeOf(probe, pixels) / 8, probe.device(), at::kBFloat16);
    const auto step = [&] {
      unet.forward(input);
      Synchronize(probe.device());
    };
    step();
    StepClasses classes;
    for (int i = 0; i < kSteps; ++i) {
      const absl::StatusOr<std::vector<DeviceActivity>> activities = RecordActivities(step);
      if (!activities.ok()) {
        return activities.status();
      }
      if (activities->empty()) {
        return absl::UnavailableError("CUPTI recorded no work of this device");
      }
      AddStep(*activities, &classes);
      if (i == 0) {
        probe.AddNote(absl::StrCat(name, ".longest"), Longest(*activities));
      }
    }
    for (size_t i = 0; i < classes.milliseconds.size(); ++i) {
      probe.AddFigure(absl::StrCat(name, ".", NameOf(static_cast<KernelClass>(i))), "ms", classes.milliseconds[i]);
    }
    probe.AddFigure(absl::StrCat(name, ".busy"), "ms", classes.busy);
    probe.AddFigure(absl::StrCat(name, ".span"), "ms", classes.span);
    probe.AddFigure(absl::StrCat(name, ".launches"), "launches", classes.launches);
  }
  return absl::OkStatus();
}

}  // namespace hotlora
