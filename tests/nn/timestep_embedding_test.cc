#include "src/nn/timestep_embedding.h"

#include <cmath>
#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"

namespace hotlora {
namespace {

TEST(TimestepEmbeddingTest, SinusoidsFollowTheFormula) {
  c10::InferenceMode guard;
  const std::vector<float> values = {0.0f, 1.0f, 333.25f, 999.0f};
  for (const bool cosine_first : {true, false}) {
    for (const double shift : {0.0, 1.0}) {
      const at::Tensor y = SinusoidEmbedding({8, cosine_first, shift}, at::kCPU).forward(at::tensor(values));
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

// A step computes the sines and cosines of its timesteps, and nothing that is the same at each step.
TEST(TimestepEmbeddingTest, TheFrequenciesAreMadeOnce) {
  c10::InferenceMode guard;
  static int exponentials;
  exponentials = 0;
  const at::CallbackHandle handle = at::addGlobalCallback(
      at::RecordFunctionCallback([](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
        exponentials += std::string(function.name()) == "aten::exp" ? 1 : 0;
        return nullptr;
      }).scopes({at::RecordScope::FUNCTION}));
  const SinusoidEmbedding embedding({8}, at::kCPU);
  EXPECT_EQ(exponentials, 1);
  embedding.forward(at::tensor({999.0f}));
  embedding.forward(at::tensor({998.0f}));
  EXPECT_EQ(exponentials, 1);
  at::removeCallback(handle);
}

TEST(TimestepEmbeddingTest, RefusesHalfValues) {
  c10::InferenceMode guard;
  const SinusoidEmbedding embedding({8}, at::kCPU);
  EXPECT_THROW(embedding.forward(at::tensor({4096.0f}).to(at::kHalf)), c10::Error);
}

}  // namespace
}  // namespace hotlora
