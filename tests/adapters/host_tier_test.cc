#include "src/adapters/host_tier.h"

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"

#include "src/base/error_details.h"

namespace hotlora {
namespace {

class HostTierTest : public testing::Test {
 protected:
  // Reserves and inserts; what comes back keeps the adapter in use.
  std::shared_ptr<const HostedAdapter> Put(const std::string& name, uint64_t bytes, uint64_t version = 0) {
    absl::StatusOr<HostReservation> room = tier_.Reserve(name, bytes);
    if (!room.ok()) {
      return nullptr;
    }
    AdapterInfo info;
    info.name = name;
    AdapterVersion of;
    of.weights.inode = version;
    auto adapter = std::make_shared<const HostedAdapter>(info, of, *std::move(room), nullptr);
    tier_.Insert(adapter);
    return adapter;
  }
  bool Has(const std::string& name) { return tier_.Describe(name).has_value(); }

  HostTier tier_{100, nullptr};
};

TEST_F(HostTierTest, EvictsLeastRecentlyUsedFirst) {
  Put("a", 40);
  Put("b", 40);
  tier_.Use("a", nullptr);
  Put("c", 40);
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b"));
  EXPECT_TRUE(Has("c"));
  EXPECT_EQ(tier_.bytes(), 80u);
}

TEST_F(HostTierTest, UseAsksForAVersion) {
  Put("a", 10, 1);
  AdapterVersion version;
  version.weights.inode = 2;
  EXPECT_EQ(tier_.Use("a", &version), nullptr);
  EXPECT_NE(tier_.Use("a", nullptr), nullptr);
  version.weights.inode = 1;
  EXPECT_NE(tier_.Use("a", &version), nullptr);
}

TEST_F(HostTierTest, LeasedAndPinnedStay) {
  const auto leased = Put("leased", 40);
  Put("pinned", 40);
  ASSERT_TRUE(tier_.Pin("pinned"));
  EXPECT_TRUE(tier_.Describe("pinned")->pinned);
  EXPECT_NE(Put("fits", 20), nullptr);
  const absl::Status status = tier_.Reserve("x", 30).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_BUDGET");
  // Nothing was evicted for the one that could not come in.
  EXPECT_TRUE(Has("fits"));
  EXPECT_EQ(tier_.bytes(), 100u);
  EXPECT_EQ(tier_.Reserve("x", 101).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(HostTierTest, RemovedButLeasedCountsUntilItIsFreed) {
  auto leased = Put("a", 70);
  tier_.Remove("a", EvictionReason::kExplicit);
  EXPECT_FALSE(Has("a"));
  EXPECT_EQ(tier_.bytes(), 70u);
  EXPECT_FALSE(tier_.Reserve("b", 40).ok());
  leased.reset();
  EXPECT_EQ(tier_.bytes(), 0u);
  EXPECT_TRUE(tier_.Reserve("b", 40).ok());
}

TEST_F(HostTierTest, ReservationComesBackUnused) {
  {
    const absl::StatusOr<HostReservation> room = tier_.Reserve("a", 60);
    ASSERT_TRUE(room.ok());
    EXPECT_FALSE(tier_.Reserve("b", 60).ok());
  }
  EXPECT_EQ(tier_.bytes(), 0u);
}

TEST_F(HostTierTest, NewVersionKeepsPinAndEvictsItsOwnOldVersionLast) {
  Put("a", 40, 1);
  Put("b", 40);
  Put("a", 50, 2);
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b"));
  EXPECT_EQ(tier_.bytes(), 50u);
  ASSERT_TRUE(tier_.Pin("a"));
  Put("a", 30, 3);
  EXPECT_TRUE(tier_.Describe("a")->pinned);
  EXPECT_EQ(tier_.bytes(), 30u);
  tier_.Remove("a", EvictionReason::kExplicit);
  Put("a", 90, 4);
  EXPECT_FALSE(tier_.Describe("a")->pinned);
  EXPECT_NE(Put("a", 95, 5), nullptr);
  EXPECT_EQ(tier_.bytes(), 95u);
}

}  // namespace
}  // namespace hotlora
