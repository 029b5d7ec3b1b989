#include "src/adapters/adapter_store.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "src/adapter_format/adapter_file.h"
#include "src/base/error_details.h"
#include "src/base/status_macros.h"
#include "src/metrics/metrics.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/adapters/fake_weights.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class AdapterStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(1 << 20); }

  void TearDown() override { EXPECT_EQ(weights_.faults(), 0) << "adapters share memory"; }

  // Without a storage on the device adapters are used from the host.
  void Open(uint64_t host_bytes, uint64_t device_bytes = 0) {
    store_.reset();
    AdapterStoreOptions options;
    options.directory = folder_.path();
    store_ = AdapterStore::Create(options, TinySdxl(), &metrics_.adapters(), weights_.Memory(host_bytes, device_bytes))
                 .value();
  }

  void Save(const std::string& name, const SafetensorsWriter& writer) {
    writer.Save(folder_.Under(name + ".safetensors"));
  }
  void Remove(const std::string& name) { std::filesystem::remove(folder_.Under(name + ".safetensors")); }

  std::unique_ptr<AdapterLease> Acquire(const std::string& name) {
    absl::StatusOr<std::unique_ptr<AdapterLease>> lease = store_->Acquire(name);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *std::move(lease) : nullptr;
  }
  void ExpectRefused(const std::string& name, absl::StatusCode code, const std::string& reason) {
    const absl::Status status = store_->Acquire(name).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason);
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(folder_.path())));
  }
  AdapterInfo Info(const std::string& name) { return store_->Get(name).value(); }

  // What a scrape would show.
  double Figure(const std::string& name, const std::map<std::string, std::string>& labels) {
    for (const auto& source : metrics_.collectables()) {
      for (const prometheus::MetricFamily& family : source->Collect()) {
        for (const prometheus::ClientMetric& metric : family.metric) {
          std::map<std::string, std::string> have;
          for (const auto& label : metric.label) {
            have[label.name] = label.value;
          }
          if (family.name == name && have == labels) {
            return metric.gauge.value + metric.counter.value;
          }
        }
      }
    }
    ADD_FAILURE() << "no metric " << name;
    return -1;
  }

  const TemporaryFolder folder_;
  Metrics metrics_;
  FakeWeights weights_;
  std::unique_ptr<AdapterStore> store_;
};

TEST_F(AdapterStoreTest, ReadsOnceAndServesFromTheHostTier) {
  Save("neon", Adapter(2));
  const auto first = Acquire("neon");
  EXPECT_EQ(first->report().tier_found, AdapterTier::kDisk);
  EXPECT_GT(first->report().read_seconds, 0.0);
  EXPECT_EQ(first->info().content_sha256.size(), 64u);
  EXPECT_EQ(first->info().format, "lora");
  EXPECT_EQ(first->info().rank_max, 2u);
  EXPECT_EQ(first->info().matched_modules, 1u);
  EXPECT_THAT(first->info().targets, ElementsAre("unet"));
  EXPECT_EQ(first->info().tier, AdapterTier::kHost);
  EXPECT_EQ(first->info().bytes, std::filesystem::file_size(folder_.Under("neon.safetensors")));
  const auto second = Acquire("neon");
  EXPECT_EQ(second->report().tier_found, AdapterTier::kHost);
  EXPECT_EQ(second->report().read_seconds, 0.0);
  EXPECT_EQ(weights_.made(), 1);
  EXPECT_EQ(Info("neon").in_use, 2u);
}

TEST_F(AdapterStoreTest, UnknownNamesAreNotFound) {
  ExpectRefused("nothing", absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");
  ExpectRefused("../etc/passwd", absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");
  EXPECT_EQ(store_->Get("nothing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Unload("nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AdapterStoreTest, ReplacedFileIsANewVersionAndTheOldOneLivesWithItsLease) {
  Save("neon", Adapter(2));
  auto old = Acquire("neon");
  const auto old_weights = old->weights();
  Save("neon", Adapter(3));
  const auto now = Acquire("neon");
  EXPECT_NE(now->info().content_sha256, old->info().content_sha256);
  EXPECT_EQ(old->info().rank_max, 2u);
  EXPECT_EQ(now->info().rank_max, 3u);
  EXPECT_EQ(weights_.live_bytes(), static_cast<int64_t>(5 * kBytesPerRank));
  old.reset();
  EXPECT_EQ(weights_.live_bytes(), static_cast<int64_t>(5 * kBytesPerRank)) << "still held by its weights";
}

TEST_F(AdapterStoreTest, BrokenReplacementLeavesTheOldVersionServing) {
  Save("neon", Adapter(2));
  const std::string sha = Acquire("neon")->info().content_sha256;
  std::ofstream(folder_.Under("neon.safetensors")) << "a web page";
  const auto lease = Acquire("neon");
  EXPECT_EQ(lease->info().content_sha256, sha);
  EXPECT_EQ(Info("neon").state, AdapterState::kFailed);
  EXPECT_THAT(Info("neon").error, HasSubstr("header"));
  EXPECT_EQ(Info("neon").tier, AdapterTier::kHost);
  EXPECT_EQ(store_->Load("neon", AdapterTier::kDevice, false).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Acquire("neon")->info().content_sha256, sha);
  Save("neon", Adapter(3));
  EXPECT_EQ(Acquire("neon")->info().rank_max, 3u);
  EXPECT_EQ(Info("neon").state, AdapterState::kAvailable);
  EXPECT_EQ(Info("neon").error, "");
}

TEST_F(AdapterStoreTest, FailuresAreNotRemembered) {
  Save("neon", Adapter(2));
  weights_.FailWith(MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "no memory"));
  ExpectRefused("neon", absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY");
  EXPECT_EQ(Info("neon").state, AdapterState::kFailed);
  weights_.FailWith(absl::OkStatus());
  EXPECT_NE(Acquire("neon"), nullptr);
  std::ofstream(folder_.Under("broken.safetensors")) << "x";
  ExpectRefused("broken", absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID");
  ExpectRefused("broken", absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID");
}

TEST_F(AdapterStoreTest, RemovedFileIsNotFoundWhileItsLeaseLives) {
  Save("neon", Adapter(2));
  auto lease = Acquire("neon");
  Remove("neon");
  ExpectRefused("neon", absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");
  EXPECT_EQ(weights_.live_bytes(), static_cast<int64_t>(2 * kBytesPerRank));
  lease.reset();
  EXPECT_EQ(weights_.live_bytes(), 0);
}

TEST_F(AdapterStoreTest, HostTierNeverHoldsMoreThanItsBudget) {
  Open(4 * kBytesPerRank);
  for (const char* const name : {"a", "b", "c"}) {
    Save(name, Adapter(2));
  }
  Save("large", Adapter(5));
  auto a = Acquire("a");
  Acquire("b");
  EXPECT_EQ(weights_.live_bytes(), static_cast<int64_t>(4 * kBytesPerRank));
  Acquire("c");
  EXPECT_EQ(weights_.live_bytes(), static_cast<int64_t>(4 * kBytesPerRank));
  EXPECT_EQ(Info("a").tier, AdapterTier::kHost) << "leased";
  EXPECT_EQ(Info("b").tier, AdapterTier::kDisk);
  EXPECT_EQ(Info("b").format, "lora") << "what was read once is still known";
  ExpectRefused("large", absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  EXPECT_EQ(Info("c").tier, AdapterTier::kHost) << "nothing moved for the one that cannot fit";
  auto c = Acquire("c");
  ExpectRefused("b", absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  c.reset();
  EXPECT_NE(Acquire("b"), nullptr);
}

TEST_F(AdapterStoreTest, PinnedStaysUntilItIsUnloaded) {
  Open(4 * kBytesPerRank);
  for (const char* const name : {"a", "b", "c"}) {
    Save(name, Adapter(2));
  }
  EXPECT_TRUE(store_->Load("a", AdapterTier::kDevice, /*pin=*/true)->pinned);
  EXPECT_TRUE(store_->Load("a", AdapterTier::kDevice, /*pin=*/false)->pinned);
  Acquire("b");
  Acquire("c");
  EXPECT_EQ(Info("a").tier, AdapterTier::kHost);
  const AdapterInfo unloaded = store_->Unload("a").value();
  EXPECT_EQ(unloaded.tier, AdapterTier::kDisk);
  EXPECT_FALSE(unloaded.pinned);
  EXPECT_FALSE(store_->Load("a", AdapterTier::kDevice, false)->pinned);
}

TEST_F(AdapterStoreTest, AReplacedFolderServesItsNewContentAndKeepsPins) {
  Save("hot", Adapter(2));
  ASSERT_TRUE(store_->Load("hot", AdapterTier::kDevice, /*pin=*/true)->pinned);
  const auto running = Acquire("hot");
  const std::string old = folder_.path() + ".old";
  std::filesystem::rename(folder_.path(), old);
  ExpectRefused("hot", absl::StatusCode::kNotFound, "ADAPTER_FOLDER_MISSING");
  std::filesystem::create_directory(folder_.path());
  ExpectRefused("hot", absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");
  Save("hot", Adapter(3));
  const auto now = Acquire("hot");
  ASSERT_NE(now, nullptr);
  EXPECT_EQ(now->info().rank_max, 3u);
  EXPECT_EQ(running->info().rank_max, 2u);
  EXPECT_TRUE(Info("hot").pinned);
  EXPECT_FALSE(store_->Unload("hot")->pinned);
  EXPECT_FALSE(Acquire("hot")->info().pinned);
  std::filesystem::remove_all(old);
}

TEST_F(AdapterStoreTest, PeftFolderIsIdentifiedByItsConfigurationToo) {
  std::filesystem::create_directories(folder_.Under("peft"));
  SafetensorsWriter writer;
  writer.Add("base_model.model.conv_in.lora_A.weight", {2, 4, 3, 3});
  writer.Add("base_model.model.conv_in.lora_B.weight", {32, 2, 1, 1});
  writer.Save(folder_.Under("peft/adapter_model.safetensors"));
  std::ofstream(folder_.Under("peft/adapter_config.json")) << R"({"r": 2, "lora_alpha": 2})";
  const std::string sha = Acquire("peft")->info().content_sha256;
  std::ofstream(folder_.Under("peft/adapter_config.json")) << R"({"r": 2, "lora_alpha": 16})";
  EXPECT_NE(Acquire("peft")->info().content_sha256, sha);
}

TEST_F(AdapterStoreTest, ListMergesTheFolderWithWhatIsKnown) {
  Save("b", Adapter(2));
  Save("a", Adapter(1));
  Save("c", Adapter(1));
  const auto lease = Acquire("b");
  const std::vector<AdapterInfo> all = store_->List("", 10).value();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].name, "a");
  EXPECT_EQ(all[0].content_sha256, "");
  EXPECT_GT(all[0].bytes, 0u);
  EXPECT_EQ(all[0].tier, AdapterTier::kDisk);
  EXPECT_EQ(all[1].tier, AdapterTier::kHost);
  EXPECT_EQ(all[1].in_use, 1u);
  const std::vector<AdapterInfo> page = store_->List("a", 1).value();
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].name, "b");
}

TEST_F(AdapterStoreTest, FiftyFirstRequestsAreOneRead) {
  Save("neon", Adapter(2));
  weights_.Hold(true);
  std::vector<std::thread> threads;
  std::atomic<int> got{0};
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&] { got += Acquire("neon") != nullptr; });
  }
  // The control plane does not wait for the read that is held.
  while (weights_.made() == 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(Info("neon").state, AdapterState::kLoading);
  EXPECT_EQ(store_->List("", 10)->at(0).state, AdapterState::kLoading);
  weights_.Hold(false);
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(got, 50);
  EXPECT_EQ(weights_.made(), 1);
  EXPECT_EQ(Info("neon").in_use, 0u);
}

TEST_F(AdapterStoreTest, NeedsReadTellsWhetherAFileWouldBeRead) {
  Save("neon", Adapter(2));
  EXPECT_TRUE(store_->NeedsRead("neon"));
  Acquire("neon");
  EXPECT_FALSE(store_->NeedsRead("neon"));
  Save("neon", Adapter(3));
  EXPECT_TRUE(store_->NeedsRead("neon"));
  std::ofstream(folder_.Under("neon.safetensors")) << "a web page";
  EXPECT_TRUE(store_->NeedsRead("neon")) << "nobody knows yet that it is broken";
  Acquire("neon");
  EXPECT_FALSE(store_->NeedsRead("neon")) << "the old version serves";
  EXPECT_FALSE(store_->NeedsRead("nothing"));
}

TEST_F(AdapterStoreTest, CountsWhatHappens) {
  Open(4 * kBytesPerRank);
  Save("a", Adapter(3));
  Save("b", Adapter(2));
  Acquire("a");
  const auto lease = Acquire("a");
  EXPECT_EQ(Figure("hotlora_adapter_refs", {}), 1);
  EXPECT_EQ(Figure("hotlora_adapter_cache_bytes", {{"tier", "host"}}), 3 * kBytesPerRank);
  store_->Unload("a").IgnoreError();
  EXPECT_EQ(Figure("hotlora_adapter_cache_bytes", {{"tier", "host"}}), 3 * kBytesPerRank);
  EXPECT_EQ(Figure("hotlora_adapter_cache_entries", {{"tier", "host"}}), 0);
  ExpectRefused("b", absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  ExpectRefused("c", absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND");
  const auto requests = [&](const char* tier, const char* result) {
    return Figure("hotlora_adapter_cache_requests_total", {{"result", result}, {"tier", tier}});
  };
  EXPECT_EQ(requests("host", "hit"), 1);
  EXPECT_EQ(requests("host", "miss"), 3);
  EXPECT_EQ(requests("disk", "hit"), 2);
  EXPECT_EQ(requests("disk", "miss"), 1);
  EXPECT_EQ(Figure("hotlora_adapter_cache_evictions_total", {{"reason", "explicit"}, {"tier", "host"}}), 1);
}

TEST_F(AdapterStoreTest, ServesFromTheDeviceWithoutTheHost) {
  Open(1 << 20, 4 * kBytesPerRank);
  Save("neon", Adapter(2));
  {
    const auto first = Acquire("neon");
    EXPECT_EQ(first->report().tier_found, AdapterTier::kDisk);
    EXPECT_EQ(first->info().tier, AdapterTier::kDevice);
  }
  const auto second = Acquire("neon");
  EXPECT_EQ(second->report().tier_found, AdapterTier::kDevice);
  EXPECT_EQ(second->report().upload_seconds, 0.0);
  EXPECT_EQ(weights_.uploads(), 1);
  EXPECT_EQ(Info("neon").tier, AdapterTier::kDevice);
  EXPECT_EQ(Figure("hotlora_adapter_cache_bytes", {{"tier", "device"}}), 2 * kBytesPerRank);
  EXPECT_EQ(Figure("hotlora_adapter_bytes_loaded_total", {{"source", "host"}}), 2 * kBytesPerRank);
  EXPECT_EQ(Figure("hotlora_adapter_cache_capacity_bytes", {{"tier", "device"}}), 4 * kBytesPerRank);
  EXPECT_EQ(Figure("hotlora_adapter_cache_requests_total", {{"result", "hit"}, {"tier", "device"}}), 1);
  EXPECT_EQ(Figure("hotlora_adapter_cache_requests_total", {{"result", "miss"}, {"tier", "device"}}), 1);
}

TEST_F(AdapterStoreTest, EvictedFromTheDeviceItIsStillInTheHost) {
  Open(1 << 20, 4 * kBytesPerRank);
  for (const char* const name : {"a", "b", "c"}) {
    Save(name, Adapter(2));
    Acquire(name);
  }
  EXPECT_EQ(Info("a").tier, AdapterTier::kHost);
  EXPECT_EQ(weights_.device_bytes(), static_cast<int64_t>(4 * kBytesPerRank));
  const auto lease = Acquire("a");
  EXPECT_EQ(lease->report().tier_found, AdapterTier::kHost);
  EXPECT_EQ(lease->report().read_seconds, 0.0);
  EXPECT_EQ(Info("b").tier, AdapterTier::kHost);
  EXPECT_EQ(Figure("hotlora_adapter_cache_evictions_total", {{"reason", "capacity"}, {"tier", "device"}}), 2);
}

TEST_F(AdapterStoreTest, WhatDoesNotFitTheDeviceIsRefusedBeforeAnythingMoves) {
  Open(1 << 20, 4 * kBytesPerRank);
  Save("a", Adapter(3));
  Save("b", Adapter(2));
  Save("large", Adapter(5));
  Acquire("a");
  ExpectRefused("large", absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  EXPECT_EQ(Info("large").tier, AdapterTier::kDisk);
  EXPECT_EQ(Info("a").tier, AdapterTier::kDevice);
  const auto a = Acquire("a");
  ExpectRefused("b", absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  EXPECT_EQ(Info("a").tier, AdapterTier::kDevice);
}

// A request's adapters, all together.
class AdapterSetTest : public AdapterStoreTest {
 protected:
  using Leases = std::vector<std::unique_ptr<AdapterLease>>;

  void SetUp() override {
    AdapterStoreTest::SetUp();
    for (const char* const name : {"a", "b", "c", "d"}) {
      Save(name, Adapter(2));
    }
  }
  absl::StatusOr<Leases> AcquireAll(const std::vector<std::string>& names) {
    return store_->AcquireAll(names, [] { return absl::OkStatus(); });
  }
  void ExpectRefusedSet(const std::vector<std::string>& names, const std::string& reason) {
    const absl::Status status = AcquireAll(names).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason) << status;
  }
};

TEST_F(AdapterSetTest, OneThatNeverFitsIsRefusedBeforeAnythingMoves) {
  Open(1 << 20, 5 * kBytesPerRank);
  for (const bool read_before : {false, true}) {
    SCOPED_TRACE(read_before);
    ASSERT_TRUE(AcquireAll({"a", "d"}).ok());
    const int uploads = weights_.uploads(), made = weights_.made();
    ExpectRefusedSet({"a", "b", "c"}, "ADAPTER_BUDGET");
    EXPECT_EQ(weights_.uploads(), uploads);
    EXPECT_EQ(weights_.made(), made);
    EXPECT_EQ(Info("a").tier, AdapterTier::kDevice);
    EXPECT_EQ(Info("d").tier, AdapterTier::kDevice);
    if (!read_before) {
      ASSERT_TRUE(AcquireAll({"b", "c"}).ok());
    }
  }
  ASSERT_TRUE(store_->Load("d", AdapterTier::kDevice, /*pin=*/true).ok());
  ExpectRefusedSet({"a", "b"}, "ADAPTER_BUDGET");
  EXPECT_TRUE(AcquireAll({"a", "d"}).ok()) << "what is pinned is its own";
}

TEST_F(AdapterSetTest, OneThatFitsOnceOthersLetGoSaysSo) {
  Open(1 << 20, 4 * kBytesPerRank);
  Leases running = AcquireAll({"a"}).value();
  Acquire("b");
  ExpectRefusedSet({"c", "d"}, "ADAPTERS_IN_USE");
  EXPECT_EQ(Info("b").tier, AdapterTier::kDevice) << "nothing moved";
  store_->Unload("a").status().IgnoreError();
  ExpectRefusedSet({"c", "d"}, "ADAPTERS_IN_USE");
  EXPECT_TRUE(AcquireAll({"b", "c"}).status().code() == absl::StatusCode::kResourceExhausted);
  running.clear();
  EXPECT_EQ(AcquireAll({"c", "d"})->size(), 2u);
  EXPECT_EQ(Info("c").in_use, 0u);
}

TEST_F(AdapterSetTest, TheHostTierCountsToo) {
  Open(4 * kBytesPerRank, 8 * kBytesPerRank);
  ExpectRefusedSet({"a", "b", "c"}, "ADAPTER_BUDGET");
  const Leases running = AcquireAll({"a"}).value();
  ExpectRefusedSet({"b", "c"}, "ADAPTERS_IN_USE");
  EXPECT_TRUE(AcquireAll({"a", "b"}).ok()) << "a shares the place of the other's";
}

TEST_F(AdapterSetTest, OneThatFailsHoldsNothing) {
  std::ofstream(folder_.Under("broken.safetensors")) << "x";
  EXPECT_EQ(GetErrorDetails(AcquireAll({"a", "broken"}).status()).reason, "ADAPTER_INVALID");
  EXPECT_EQ(GetErrorDetails(AcquireAll({"a", "nothing"}).status()).reason, "ADAPTER_NOT_FOUND");
  const absl::Status unwanted = store_->AcquireAll({"a", "b"}, [] { return absl::CancelledError("left"); }).status();
  EXPECT_EQ(unwanted.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Info("a").in_use, 0u);
}

TEST_F(AdapterStoreTest, LoadStopsAtTheTierThatIsAskedFor) {
  Open(1 << 20, 4 * kBytesPerRank);
  Save("a", Adapter(2));
  EXPECT_EQ(store_->Load("a", AdapterTier::kHost, /*pin=*/true)->tier, AdapterTier::kHost);
  EXPECT_EQ(weights_.uploads(), 0);
  const AdapterInfo raised = store_->Load("a", AdapterTier::kDevice, /*pin=*/false).value();
  EXPECT_EQ(raised.tier, AdapterTier::kDevice);
  EXPECT_TRUE(raised.pinned) << "pinned in the tier that it came from";
  for (const char* const name : {"b", "c", "d"}) {
    Save(name, Adapter(2));
    Acquire(name);
  }
  EXPECT_EQ(Info("a").tier, AdapterTier::kDevice);
  EXPECT_EQ(store_->Unload("a")->tier, AdapterTier::kDisk);
  EXPECT_EQ(weights_.device_bytes(), static_cast<int64_t>(2 * kBytesPerRank));
}

TEST_F(AdapterStoreTest, ReplacedFileLeavesTheOldOneOnTheDeviceWithItsLease) {
  Open(1 << 20, 8 * kBytesPerRank);
  Save("neon", Adapter(2));
  auto old = Acquire("neon");
  Save("neon", Adapter(3));
  const auto now = Acquire("neon");
  EXPECT_EQ(now->report().tier_found, AdapterTier::kDisk);
  EXPECT_EQ(weights_.device_bytes(), static_cast<int64_t>(5 * kBytesPerRank));
  old.reset();
  EXPECT_EQ(weights_.device_bytes(), static_cast<int64_t>(3 * kBytesPerRank));
  std::ofstream(folder_.Under("neon.safetensors")) << "a web page";
  const auto still = Acquire("neon");
  EXPECT_EQ(still->info().rank_max, 3u);
  EXPECT_EQ(still->report().tier_found, AdapterTier::kDisk);
  EXPECT_EQ(Acquire("neon")->report().tier_found, AdapterTier::kDevice) << "known to be broken: the old one serves";
}

// A working set of three times the device's budget under Zipf's law, from several threads, some adapters pinned, some
// leased for a while.
TEST_F(AdapterStoreTest, WorkingSetOfThreeTimesTheDevice) {
  constexpr int kNames = 72, kThreads = 4, kDraws = 400;
  constexpr uint64_t kCapacity = kNames * 2 * kBytesPerRank / 3;
  Open(1 << 20, kCapacity);
  const auto name = [](int i) { return absl::StrCat("adapter", i); };
  std::vector<double> popularity;
  for (int i = 0; i < kNames; ++i) {
    Save(name(i), Adapter(1 + i % 3));  // ranks 1 to 3, 2 on average
    popularity.push_back(1.0 / (i + 1));
  }
  ASSERT_TRUE(store_->Load(name(0), AdapterTier::kDevice, /*pin=*/true).ok());
  std::atomic<int> refused{0}, over{0}, unpinned{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      std::discrete_distribution<int> zipf(popularity.begin(), popularity.end());
      std::unique_ptr<AdapterLease> held;
      for (int i = 0; i < kDraws; ++i) {
        absl::StatusOr<std::unique_ptr<AdapterLease>> lease = store_->Acquire(name(zipf(random)));
        refused += lease.ok() ? 0 : 1;
        over += weights_.device_bytes() > static_cast<int64_t>(kCapacity) ? 1 : 0;
        unpinned += Info(name(0)).tier == AdapterTier::kDevice ? 0 : 1;
        if (lease.ok() && i % 8 == 0) {
          held = *std::move(lease);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(over, 0);
  EXPECT_EQ(unpinned, 0);
  const double hits = Figure("hotlora_adapter_cache_requests_total", {{"result", "hit"}, {"tier", "device"}});
  const double misses = Figure("hotlora_adapter_cache_requests_total", {{"result", "miss"}, {"tier", "device"}});
  const double evicted = Figure("hotlora_adapter_cache_evictions_total", {{"reason", "capacity"}, {"tier", "device"}});
  EXPECT_EQ(hits + misses, kThreads * kDraws + 1);
  EXPECT_EQ(weights_.uploads() - evicted, Figure("hotlora_adapter_cache_entries", {{"tier", "device"}}));
  RecordProperty("hit_ratio_percent", static_cast<int>(100 * hits / (hits + misses)));
  EXPECT_GT(hits, misses);
}

// One caller and blocks of one size, so that every figure is known: an eviction for each miss once no slot is free.
TEST_F(AdapterStoreTest, EvictionsAreMissesWithoutAFreeBlock) {
  constexpr int kNames = 72, kBlocks = kNames / 3, kDraws = 2000;
  Open(1 << 20, kBlocks * 2 * kBytesPerRank);
  std::vector<double> popularity;
  for (int i = 0; i < kNames; ++i) {
    Save(absl::StrCat("adapter", i), Adapter(2));
    popularity.push_back(1.0 / (i + 1));
  }
  ASSERT_TRUE(store_->Load("adapter71", AdapterTier::kDevice, /*pin=*/true).ok());
  std::atomic<bool> over{false};
  std::atomic<int64_t> most{0};
  std::thread sampler([&] {
    while (!over.load()) {
      most = std::max(most.load(), weights_.device_bytes());
      std::this_thread::yield();
    }
  });
  std::mt19937 random(7);
  std::discrete_distribution<int> zipf(popularity.begin(), popularity.end());
  int unpinned = 0;
  for (int i = 0; i < kDraws; ++i) {
    ASSERT_NE(Acquire(absl::StrCat("adapter", zipf(random))), nullptr);
    unpinned += Info("adapter71").tier == AdapterTier::kDevice ? 0 : 1;
  }
  over = true;
  sampler.join();
  EXPECT_EQ(unpinned, 0);
  EXPECT_EQ(most.load(), static_cast<int64_t>(kBlocks * 2 * kBytesPerRank));
  const double hits = Figure("hotlora_adapter_cache_requests_total", {{"result", "hit"}, {"tier", "device"}});
  const double misses = Figure("hotlora_adapter_cache_requests_total", {{"result", "miss"}, {"tier", "device"}});
  EXPECT_EQ(hits + misses, kDraws + 1);
  EXPECT_EQ(Figure("hotlora_adapter_cache_evictions_total", {{"reason", "capacity"}, {"tier", "device"}}),
            misses - kBlocks);
  RecordProperty("hit_ratio_percent", static_cast<int>(100 * hits / (hits + misses)));
  EXPECT_GT(hits, misses);
}

TEST_F(AdapterStoreTest, UnloadedWhileLoadingDoesNotStay) {
  Save("neon", Adapter(2));
  weights_.Hold(true);
  std::unique_ptr<AdapterLease> lease;
  std::thread reader([&] { lease = Acquire("neon"); });
  while (weights_.made() == 0) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(store_->Unload("neon").ok());
  weights_.Hold(false);
  reader.join();
  ASSERT_NE(lease, nullptr);
  EXPECT_EQ(Info("neon").tier, AdapterTier::kDisk);
  lease.reset();
  EXPECT_EQ(weights_.live_bytes(), 0);
}

TEST_F(AdapterStoreTest, LeasesOutliveTheStore) {
  Save("neon", Adapter(2));
  auto lease = Acquire("neon");
  store_.reset();
  EXPECT_EQ(lease->info().name, "neon");
  lease.reset();
  EXPECT_EQ(weights_.live_bytes(), 0);
}

// Requests, control plane and a writer that replaces files, all at once, under a budget that holds
// a third of them.
TEST_F(AdapterStoreTest, SixteenThreadsAndAWriterLoseNothing) {
  constexpr int kNames = 6;
  Open(6 * kBytesPerRank, 5 * kBytesPerRank);
  const auto name = [](int i) { return absl::StrCat("adapter", i % kNames); };
  for (int i = 0; i < kNames; ++i) {
    Save(name(i), Adapter(2));
  }
  std::atomic<bool> over{false};
  std::atomic<int> served{0}, refused{0}, wrong{0};
  std::thread writer([&] {
    for (int i = 0; !over.load(); ++i) {
      if (i % 5 == 4) {
        SafetensorsWriter broken = Adapter(2);
        broken.Add("stray", {1}).Save(folder_.Under(name(i) + ".safetensors"));
      } else {
        Save(name(i), Adapter(1 + i % 3, static_cast<float>(i)));
      }
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        const auto lease = store_->Acquire(name(t + i));
        if (lease.ok()) {
          ++served;
          wrong += (*lease)->info().name != name(t + i) || (*lease)->info().rank_max == 0;
        } else {
          ++refused;
          wrong += !absl::IsResourceExhausted(lease.status()) && !absl::IsFailedPrecondition(lease.status());
        }
        if (i % 7 == t % 7) {
          wrong += !store_->Unload(name(i)).ok();
        }
        if (i % 11 == t % 11) {
          wrong += !store_->List("", 100).ok();
          wrong += !store_->Get(name(i)).ok();
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  over = true;
  writer.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(served, 0);
  EXPECT_LE(weights_.live_bytes(), static_cast<int64_t>(6 * kBytesPerRank));
  for (int i = 0; i < kNames; ++i) {
    EXPECT_EQ(Info(name(i)).in_use, 0u);
    EXPECT_TRUE(store_->Unload(name(i)).ok());
  }
  EXPECT_EQ(weights_.live_bytes(), 0) << "no version is left behind";
  EXPECT_EQ(weights_.device_bytes(), 0);
}

// 32 callers load, use and unload one adapter as fast as they can: only answers from a closed list, and nothing is
// left.
TEST_F(AdapterStoreTest, ThirtyTwoThreadsLoadAndUnloadOneAdapter) {
  Save("hot", Adapter(2));
  std::atomic<int> surprises{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 32; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 256; ++i) {
        const absl::Status status = (thread + i) % 3 == 0
                                        ? store_->Load("hot", AdapterTier::kDevice, /*pin=*/i % 2 == 0).status()
                                    : (thread + i) % 3 == 1 ? store_->Unload("hot").status()
                                                            : store_->Acquire("hot").status();
        surprises += status.ok() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(surprises.load(), 0);
  EXPECT_EQ(Info("hot").in_use, 0u);
  EXPECT_EQ(Figure("hotlora_adapter_refs", {}), 0);
  store_->Unload("hot").status().IgnoreError();
  EXPECT_EQ(weights_.live_bytes(), 0);
}

}  // namespace
}  // namespace hotlora
