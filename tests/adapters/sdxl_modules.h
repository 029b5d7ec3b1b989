#ifndef HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_
#define HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_

// Module tables of SDXL, made from its shape alone, so that these tests need no checkpoint.

#include <cstdint>
#include <vector>

#include "src/weights/module_table.h"

namespace hotlora {

struct SdxlShape {
  std::vector<int64_t> channels;
  std::vector<int> depth;  // of the transformers, by down block; the first block has none
  int64_t context;
  int64_t added_width;  // pooled text and sizes
  int64_t text_width[2];
  int text_layers[2];
};

inline SdxlShape FullSdxl() { return {{320, 640, 1280}, {0, 2, 10}, 2048, 2816, {768, 1280}, {12, 32}}; }

// The model of tests/golden/pipeline.
inline SdxlShape TinySdxl() { return {{32, 32, 64}, {0, 1, 2}, 24, 64, {8, 16}, {3, 4}}; }

ModuleTable MakeModules(const SdxlShape& shape);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ADAPTERS_SDXL_MODULES_H_
