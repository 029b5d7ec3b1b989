#include "src/nn/token_tiles.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/nn/transformer_2d.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

class TokenTilesTest : public testing::Test {
 protected:
  ~TokenTilesTest() override { at::set_num_threads(threads_); }

  // How many tiles a tensor of these tokens has; each adds 1 to its tokens of `count`.
  static int64_t Tiles(at::Tensor& count) {
    std::atomic<int64_t> tiles = 0;
    ForTokenTiles(count, {}, [&](const TokenTile& tile) {
      ++tiles;
      tile(count).add_(1);
      EXPECT_FALSE(tile(at::Tensor()).defined());
    });
    return tiles;
  }

  const c10::InferenceMode guard_;
  const int threads_ = at::get_num_threads();
};

TEST_F(TokenTilesTest, EachTokenIsInOneTileAndEachThreadHasOne) {
  at::set_num_threads(3);
  for (const int64_t tokens : {96, 100, 106, 128, 333}) {
    at::Tensor count = at::zeros({2, tokens, 4});
    EXPECT_EQ(Tiles(count), 3) << tokens;
    EXPECT_TRUE(at::equal(count, at::ones_like(count))) << tokens;
  }
}

TEST_F(TokenTilesTest, FewTokensOrOneThreadHaveOneTileOfAllRows) {
  at::set_num_threads(3);
  at::Tensor few = at::zeros({2, 30, 4}), many = at::zeros({2, 300, 4});
  EXPECT_EQ(Tiles(few), 1);
  EXPECT_EQ(Tiles(many), 3);
  at::set_num_threads(1);
  EXPECT_EQ(Tiles(many), 1);
  EXPECT_TRUE(at::equal(many, at::full_like(many, 2)));
  EXPECT_EQ(TokenTile({})(many).dim(), 3);
  EXPECT_EQ(TokenTile(16, 32, {})(many).sizes(), at::IntArrayRef({32, 4}));
}

TEST_F(TokenTilesTest, EachTileHasTheSideBranchOfItsTokens) {
  at::set_num_threads(3);
  const SideTable first, second;
  const SideRows side[] = {{1, 2, &first}, {4, 1, &second}};
  const at::Tensor x = at::zeros({6, 37, 1});
  at::Tensor seen = at::zeros({6, 37, 1});
  std::atomic<int64_t> tiles = 0;
  ForTokenTiles(x, SideBranch(side), [&](const TokenTile& tile) {
    ++tiles;
    for (const SideRows& rows : tile.side()) {
      tile(seen).narrow(0, rows.first, rows.rows).add_(rows.table == &first ? 1 : 2);
    }
  });
  EXPECT_EQ(tiles, 3);
  const at::Tensor by_row = at::tensor({0.0F, 1.0F, 1.0F, 0.0F, 2.0F, 0.0F}).view({6, 1, 1});
  EXPECT_TRUE(at::equal(seen, by_row.expand({6, 37, 1})));
  at::set_num_threads(1);
  ForTokenTiles(x, SideBranch(side), [&](const TokenTile& tile) { EXPECT_EQ(tile.side().data(), side); });
}

TEST_F(TokenTilesTest, WhatAChainThrowsReachesTheCaller) {
  at::set_num_threads(3);
  at::Tensor x = at::zeros({1, 300, 4});
  EXPECT_THROW(ForTokenTiles(x, {}, [](const TokenTile&) { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_EQ(Tiles(x), 3);
}

TEST_F(TokenTilesTest, ATransformerGivesTheSameInTilesAndAsAWhole) {
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 1e-2}}) {
    RandomParameters parameters(1, dtype);
    Transformer2dOptions options;
    options.channels = 64;
    options.context_width = 24;
    options.heads = 4;
    options.depth = 2;
    options.groups = 8;
    const Transformer2d transformer(ParameterScope(parameters), options);
    const at::Tensor x = at::randn({2, 64, 9, 13}).to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
    SideTable table;
    std::vector<ModuleDelta> deltas(4);
    size_t next = 0;
    for (const Linear* linear : {&transformer.blocks[0].attn1.to_out, &transformer.blocks[0].attn2.to_q,
                                 &transformer.blocks[1].ff.project_in, &transformer.proj_out}) {
      ModuleDelta& delta = deltas[next++];
      delta.module = linear->module;
      delta.change = LowRank{at::randn({4, 64}), at::randn({linear->outputs(), 4}) * 0.1, {}};
      const WeightedDelta weighted{&delta, 1.0};
      table.Add(delta.module, absl::MakeConstSpan(&weighted, 1), linear->weight, DoraWeighting::kScaledChange);
    }
    const SideRows second_row{1, 1, &table};
    const SideBranch side(&second_row, 1);
    const at::Tensor before = x.clone(), context = at::randn({2, 7, 24}).to(dtype);
    std::vector<at::Tensor> text;
    transformer.ProjectText(context, {}, text);
    at::set_num_threads(1);
    const at::Tensor whole = transformer.forward(x, text), whole_side = transformer.forward(x, text, side);
    at::set_num_threads(3);
    const at::Tensor tiled = transformer.forward(x, text), tiled_side = transformer.forward(x, text, side);
    EXPECT_TRUE(at::equal(x, before));
    EXPECT_TRUE(tiled.is_contiguous(at::MemoryFormat::ChannelsLast));
    ExpectError(RelativeError(tiled, whole), tolerance, std::string("tiles in ") + at::toString(dtype));
    ExpectError(RelativeError(tiled_side, whole_side), tolerance, std::string("side in ") + at::toString(dtype));
    EXPECT_GT(RelativeError(tiled_side.narrow(0, 1, 1), tiled.narrow(0, 1, 1)), 0.05);
    ExpectError(RelativeError(tiled_side.narrow(0, 0, 1), tiled.narrow(0, 0, 1)), tolerance,
                "the row without adapters");
    EXPECT_THROW(transformer.forward(x, c10::ArrayRef<at::Tensor>(text).slice(1)), c10::Error);
  }
}

}  // namespace
}  // namespace hotlora
