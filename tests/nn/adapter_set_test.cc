#include "src/nn/adapter_set.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

WeightedAdapter Adapter(char digit, double weight, double text_weight) {
  return {nullptr, std::string(64, digit), weight, text_weight};
}

TEST(AdapterSetTest, FingerprintNamesEveryInput) {
  const AdapterSet set = {{Adapter('a', 0.5, 0.25), Adapter('b', -1.0, 0.0)}};
  const std::string print = set.Fingerprint();
  EXPECT_EQ(AdapterSet(set).Fingerprint(), print);
  EXPECT_EQ(AdapterSet().Fingerprint(), "");
  EXPECT_NE((AdapterSet{{set.adapters[1], set.adapters[0]}}).Fingerprint(), print) << "order";
  EXPECT_NE((AdapterSet{{set.adapters[0]}}).Fingerprint(), print);
  AdapterSet other = set;
  other.adapters[0].content_sha256.back() = 'c';
  EXPECT_NE(other.Fingerprint(), print);
  other = set;
  std::swap(other.adapters[0].weight, other.adapters[0].text_encoder_weight);
  EXPECT_NE(other.Fingerprint(), print);
  other = set;
  other.adapters[0].blocks = {{"up_blocks", 0.25}};
  const std::string with_block = other.Fingerprint();
  EXPECT_NE(with_block, print);
  other.adapters[0].blocks[0].prefix = "up_blocks.1";
  EXPECT_NE(other.Fingerprint(), with_block);
  other.adapters[0].blocks = {{"up_blocks", std::nextafter(0.25, 1.0)}};
  EXPECT_NE(other.Fingerprint(), with_block);
  std::swap(other.adapters[0].blocks, other.adapters[1].blocks);
  EXPECT_NE(other.Fingerprint(), with_block);
}

TEST(AdapterSetTest, BlocksOfTheUnetGoWithIt) {
  WeightedAdapter adapter = Adapter('a', 0.0, 0.0);
  adapter.blocks = {{"mid_block", 0.5}, {"up_blocks", -0.0}};
  AdapterSet set;
  set.Add(adapter, {"unet"});
  ASSERT_EQ(set.adapters.size(), 1u) << "with blocks, weight 0 does not mean absent";
  adapter.blocks[1].weight = 0.0;
  EXPECT_EQ(set.Fingerprint(), (AdapterSet{{adapter}}).Fingerprint());
  set.Add(adapter, {"text_encoder"});
  EXPECT_EQ(set.adapters.size(), 1u) << "nothing is left of it";
}

TEST(AdapterSetTest, WeightsOnWhatAnAdapterLeavesAloneAreZero) {
  AdapterSet set;
  set.Add(Adapter('a', 0.5, 0.25), {"unet"});
  set.Add(Adapter('b', 0.5, 0.25), {"text_encoder_2"});
  set.Add(Adapter('c', 0.5, 0.25), {"text_encoder", "unet"});
  set.Add(Adapter('d', -0.0, 0.25), {"text_encoder", "unet"});
  set.Add(Adapter('e', 0.0, 0.25), {"unet"});
  set.Add(Adapter('f', -0.0, -0.0), {"text_encoder", "unet"});
  const AdapterSet expected = {
      {Adapter('a', 0.5, 0.0), Adapter('b', 0.0, 0.25), Adapter('c', 0.5, 0.25), Adapter('d', 0.0, 0.25)}};
  EXPECT_EQ(set.Fingerprint(), expected.Fingerprint());
}

TEST(AdapterSetTest, FingerprintTellsNeighbouringWeightsApart) {
  const double weight = 0.1;
  const AdapterSet one = {{Adapter('a', weight, 1.0)}};
  const AdapterSet next = {{Adapter('a', std::nextafter(weight, 1.0), 1.0)}};
  EXPECT_NE(one.Fingerprint(), next.Fingerprint());
}

}  // namespace
}  // namespace hotlora
