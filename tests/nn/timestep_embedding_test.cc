#include "src/nn/timestep_embedding.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"

namespace hotlora {
namespace {

TEST(TimestepEmbeddingTest, SinusoidsFollowTheFormula) {
  c10::InferenceMode guard;
  const std::vector<float> values = {0.0f, 1.0f, 333.25f, 999.0f};
  for (const bool cosine_first : {true, false}) {
    for (const double shift : {0.0, 1.0}) {
      const at::Tensor y = SinusoidEmbedding(at::tensor(values), {8, cosine_first, shift});
      for (size_t n = 0; n < values.size(); ++n) {
        for (int i = 0; i < 4; ++i) {
          const double angle = values[n] * std::exp(-std::log(10000.0) * i / (4 - shift));
          // float32 angles up to 999 are off by up to 6e-5.
          EXPECT_NEAR(y[n][i].item<double>(), cosine_first ? std::cos(angle) : std::sin(angle), 2e-4);
          EXPECT_NEAR(y[n][4 + i].item<double>(), cosine_first ? std::sin(angle) : std::cos(angle), 2e-4);
        }
      }
    }
  }
}

TEST(TimestepEmbeddingTest, RefusesHalfValues) {
  c10::InferenceMode guard;
  EXPECT_THROW(SinusoidEmbedding(at::tensor({4096.0f}).to(at::kHalf), {8}), c10::Error);
}

}  // namespace
}  // namespace hotlora
