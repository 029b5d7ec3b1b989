#include "src/request/block_weights.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(BlockWeightsTest, APrefixEndsAtADotOrAtTheEnd) {
  EXPECT_TRUE(FitsModule("down_blocks.1", "down_blocks.1.resnets.0.conv1"));
  EXPECT_TRUE(FitsModule("down_blocks.1.resnets.0.conv1", "down_blocks.1.resnets.0.conv1"));
  EXPECT_FALSE(FitsModule("down_blocks.1", "down_blocks.10.resnets.0.conv1"));
  EXPECT_FALSE(FitsModule("down_blocks.1.", "down_blocks.1.resnets.0.conv1"));
  EXPECT_FALSE(FitsModule("conv1", "down_blocks.1.resnets.0.conv1"));
  EXPECT_FALSE(FitsModule("down_blocks.1.resnets.0.conv1.weight", "down_blocks.1.resnets.0.conv1"));
}

TEST(BlockWeightsTest, FindsAModuleInASortedList) {
  const std::vector<std::string> modules = {"a", "a-b.c", "a.b", "block.1", "block.10.x", "conv_in", "z.y"};
  for (const char* prefix : {"a", "a-b", "a.b", "block", "block.1", "block.10", "conv_in", "z", "z.y"}) {
    EXPECT_TRUE(FitsAnyModule(prefix, modules)) << prefix;
  }
  for (const char* prefix : {"", "a.", "b", "block.1.", "block.100", "conv", "conv_in.x", "z.y.x", "zz", "A"}) {
    EXPECT_FALSE(FitsAnyModule(prefix, modules)) << prefix;
  }
  EXPECT_FALSE(FitsAnyModule("a", {}));
}

TEST(BlockWeightsTest, TheLongestPrefixCounts) {
  const std::vector<BlockWeight> blocks = {
      {"up.0", 0.25}, {"up", 0.5}, {"up.0.attentions.1.attn2", -1.0}, {"up.0.attentions.1", 0.0}, {"up.00", 9.0}};
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.1.conv"), 0.5);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.0.conv"), 0.25);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.0.attentions.1.attn1"), 0.0);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.0.attentions.1.attn2"), -1.0);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.0.attentions.1.attn2.to_q"), -1.0);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "up.0.attentions.10"), 0.25);
  EXPECT_EQ(WeightOfModule(blocks, 0.75, "upper.0"), 0.75) << "no prefix fits";
  EXPECT_EQ(WeightOfModule({}, 0.75, "up"), 0.75);
}

}  // namespace
}  // namespace hotlora
