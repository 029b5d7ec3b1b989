// gpu_probe, the one program of all GPU tests and measurements: see probe.h for what it writes.
//
//   gpu_probe --list                        prints each stage's name and time limit in seconds, in order
//   gpu_probe --stage NAME --out FILE       runs one stage on cuda:0 and appends its lines to FILE
//     [--device cuda:0|cpu|sim:0] [--size full|tiny] [--seconds LIMIT]
//   gpu_probe --steps bfloat16 [--device] [--size]
//                                           times UNet calls by commands from standard input (step_worker.h)
//
// tiny has the smallest shapes that run the same code: for a CPU, the simulated device (tests/fakes/sim_device), and
// under compute-sanitizer.
//
// Exit status: 0 ok; 1 failed; 2 usage; 3 unavailable: the machine lacks what the stage needs; 128 + N: signal N.

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <CLI/CLI.hpp>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include "src/base/stopwatch.h"
#include "src/tensor/device.h"
#include "src/tensor/device_kernels.h"
#include "tests/fakes/sim_device/merge_kernel.h"
#include "tests/fakes/sim_device/sim_device.h"
#include "tests/gpu/gpu_watch.h"
#include "tests/gpu/probe.h"
#include "tests/gpu/stage_watch.h"
#include "tests/gpu/stages.h"
#include "tests/gpu/step_worker.h"

namespace hotlora {
namespace {

constexpr int kUsage = 2;

absl::StatusOr<c10::Device> OpenDevice(const std::string& name) {
  if (absl::StartsWith(name, "sim")) {
    RegisterSimDevice();
    SetKernels(c10::DeviceType::PrivateUse1, &kSimKernels);
    return c10::Device(name);
  }
  if (name == "auto") {
    return absl::InvalidArgumentError("device is \"auto\"; a stage is about one device: give cuda:N, cpu or sim:N");
  }
  const absl::StatusOr<ComputePlace> place = ResolvePlace(name, "float32");
  if (place.ok()) {
    return place->device;
  }
  // With a driver, something of ours or of LibTorch's is wrong.
  if (absl::StartsWith(name, "cuda") && dlopen("libcuda.so.1", RTLD_NOW) == nullptr) {
    return absl::UnavailableError(absl::StrCat("no driver of a GPU (libcuda.so.1); ", place.status().message()));
  }
  return place.status();
}

absl::Status RunGuarded(const Stage& stage, Probe& probe) {
  try {
    const Stopwatch opening;
    const absl::StatusOr<c10::Device> device = OpenDevice(probe.device_name());
    if (!device.ok()) {
      return device.status();
    }
    probe.AddFigure("device.open", "ms", opening.Seconds() * 1e3);
    probe.SetDevice(*device);
    probe.SetDoing("it ran");
    const GpuWatch watch(probe);
    return stage.run(probe);
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

int RunAndReport(const Stage& stage, const Probe::Options& options) {
  static Probe probe(options);  // the watch has it until the process ends
  WatchStage(probe);
  const absl::Status status = RunGuarded(stage, probe);
  if (!status.ok()) {
    std::cerr << "gpu_probe: stage " << stage.name << ": " << status.message() << "\n";
  }
  return probe.Finish(status.ok() ? "ok" : absl::IsUnavailable(status) ? "unavailable" : "failed", status.message());
}

int ServeSteps(const std::string& device_name, c10::ScalarType dtype, bool tiny) {
  absl::Status status;
  try {
    const absl::StatusOr<c10::Device> device = OpenDevice(device_name);
    status = device.ok() ? RunStepWorker({*device, dtype}, tiny, std::cin, std::cout) : device.status();
  } catch (const c10::Error& error) {
    status = absl::InternalError(error.what_without_backtrace());
  }
  if (!status.ok()) {
    std::cerr << "gpu_probe: --steps: " << status.message() << "\n";
  }
  return status.ok() ? 0 : 1;
}

int Main(int argc, char** argv) {
  Probe::Options options;
  options.command = absl::StrJoin(std::vector<std::string>(argv, argv + argc), " ");
  options.device = "cuda:0";
  bool list = false;
  std::string size = "full";
  CLI::App app("GPU tests and measurements of hotlora");
  app.add_flag("--list", list, "print the stages with their time limits in seconds");
  app.add_option("--stage", options.stage, "the stage to run");
  app.add_option("--device", options.device, "cuda:N, cpu or sim:N")->capture_default_str();
  app.add_option("--size", size, "full or tiny")->check(CLI::IsMember({"full", "tiny"}))->capture_default_str();
  app.add_option("--seconds", options.seconds, "time limit instead of the stage's own")->check(CLI::PositiveNumber);
  app.add_option("--out", options.out, "file to append the lines to");
  std::optional<c10::ScalarType> steps;
  app.add_option("--steps", steps, "time UNet calls in this dtype by commands from standard input")
      ->transform(CLI::CheckedTransformer(std::map<std::string, c10::ScalarType>{
          {"float32", c10::kFloat}, {"bfloat16", c10::kBFloat16}, {"float16", c10::kHalf}}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  if (list) {
    for (const Stage& stage : Stages()) {
      std::cout << stage.name << " " << stage.seconds << "\n";
    }
    return 0;
  }
  if (steps.has_value()) {
    return ServeSteps(options.device, *steps, size == "tiny");
  }
  const auto stage = std::find_if(Stages().begin(), Stages().end(),
                                  [&](const Stage& candidate) { return candidate.name == options.stage; });
  if (stage == Stages().end() || options.out.empty()) {
    std::cerr << "--stage is \"" << options.stage << "\" and --out is \"" << options.out
              << "\"; give a stage that --list prints, and a file to append to\n";
    return kUsage;
  }
  options.tiny = size == "tiny";
  if (options.seconds == 0) {
    options.seconds = stage->seconds;
  }
  try {
    return RunAndReport(*stage, options);
  } catch (const std::exception& error) {
    std::cerr << "gpu_probe: " << error.what() << "\n";
    return 1;
  }
}

}  // namespace
}  // namespace hotlora

// CUDA's libraries and the simulated device's threads are not to be torn down at exit.
int main(int argc, char** argv) {
  const int status = hotlora::Main(argc, argv);
  std::cout.flush();
  std::_Exit(status);
}
