// Times UNet calls of a checkpoint, by command over standard input, so that another program can
// interleave its own:
//
//   unet_step_bench --model DIR --inputs FILE.safetensors [--threads N] [--dtype float32] [--served]
//     step K      runs K calls, prints their wall-clock and CPU seconds
//     output F    runs one call and writes its result to F as raw float32
//     operators K runs K calls, prints the seconds of each operator as JSON: of its own work, without what it calls
//
// With --served, steps are as the server has them: keys and values of the text and the parts of the time embedding are
// computed before the first step; this is not counted. Else each call computes them.
//
// The inputs file holds sample, timesteps, encoder_hidden_states, pooled and time_ids (unet.h,
// UnetInput).

#include <chrono>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <CLI/CLI.hpp>

#include "src/sdxl/sdxl_model.h"
#include "src/tensor/device.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

using Call = absl::FunctionRef<at::Tensor()>;

void Step(Call call, const ComputePlace& place, int steps) {
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t start_cpu = std::clock();
  for (int i = 0; i < steps; ++i) {
    call();
  }
  Synchronize(place.device);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  std::cout << std::setprecision(9) << wall.count() << " "
            << static_cast<double>(std::clock() - start_cpu) / CLOCKS_PER_SEC << std::endl;
}

// Seconds of each operator that this thread calls.
class OperatorClock {
 public:
  OperatorClock() {
    calls_ = {Operator()};
    seconds_.clear();
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&Begin, &End));
  }
  ~OperatorClock() { at::removeCallback(handle_); }

  static std::string Json() {
    std::ostringstream json;
    for (const auto& [name, seconds] : seconds_) {
      json << (json.tellp() == 0 ? "{" : ", ") << "\"" << name << "\": " << seconds;
    }
    return json.str() + "}";
  }

 private:
  struct Operator {
    std::chrono::steady_clock::time_point begin;
    double inner = 0.0;  // seconds of the calls inside
  };

  static std::unique_ptr<at::ObserverContext> Begin(const at::RecordFunction&) {
    calls_.push_back({std::chrono::steady_clock::now()});
    return nullptr;
  }
  static void End(const at::RecordFunction& function, at::ObserverContext*) {
    const std::chrono::duration<double> all = std::chrono::steady_clock::now() - calls_.back().begin;
    seconds_[function.name()] += all.count() - calls_.back().inner;
    calls_.pop_back();
    calls_.back().inner += all.count();
  }

  static thread_local std::vector<Operator> calls_;  // those under way; the first stands for the caller of all
  static thread_local std::map<std::string, double> seconds_;
  at::CallbackHandle handle_;
};

thread_local std::vector<OperatorClock::Operator> OperatorClock::calls_;
thread_local std::map<std::string, double> OperatorClock::seconds_;

std::string Operators(Call call, int steps) {
  const OperatorClock clock;
  for (int i = 0; i < steps; ++i) {
    call();
  }
  return clock.Json();
}

int Run(const std::string& folder, const std::string& inputs, const ComputePlace& place, bool served) {
  c10::InferenceMode guard;
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(folder, place);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  TensorMap t = LoadTensors(inputs);
  auto compute = [&](const char* name) { return t.at(name).to(place.device, place.dtype); };
  const UnetInput input{compute("sample"), t.at("timesteps").to(place.device), compute("encoder_hidden_states"),
                        compute("pooled"), t.at("time_ids").to(place.device)};
  const Unet& unet = (*model)->unet();
  const UnetStep step = unet.Project(input);
  const auto call = [&] { return served ? unet.Predict(step) : unet.forward(input); };
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command, argument;
    words >> command >> argument;
    if (command == "step") {
      Step(call, place, std::stoi(argument));
    } else if (command == "operators") {
      std::cout << Operators(call, std::stoi(argument)) << std::endl;
    } else if (command == "output") {
      const at::Tensor output = call().to(at::kFloat).cpu().contiguous();
      std::ofstream(argument, std::ios::binary)
          .write(static_cast<const char*>(output.const_data_ptr()), static_cast<std::streamsize>(output.nbytes()));
      std::cout << "written" << std::endl;
    }
  }
  return 0;
}

}  // namespace
}  // namespace hotlora

int main(int argc, char** argv) {
  std::string model, inputs, device = "cpu", dtype = "float32";
  int threads = 1;
  bool served = false;
  CLI::App app("Times UNet calls of a checkpoint");
  app.add_option("--model", model)->required();
  app.add_option("--inputs", inputs)->required();
  app.add_option("--device", device);
  app.add_option("--dtype", dtype);
  app.add_option("--threads", threads);
  app.add_flag("--served", served);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  absl::StatusOr<hotlora::ComputePlace> place = hotlora::ResolvePlace(device, dtype);
  if (!place.ok()) {
    std::cerr << place.status() << "\n";
    return 1;
  }
  return hotlora::Run(model, inputs, *place, served);
}
