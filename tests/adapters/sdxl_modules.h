#ifndef HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_
#define HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_

#include "src/sdxl/module_list.h"

namespace hotlora {

inline ModuleTable FullSdxl() { return ReadModuleList("").value(); }

// The model of tests/golden/pipeline.
inline ModuleTable TinySdxl() { return ReadModuleList(HOTLORA_GOLDEN_DIR "/pipeline").value(); }

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_
