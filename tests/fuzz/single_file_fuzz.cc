// The header of a checkpoint of one file: which kind it is, what it says of its noise schedule, and the names of its
// tensors. Any safetensors file.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "src/base/error_details.h"
#include "src/sampling/scheduler_config.h"
#include "src/weights/leftovers.h"
#include "src/weights/safetensors_file.h"
#include "src/weights/sdxl_base_configs.h"
#include "src/weights/single_file_header.h"

namespace {

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void CheckRefusal(const absl::Status& status) {
  Check(hotlora::GetErrorDetails(status).reason == "MODEL_UNSUPPORTED" && !status.message().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const auto file = hotlora::SafetensorsFile::Parse(std::vector<std::byte>(begin, begin + size));
  if (!file.ok()) {
    return 0;
  }
  if (const absl::Status kind = hotlora::CheckKind(*file); !kind.ok()) {
    CheckRefusal(kind);
  }
  nlohmann::json scheduler_config = hotlora::SdxlBaseConfigs().scheduler_config;
  if (const absl::Status prediction = hotlora::ApplyPrediction(*file, scheduler_config); !prediction.ok()) {
    CheckRefusal(prediction);
  } else {
    Check(hotlora::ParseSchedulerConfig(scheduler_config).ok());
  }
  for (const hotlora::StoredTensor& tensor : file->tensors()) {
    (void)hotlora::IsLeftoverOfSingleFile(tensor.name);
  }
  return 0;
}
