#include "src/nn/feed_forward.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

TEST(GegluFeedForwardTest, GatesTheFirstHalfByTheGeluOfTheSecond) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const GegluFeedForward feed_forward(ParameterScope(parameters).In("ff"), 6);
  const at::Tensor x = at::randn({2, 3, 6});
  auto p = [&parameters](const char* name) { return parameters.taken.at(name).to(at::kDouble); };
  const at::Tensor both = at::matmul(x.to(at::kDouble), p("ff.net.0.proj.weight").t()) + p("ff.net.0.proj.bias");
  const at::Tensor gate = both.narrow(2, 24, 24);
  const at::Tensor hidden = both.narrow(2, 0, 24) * gate * 0.5 * (1 + at::erf(gate / std::sqrt(2.0)));
  const at::Tensor expected = at::matmul(hidden, p("ff.net.2.weight").t()) + p("ff.net.2.bias");
  at::Tensor y = at::empty_like(x);
  feed_forward.forward_into(x, {}, y);
  ExpectWithin(y, expected, 1e-5, "feed-forward");
}

}  // namespace
}  // namespace hotlora
