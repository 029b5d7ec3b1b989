#ifndef HOTLORA_TESTS_ADAPTER_FORMAT_SDXL_MODULES_H_
#define HOTLORA_TESTS_ADAPTER_FORMAT_SDXL_MODULES_H_

#include "src/sdxl/module_list.h"
#include "tests/golden_path.h"

namespace hotlora {

inline ModuleTable FullSdxl() { return ReadModuleList("").value(); }

// The model of tests/golden/pipeline.
inline ModuleTable TinySdxl() { return ReadModuleList(GoldenPath("pipeline")).value(); }

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ADAPTER_FORMAT_SDXL_MODULES_H_
