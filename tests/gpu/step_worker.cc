#include "tests/gpu/step_worker.h"

#include <iomanip>
#include <istream>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include <c10/core/InferenceMode.h>

#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/unet.h"
#include "src/weights/sdxl_base_configs.h"
#include "tests/golden_path.h"
#include "tests/gpu/shapes.h"

namespace hotlora {
namespace {

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
  SeededParameters parameters(place.device, place.dtype);
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
      input = MakeUnetInput(config.unet, rows, size, place.device, place.dtype);
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
