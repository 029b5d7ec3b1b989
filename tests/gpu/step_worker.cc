#include "tests/gpu/step_worker.h"

#include <cmath>
#include <functional>
#include <iomanip>
#include <istream>
#include <numeric>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/unet.h"
#include "src/weights/sdxl_base_configs.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

constexpr int64_t kTokens = 77;

// Random weights of the size that networks are initialised with; norms that change nothing; no bias.
class SeededParameters : public ParameterSource {
 public:
  explicit SeededParameters(const ComputePlace& place)
      : options_(at::TensorOptions(place.dtype).device(place.device)) {}

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override { return TakeAdaptable(name, shape).live; }

  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape) override {
    if (shape.size() == 1) {
      return {absl::EndsWith(name, ".bias") ? at::zeros(shape, options_) : at::ones(shape, options_)};
    }
    const int64_t inputs = std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
    const auto format = shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    at::Tensor weight = at::empty(shape, options_, format);
    const double bound = 1 / std::sqrt(static_cast<double>(inputs));
    return {weight.uniform_(-bound, bound)};
  }

  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape) override {
    std::vector<int64_t> stacked = shape.vec();
    stacked[0] *= static_cast<int64_t>(names.size());
    return TakeAdaptable(names[0], stacked);
  }

 private:
  const at::TensorOptions options_;
};

UnetInput RandomInput(const UnetConfig& config, const ComputePlace& place, int64_t rows, int64_t size) {
  const at::TensorOptions options = at::TensorOptions(place.dtype).device(place.device);
  const at::TensorOptions exact = options.dtype(at::kFloat);
  return {at::randn({rows, config.in_channels, size, size}, options), at::full({rows}, 500.0, exact),
          at::randn({rows, kTokens, config.cross_attention_width}, options),
          at::randn({rows, config.addition_in - 6 * config.size_id_width}, options),
          at::full({rows, 6}, 1024.0, exact)};
}

// Seconds until the device has done `count` calls.
double Step(const Unet& unet, const UnetInput& input, const ComputePlace& place, int count) {
  Synchronize(place.device);
  const Stopwatch stopwatch;
  for (int i = 0; i < count; ++i) {
    unet.forward(input);
  }
  Synchronize(place.device);
  return stopwatch.Seconds();
}

}  // namespace

absl::Status RunStepWorker(const ComputePlace& place, bool tiny, std::istream& commands, std::ostream& answers) {
  const c10::InferenceMode inference;
  SetFloat32Precision(place.dtype);
  CheckpointConfigs configs = SdxlBaseConfigs();
  if (tiny) {
    ABSL_ASSIGN_OR_RETURN(configs, ReadConfigs(GoldenPath("pipeline"), /*tokenizers_needed=*/false));
  }
  ABSL_ASSIGN_OR_RETURN(const SdxlConfig config, ParseSdxlConfig(configs));
  SeededParameters parameters(place);
  const Unet unet(ParameterScope(parameters), config.unet);
  answers << configs.unet_config.dump() << std::endl;
  std::optional<UnetInput> input;
  std::string line;
  while (std::getline(commands, line)) {
    std::istringstream words(line);
    std::string command;
    int64_t rows = 0, size = 0;
    int count = 0;
    words >> command;
    if (command == "shape" && words >> rows >> size && rows > 0 && size > 0) {
      input = RandomInput(config.unet, place, rows, size);
      Step(unet, *input, place, 2);
      answers << "ready" << std::endl;
    } else if (command == "step" && words >> count && count > 0 && input.has_value()) {
      answers << std::setprecision(9) << Step(unet, *input, place, count) << std::endl;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("the command \"", line, "\" is neither shape ROWS SIZE nor, after one, step COUNT"));
    }
  }
  return absl::OkStatus();
}

}  // namespace hotlora
