#ifndef HOTLORA_SRC_SDXL_MODULE_LIST_H_
#define HOTLORA_SRC_SDXL_MODULE_LIST_H_

#include <string>

#include "absl/status/statusor.h"

#include "src/weights/module_table.h"

namespace hotlora {

struct SdxlConfig;  // sdxl_config.h

// What adapters may change in a checkpoint of these configs, without a checkpoint or LibTorch: the entries of
// SdxlModel::modules(), by component, inside it from the input to the output.
ModuleTable ModuleListOf(const SdxlConfig& config);

// That of stock SDXL, or of the diffusers-layout folder `model_config` if it is not empty: its configs alone are
// read. Errors as ReadConfigs and ParseSdxlConfig.
absl::StatusOr<ModuleTable> ReadModuleList(const std::string& model_config);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_MODULE_LIST_H_
