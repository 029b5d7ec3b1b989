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

TEST(AdapterSetTest, FingerprintTellsNeighbouringWeightsApart) {
  const double weight = 0.1;
  const AdapterSet one = {{Adapter('a', weight, 1.0)}};
  const AdapterSet next = {{Adapter('a', std::nextafter(weight, 1.0), 1.0)}};
  EXPECT_NE(one.Fingerprint(), next.Fingerprint());
}

}  // namespace
}  // namespace hotlora
