#include "src/adapters/resident_tier.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/metrics/metrics.h"

namespace hotlora {
namespace {

class ResidentTierTest : public testing::Test {
 protected:
  // Reserves and inserts; what comes back keeps the adapter in use.
  std::shared_ptr<const ResidentAdapter> Put(const std::string& name, uint64_t bytes, uint64_t version = 0) {
    absl::StatusOr<TierReservation> room = tier_.Reserve(name, bytes);
    if (!room.ok()) {
      return nullptr;
    }
    AdapterInfo info;
    info.name = name;
    AdapterVersion of;
    of.weights.inode = version;
    auto adapter = std::make_shared<const ResidentAdapter>(info, of, *std::move(room), HeldWeights());
    tier_.Insert(adapter);
    return adapter;
  }
  bool Has(const std::string& name) { return tier_.Describe(name).has_value(); }

  Metrics metrics_;
  ResidentTier tier_{kAdapterKind, AdapterTier::kHost, 100, &metrics_.adapters()};
};

TEST_F(ResidentTierTest, EvictsLeastRecentlyUsedFirst) {
  Put("a", 40);
  Put("b", 40);
  tier_.Use("a", nullptr);
  Put("c", 40);
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b"));
  EXPECT_TRUE(Has("c"));
  EXPECT_EQ(tier_.bytes(), 80u);
}

TEST_F(ResidentTierTest, UseAsksForAVersion) {
  Put("a", 10, 1);
  AdapterVersion version;
  version.weights.inode = 2;
  EXPECT_EQ(tier_.Use("a", &version), nullptr);
  EXPECT_NE(tier_.Use("a", nullptr), nullptr);
  version.weights.inode = 1;
  EXPECT_NE(tier_.Use("a", &version), nullptr);
}

TEST_F(ResidentTierTest, LeasedAndPinnedStay) {
  const auto leased = Put("leased", 40);
  Put("pinned", 40);
  ASSERT_TRUE(tier_.Pin("pinned"));
  ASSERT_TRUE(tier_.Pin("pinned"));
  EXPECT_TRUE(tier_.Describe("pinned")->pinned);
  EXPECT_EQ(tier_.Statistics().pinned_bytes, 40u);
  EXPECT_NE(Put("fits", 20), nullptr);
  const absl::Status status = tier_.Reserve("x", 30).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_BUDGET");
  // Nothing was evicted for the one that could not come in.
  EXPECT_TRUE(Has("fits"));
  EXPECT_EQ(tier_.bytes(), 100u);
  EXPECT_EQ(tier_.Reserve("x", 101).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ResidentTierTest, RemovedButLeasedCountsUntilItIsFreed) {
  auto leased = Put("a", 70);
  tier_.Remove("a", EvictionReason::kExplicit);
  EXPECT_FALSE(Has("a"));
  EXPECT_EQ(tier_.bytes(), 70u);
  EXPECT_FALSE(tier_.Reserve("b", 40).ok());
  leased.reset();
  EXPECT_EQ(tier_.bytes(), 0u);
  EXPECT_TRUE(tier_.Reserve("b", 40).ok());
}

TEST_F(ResidentTierTest, ReservationComesBackUnused) {
  {
    const absl::StatusOr<TierReservation> room = tier_.Reserve("a", 60);
    ASSERT_TRUE(room.ok());
    EXPECT_FALSE(tier_.Reserve("b", 60).ok());
  }
  EXPECT_EQ(tier_.bytes(), 0u);
}

TEST_F(ResidentTierTest, NewVersionKeepsPinAndEvictsItsOwnOldVersionLast) {
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
  EXPECT_EQ(tier_.Statistics().pinned_bytes, 30u);
  tier_.Remove("a", EvictionReason::kExplicit);
  EXPECT_EQ(tier_.Statistics().pinned_bytes, 0u);
  Put("a", 90, 4);
  EXPECT_FALSE(tier_.Describe("a")->pinned);
  EXPECT_NE(Put("a", 95, 5), nullptr);
  EXPECT_EQ(tier_.bytes(), 95u);
}

TEST_F(ResidentTierTest, RangesDoNotOverlapAndNeighboursJoin) {
  auto a = Put("a", 40), b = Put("b", 30), c = Put("c", 30);
  EXPECT_EQ(a->room.range().offset, 0u);
  EXPECT_EQ(b->room.range().offset, 40u);
  EXPECT_EQ(c->room.range().offset, 70u);
  a.reset();
  b.reset();
  const auto whole = Put("d", 70);  // both holes in one
  ASSERT_NE(whole, nullptr);
  EXPECT_EQ(whole->room.range().offset, 0u);
  EXPECT_EQ(tier_.bytes(), 100u);
}

TEST_F(ResidentTierTest, TakesTheSmallestHoleThatWillDo) {
  Put("a", 50);
  Put("b", 10);
  Put("c", 20);
  Put("d", 20);
  tier_.Remove("a", EvictionReason::kExplicit);
  tier_.Remove("c", EvictionReason::kExplicit);
  EXPECT_EQ(Put("e", 20)->room.range().offset, 60u);
}

TEST_F(ResidentTierTest, EvictsOnlyWhatMakesTheHole) {
  Put("old", 20);                    // [0, 20), the least recently used
  const auto leased = Put("x", 20);  // [20, 40)
  Put("b", 30);                      // [40, 70)
  Put("c", 30);                      // [70, 100)
  const auto large = Put("large", 60);
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(large->room.range().offset, 40u);
  EXPECT_TRUE(Has("old")) << "its going would not have helped";
  EXPECT_FALSE(Has("b"));
  EXPECT_FALSE(Has("c"));
}

TEST_F(ResidentTierTest, NeighboursThatAreNotNeededStay) {
  Put("a", 20);  // [0, 20), and so on
  Put("b", 20);
  Put("c", 20);
  Put("d", 20);
  Put("e", 20);
  for (const char* const name : {"a", "c", "e", "b", "d"}) {
    tier_.Use(name, nullptr);
  }
  // a, c and e make no hole of 30; b joins the three on the left, of which c was used more recently than a.
  EXPECT_EQ(Put("new", 30)->room.range().offset, 0u);
  EXPECT_FALSE(Has("a"));
  EXPECT_FALSE(Has("b"));
  for (const char* const name : {"c", "d", "e"}) {
    EXPECT_TRUE(Has(name)) << name;
  }
}

TEST_F(ResidentTierTest, RoomForASetIsWhatOthersDoNotHold) {
  Put("idle", 10);
  const auto used = Put("used", 20), own = Put("own", 30);
  Put("pinned", 5);
  ASSERT_TRUE(tier_.Pin("pinned"));
  const auto reason = [&](const std::vector<std::string>& names, uint64_t bytes) {
    return GetErrorDetails(tier_.CheckRoom(names, bytes)).reason;
  };
  EXPECT_EQ(reason({"own"}, 75), "OK");
  EXPECT_EQ(reason({"own"}, 76), "ADAPTERS_IN_USE");
  EXPECT_EQ(reason({"own"}, 96), "ADAPTER_BUDGET");
  EXPECT_EQ(reason({"own", "pinned"}, 80), "OK");
  EXPECT_EQ(reason({"own", "used"}, 95), "OK");
  tier_.Remove("used", EvictionReason::kExplicit);
  EXPECT_EQ(reason({"own"}, 76), "ADAPTERS_IN_USE") << "its memory is not free yet";
}

TEST_F(ResidentTierTest, NothingGoesForWhatNoHoleCanHold) {
  Put("a", 40);
  const auto leased = Put("b", 20);
  Put("c", 40);
  EXPECT_EQ(Put("large", 60), nullptr);
  EXPECT_TRUE(Has("a"));
  EXPECT_TRUE(Has("c"));
  EXPECT_EQ(tier_.bytes(), 100u);
}

}  // namespace
}  // namespace hotlora
