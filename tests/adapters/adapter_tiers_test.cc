#include "src/adapters/adapter_tiers.h"

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_reader.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/metrics/metrics.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/adapters/fake_weights.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

// Room for 8 ranks in the host tier and 4 on the device.
class AdapterTiersTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(weights_.faults(), 0) << "adapters share memory"; }

  void Save(const std::string& name, int64_t rank) { Adapter(rank).Save(folder_.Under(name + ".safetensors")); }
  AdapterVersion VersionOf(const std::string& name) { return folders_.Find(name).value(); }

  absl::StatusOr<Residence> Bring(const std::string& name, AdapterTier tier) {
    report_ = {};
    return tiers_.Bring(name, tier, /*old_will_do=*/true, report_);
  }

  std::vector<StoredFolder> Folders() {
    auto directory = std::make_unique<const AdapterDirectory>(
        AdapterDirectory::Open(folder_.path(), /*follow_links=*/false).value());
    auto reader = std::make_unique<const AdapterReader>(*directory, KeyMap::Build(TinySdxl()).value(), TinySdxl(),
                                                        false, *memory_);
    std::vector<StoredFolder> folders;
    folders.emplace_back(std::move(directory), std::move(reader));
    return folders;
  }

  const TemporaryFolder folder_;
  FakeWeights weights_;
  Metrics metrics_;
  const std::unique_ptr<AdapterMemory> memory_ = weights_.Memory(8 * kBytesPerRank, 4 * kBytesPerRank);
  const StoredFolders folders_{Folders()};
  AdapterTiers tiers_{folders_, *memory_, &metrics_.adapters()};
  AcquireReport report_;  // of the last Bring
};

TEST_F(AdapterTiersTest, BringsFromTheDiskToTheHostAndOnToTheDevice) {
  Save("neon", 2);
  const absl::StatusOr<Residence> hosted = Bring("neon", AdapterTier::kHost);
  ASSERT_TRUE(hosted.ok()) << hosted.status();
  EXPECT_NE(hosted->host, nullptr);
  EXPECT_EQ(hosted->device, nullptr);
  EXPECT_EQ(report_.tier_found, AdapterTier::kDisk);

  const absl::StatusOr<Residence> uploaded = Bring("neon", AdapterTier::kDevice);
  ASSERT_TRUE(uploaded.ok()) << uploaded.status();
  EXPECT_EQ(uploaded->host, hosted->host);
  EXPECT_EQ(uploaded->use(), uploaded->device);
  EXPECT_EQ(report_.tier_found, AdapterTier::kHost);

  EXPECT_TRUE(Bring("neon", AdapterTier::kDevice).ok());
  EXPECT_EQ(report_.tier_found, AdapterTier::kDevice);
  EXPECT_EQ(weights_.made(), 1);
  EXPECT_EQ(weights_.uploads(), 1);
}

TEST_F(AdapterTiersTest, ReadsAFileForItsSizeOnlyIfItMay) {
  Save("neon", 3);
  const AdapterVersion version = VersionOf("neon");
  EXPECT_FALSE(tiers_.FindBlock("neon", version, /*may_read=*/false).bytes.has_value());
  EXPECT_EQ(tiers_.FindBlock("neon", version, /*may_read=*/true).bytes, 3 * kBytesPerRank);
  EXPECT_EQ(tiers_.FindBlock("neon", version, /*may_read=*/false).bytes, 3 * kBytesPerRank);  // it is known now
  EXPECT_FALSE(tiers_.IsResident("neon", version));
  EXPECT_EQ(weights_.made(), 0);

  ASSERT_TRUE(Bring("neon", AdapterTier::kHost).ok());
  EXPECT_FALSE(tiers_.FindBlock("neon", version, /*may_read=*/false).on_device);
  ASSERT_TRUE(Bring("neon", AdapterTier::kDevice).ok());
  EXPECT_TRUE(tiers_.FindBlock("neon", version, /*may_read=*/false).on_device);
}

TEST_F(AdapterTiersTest, RefusesWhatNoEmptyTierHolds) {
  EXPECT_TRUE(tiers_.CheckSize("neon", 4 * kBytesPerRank).ok());
  const absl::Status status = tiers_.CheckSize("neon", 4 * kBytesPerRank + 1);
  EXPECT_EQ(GetErrorDetails(status).reason, error_reason::kAdapterBudget);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the smallest tier has 1024"));

  Save("large", 5);
  EXPECT_EQ(GetErrorDetails(Bring("large", AdapterTier::kHost).status()).reason, error_reason::kAdapterBudget);
}

TEST_F(AdapterTiersTest, WeighsSetsAgainstBothTiers) {
  EXPECT_TRUE(tiers_.CheckRoom({"a", "b"}, 4 * kBytesPerRank, 8 * kBytesPerRank).ok());
  EXPECT_FALSE(tiers_.CheckRoom({"a", "b"}, 4 * kBytesPerRank + 1, 0).ok());
  EXPECT_FALSE(tiers_.CheckRoom({"a", "b"}, 0, 8 * kBytesPerRank + 1).ok());
}

TEST_F(AdapterTiersTest, UnloadedIsDescribedOnDiskAndForgottenAsUnread) {
  Save("neon", 2);
  ASSERT_TRUE(Bring("neon", AdapterTier::kDevice).ok());
  tiers_.Pin("neon");
  EXPECT_EQ(tiers_.Describe("neon", VersionOf("neon")).tier, AdapterTier::kDevice);
  EXPECT_TRUE(tiers_.Describe("neon", VersionOf("neon")).pinned);

  const AdapterInfo unloaded = tiers_.Unload("neon").value();
  EXPECT_EQ(unloaded.tier, AdapterTier::kDisk);
  EXPECT_FALSE(unloaded.pinned);
  EXPECT_EQ(unloaded.rank_max, 2u);  // what was read is still known
  tiers_.Forget("neon");
  EXPECT_EQ(tiers_.Describe("neon", VersionOf("neon")).rank_max, 0u);
}

TEST_F(AdapterTiersTest, CountsALookupInEachTierOnTheWay) {
  Save("neon", 2);
  ASSERT_TRUE(Bring("neon", AdapterTier::kDevice).ok());  // misses both
  ASSERT_TRUE(Bring("neon", AdapterTier::kDevice).ok());  // hits the device
  ASSERT_TRUE(Bring("neon", AdapterTier::kHost).ok());    // hits the host
  const AdapterStoreStatistics statistics = tiers_.Statistics();
  ASSERT_EQ(statistics.tiers.size(), 2u);
  const TierStatistics &device = statistics.tiers[0], &host = statistics.tiers[1];
  EXPECT_EQ(device.tier, AdapterTier::kDevice);
  EXPECT_EQ(device.hits, 1u);
  EXPECT_EQ(device.misses, 1u);
  EXPECT_EQ(host.hits, 1u);
  EXPECT_EQ(host.misses, 1u);
}

}  // namespace
}  // namespace hotlora
