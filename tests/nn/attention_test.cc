#include "src/nn/attention.h"

#include <cmath>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/nn/attention_tiles.h"
#include "src/nn/packed_weight.h"
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

// Several tiles of queries and blocks of keys, an odd number of keys, parts of a wider tensor.
TEST(AttentionTest, TilesFollowTheFormula) {
  c10::InferenceMode guard;
  at::manual_seed(9);
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 3e-6}, std::pair{at::kBFloat16, 8e-3}}) {
    for (const auto& [tokens, keys] :
         {std::pair<int64_t, int64_t>{1, 1}, {65, 77}, {130, 1101}, {200, 512}, {16, 130}, {80, 700}, {64, 129}}) {
      const at::Tensor q = at::randn({2, tokens, 48}).mul_(3.0).to(dtype);
      const at::Tensor kv = at::randn({2, keys, 96}).to(dtype);
      const at::Tensor k = kv.narrow(2, 0, 48), v = kv.narrow(2, 48, 48);
      if (!CanAttendByTiles(q, k, v, 3)) {
        EXPECT_FALSE(HasPackedProducts(dtype));
        continue;
      }
      const at::Tensor y = AttendHeads(q, k, v, 3);
      EXPECT_TRUE(y.is_contiguous());
      ExpectError(RelativeError(y, ReferenceAttention(q, k, v, 3, false)), tolerance,
                  std::to_string(tokens) + " queries, " + std::to_string(keys) + " keys in " + at::toString(dtype));
    }
  }
}

TEST(AttentionTest, ARowDependsNeitherOnOtherRowsNorOnThreads) {
  c10::InferenceMode guard;
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({3, 150, 64}).to(dtype);
    at::set_num_threads(1);
    const at::Tensor together = AttendHeads(x, x, x, 2);
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(AttendHeads(x, x, x, 2), together)) << dtype;
    const at::Tensor row = x.narrow(0, 1, 1);
    EXPECT_TRUE(at::equal(AttendHeads(row, row, row, 2), together.narrow(0, 1, 1))) << dtype;
  }
  at::set_num_threads(threads);
}

// Scores of which exp overflows, and a block of keys that all weigh nothing beside another.
TEST(AttentionTest, LargeScoresAreExact) {
  c10::InferenceMode guard;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor q = at::full({1, 2, 16}, 10.0, dtype), k = at::zeros({1, 1100, 16}, dtype);
    const at::Tensor v = at::randn({1, 1100, 16}).to(dtype);
    k.select(1, 3).fill_(-10.0);
    k.select(1, 1050).fill_(10.0);
    ExpectWithin(AttendHeads(q, k, v, 1), v.narrow(1, 1050, 1).expand({1, 2, 16}), 1e-6, at::toString(dtype));
  }
}

TEST(AttentionTest, ValuesThatAreNotFiniteStayInTheirQuery) {
  c10::InferenceMode guard;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor q = at::randn({1, 70, 16}).to(dtype), kv = at::randn({1, 77, 16}).to(dtype);
    const at::Tensor expected = AttendHeads(q, kv, kv, 1).clone();
    q[0][66][3] = NAN;
    const at::Tensor y = AttendHeads(q, kv, kv, 1);
    EXPECT_TRUE(y[0][66].isnan().all().item<bool>()) << dtype;
    EXPECT_TRUE(at::equal(y.narrow(1, 0, 66), expected.narrow(1, 0, 66))) << dtype;
    EXPECT_TRUE(at::equal(y.narrow(1, 67, 3), expected.narrow(1, 67, 3))) << dtype;
  }
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
