#ifndef HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_
#define HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_

#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "src/sdxl/sdxl_model.h"
#include "tests/golden_support.h"

namespace hotlora {

inline std::string TinyCheckpoint() { return GoldenPath("pipeline"); }

// The tiny checkpoint under tests/golden/pipeline, on the test device. Loaded once for each pair of dtypes
// and test program.
inline const SdxlModel& TinyModel(c10::ScalarType dtype = c10::ScalarType::Float,
                                  c10::ScalarType vae_dtype = c10::ScalarType::Float) {
  static std::map<std::pair<c10::ScalarType, c10::ScalarType>, std::unique_ptr<SdxlModel>> models;
  std::unique_ptr<SdxlModel>& model = models[{dtype, vae_dtype}];
  if (model == nullptr) {
    ComputePlace place = TestPlace(dtype);
    place.vae_dtype = vae_dtype;
    absl::StatusOr<std::unique_ptr<SdxlModel>> loaded = SdxlModel::Load(TinyCheckpoint(), place);
    TORCH_CHECK(loaded.ok(), loaded.status().ToString());
    model = *std::move(loaded);
  }
  return *model;
}

// `actual`, which is float32, was computed in bfloat16 or float16: it is near to diffusers' result in float32, but not as
// near as one of float32 is. Networks round some 40 times in a row; eps is 2^-9 in bfloat16, 2^-12 in float16.
inline void ExpectFromHalfType(const at::Tensor& actual, const at::Tensor& expected, c10::ScalarType dtype) {
  const double tolerance = dtype == at::kHalf ? 2.5e-3 : 2e-2;
  EXPECT_EQ(actual.scalar_type(), at::kFloat);
  EXPECT_GT(RelativeError(actual, expected), tolerance / 100) << "it is computed in float32";
  ExpectError(RelativeError(actual, expected), tolerance, c10::toString(dtype));
}

// What the golden calls of networks of the UNet's kind take.
inline UnetInput GoldenUnetInput(const TensorMap& t, c10::ScalarType dtype = c10::ScalarType::Float) {
  const c10::Device device = TestPlace().device;
  const at::Tensor sample = t.at("sample");
  UnetInput input;
  input.sample = sample.to(device, dtype);
  input.timesteps = t.at("timestep").expand({sample.size(0)}).to(device, at::kFloat);
  input.encoder_hidden_states = t.at("encoder_hidden_states").to(device, dtype);
  input.pooled = t.at("text_embeds").to(device, dtype);
  input.time_ids = t.at("time_ids").to(device);
  return input;
}

// Some rows of an input without control or image prompts.
inline UnetInput RowsOfInput(const UnetInput& input, int64_t first, int64_t rows) {
  UnetInput some = input;
  for (at::Tensor* const x :
       {&some.sample, &some.timesteps, &some.encoder_hidden_states, &some.pooled, &some.time_ids}) {
    *x = x->narrow(0, first, rows);
  }
  return some;
}

// The rows of an input, and once more others that differ from them.
inline UnetInput DoubledInput(const UnetInput& input) {
  UnetInput both = input;
  for (at::Tensor* const x :
       {&both.sample, &both.timesteps, &both.encoder_hidden_states, &both.pooled, &both.time_ids}) {
    *x = at::cat({*x, *x + 0.25});
  }
  return both;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SDXL_MODEL_FIXTURE_H_
