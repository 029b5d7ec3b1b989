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
