#ifndef HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_
#define HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "src/sdxl/sdxl_model.h"
#include "tests/golden_support.h"

namespace hotlora {

inline std::string TinyCheckpoint() { return GoldenPath("pipeline"); }

// The tiny checkpoint under tests/golden/pipeline, on the test device. Loaded once for each dtype
// and test program.
inline const SdxlModel& TinyModel(c10::ScalarType dtype = c10::ScalarType::Float) {
  static std::map<c10::ScalarType, std::unique_ptr<SdxlModel>> models;
  std::unique_ptr<SdxlModel>& model = models[dtype];
  if (model == nullptr) {
    absl::StatusOr<std::unique_ptr<SdxlModel>> loaded = SdxlModel::Load(TinyCheckpoint(), TestPlace(dtype));
    TORCH_CHECK(loaded.ok(), loaded.status().ToString());
    model = *std::move(loaded);
  }
  return *model;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_
