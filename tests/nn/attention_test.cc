#include "src/nn/attention.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

// The formula, head by head, in double.
at::Tensor ReferenceAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                              bool causal) {
  const int64_t size = q.size(2) / heads;
  std::vector<at::Tensor> outputs;
  for (int64_t head = 0; head < heads; ++head) {
    auto part = [&](const at::Tensor& x) { return x.narrow(2, head * size, size).to(at::kDouble); };
    at::Tensor scores = at::matmul(part(q), part(k).transpose(1, 2)) / std::sqrt(static_cast<double>(size));
    if (causal) {
      const at::Tensor hidden = at::ones({q.size(1), k.size(1)}).triu(1).to(at::kBool);
      scores = scores.masked_fill(hidden, -INFINITY);
    }
    outputs.push_back(at::matmul(scores.softmax(-1), part(v)));
  }
  return at::cat(outputs, 2);
}

TEST(AttentionTest, HeadsFollowTheFormula) {
  c10::InferenceMode guard;
  at::manual_seed(3);
  const at::Tensor q = at::randn({2, 5, 24}), k = at::randn({2, 7, 24}), v = at::randn({2, 7, 24});
  ExpectWithin(AttendHeads(q, k, v, 3), ReferenceAttention(q, k, v, 3, false), 1e-5, "heads");
}

TEST(AttentionTest, CausalTokensDoNotSeeLaterOnes) {
  c10::InferenceMode guard;
  at::manual_seed(4);
  const at::Tensor x = at::randn({2, 6, 16});
  ExpectWithin(AttendHeads(x, x, x, 2, Masking::kCausal), ReferenceAttention(x, x, x, 2, true), 1e-5, "causal");
}

TEST(AttentionTest, AttendsToTheContext) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const CrossAttention attention(ParameterScope(parameters).In("attn2"), /*width=*/8,
                                 /*context_width=*/12, /*heads=*/2);
  const at::Tensor x = at::randn({1, 4, 8}), context = at::randn({1, 9, 12});
  auto& p = parameters.taken;
  auto project = [&p](const at::Tensor& input, const char* name) { return at::matmul(input, p.at(name).t()); };
  const at::Tensor heads = ReferenceAttention(project(x, "attn2.to_q.weight"), project(context, "attn2.to_k.weight"),
                                              project(context, "attn2.to_v.weight"), 2, false);
  const at::Tensor expected =
      at::matmul(heads, p.at("attn2.to_out.0.weight").t().to(at::kDouble)) + p.at("attn2.to_out.0.bias");
  ExpectWithin(attention.to_out.forward(attention.Attend(attention.to_q.forward(x), attention.ProjectText(context))),
               expected, 1e-5, "attention");
  EXPECT_EQ(p.count("attn2.to_q.bias"), 0u);
}

}  // namespace
}  // namespace hotlora
