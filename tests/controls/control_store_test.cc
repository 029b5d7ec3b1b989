// ControlNets by name: every layout, the two tiers and their budgets, and what is refused.

#include "src/controls/control_store.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/base/sha256.h"
#include "src/metrics/metrics.h"
#include "src/sdxl/placed_control_net.h"
#include "src/tensor/memory_stats.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

std::string BytesOf(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

class ControlStoreTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  void SetUp() override {
    WriteControlNetFolder("lines", folder_.Under("edges/lines"));
    WriteControlNetFolder("union", folder_.Under("union"));
    WriteTensors(GoldenControlNet("depth"), folder_.Under("depth.safetensors"));
    Open({});
  }

  // The options' directory is the folder's.
  void Open(ControlStoreOptions options) {
    store_.reset();
    options.directory = folder_.path();
    auto store = MakeControlStore(options, TinyModel().config(), TestPlace(), &metrics_.controls());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::unique_ptr<AdapterLease> Acquire(const std::string& name) {
    auto lease = store_->Acquire(name);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *std::move(lease) : nullptr;
  }

  uint64_t BlockOf(const std::string& name) {
    const uint64_t bytes = Acquire(name)->info().block_bytes;
    EXPECT_TRUE(store_->Unload(name).ok());
    return bytes;
  }

  void ExpectRefused(const std::string& name, absl::StatusCode code, const std::string& reason,
                     const std::string& message) {
    const absl::Status status = store_->Acquire(name).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), testing::Not(HasSubstr(folder_.path()))) << "a path on the server";
  }

  AdapterTier TierOf(const std::string& name) { return store_->Get(name)->tier; }

  TemporaryFolder folder_;
  Metrics metrics_;
  std::unique_ptr<AdapterStore> store_;
};

TEST_F(ControlStoreTest, LendsEveryLayoutOnTheDevice) {
  for (const auto& [name, format, types] :
       {std::tuple("edges/lines", "controlnet", 0u), {"depth", "controlnet", 0u}, {"union", "union", 6u}}) {
    SCOPED_TRACE(name);
    const auto lease = Acquire(name);
    ASSERT_NE(lease, nullptr);
    EXPECT_EQ(lease->info().format, format);
    EXPECT_EQ(lease->info().control_types, types);
    EXPECT_EQ(lease->info().tier, AdapterTier::kDevice);
    EXPECT_EQ(lease->report().tier_found, AdapterTier::kDisk);
    EXPECT_EQ(lease->info().content_sha256.size(), 64u);
    EXPECT_EQ(lease->control_net()->block.device(), TestPlace().device);
    EXPECT_THROW(lease->weights(), std::bad_variant_access) << "it is no adapter";
  }
  EXPECT_EQ(store_->List("", 10)->size(), 3u);
}

// What is lent computes as a net that is read for itself.
TEST_F(ControlStoreTest, LendsTheNetOfTheFile) {
  c10::InferenceMode guard;
  const auto lent = Acquire("union")->control_net();
  const auto read = LoadControlNet(folder_.Under("union"), TinyModel().config(), TestPlace());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(at::equal(lent->block.cpu(), (*read)->block.cpu()));
  const at::Tensor picture = at::rand({1, 3, 64, 64}).to(TestPlace().device);
  EXPECT_TRUE(at::equal(lent->network.EmbedHint(picture), (*read)->network.EmbedHint(picture)));
}

TEST_F(ControlStoreTest, TheHashOfAFileIsThatOfItsBytes) {
  const std::string bytes = BytesOf(folder_.Under("depth.safetensors"));
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  EXPECT_EQ(Acquire("depth")->info().content_sha256, hash.HexDigest());
}

TEST_F(ControlStoreTest, ByDefaultHasRoomForTheLargestAndForAnUpload) {
  for (const TierStatistics& tier : store_->Statistics().tiers) {
    EXPECT_GE(tier.capacity_bytes, BlockOf("union"));
  }
  const TemporaryFolder empty;
  ControlStoreOptions options;
  options.directory = empty.path();
  const auto store = MakeControlStore(options, TinyModel().config(), TestPlace(), &metrics_.controls());
  ASSERT_TRUE(store.ok()) << store.status();
  for (const TierStatistics& tier : (*store)->Statistics().tiers) {
    EXPECT_GE(tier.capacity_bytes, BlockOf("edges/lines"));
  }
  const auto none = MakeControlStore({}, TinyModel().config(), TestPlace(), &metrics_.controls());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(GetErrorDetails((*none)->Acquire("lines").status()).reason, "CONTROL_NOT_FOUND");
}

TEST_F(ControlStoreTest, EvictsTheLeastRecentlyUsedAndNeverALeasedOne) {
  const uint64_t largest = std::max(BlockOf("edges/lines"), BlockOf("depth"));
  ControlStoreOptions options;
  options.host_bytes = options.device_bytes = largest;
  Open(options);
  auto lines = Acquire("edges/lines");
  ExpectRefused("depth", absl::StatusCode::kResourceExhausted, "CONTROL_BUDGET", "ControlNet \"depth\"");
  const auto both =
      store_->AcquireAll(std::vector<std::string>{"edges/lines", "depth"}, [] { return absl::OkStatus(); });
  EXPECT_EQ(GetErrorDetails(both.status()).reason, "CONTROL_BUDGET") << both.status();
  const auto other = store_->AcquireAll(std::vector<std::string>{"depth"}, [] { return absl::OkStatus(); });
  EXPECT_EQ(GetErrorDetails(other.status()).reason, "CONTROLS_IN_USE") << other.status();
  lines.reset();
  Acquire("depth");
  EXPECT_EQ(TierOf("edges/lines"), AdapterTier::kDisk);
  EXPECT_EQ(TierOf("depth"), AdapterTier::kDevice);
}

TEST_F(ControlStoreTest, APinnedNetStaysUntilItIsUnloaded) {
  ControlStoreOptions options;
  options.host_bytes = options.device_bytes = std::max(BlockOf("edges/lines"), BlockOf("depth"));
  Open(options);
  ASSERT_TRUE(store_->Load("depth", AdapterTier::kDevice, /*pin=*/true).ok());
  EXPECT_TRUE(store_->Get("depth")->pinned);
  ExpectRefused("edges/lines", absl::StatusCode::kResourceExhausted, "CONTROL_BUDGET", "ControlNet \"edges/lines\"");
  ASSERT_TRUE(store_->Unload("depth").ok());
  EXPECT_NE(Acquire("edges/lines"), nullptr);
}

// Nets come and go in storages of fixed size: the device's bytes never change, the host's are those of its blocks.
TEST_F(ControlStoreTest, MemoryIsExactlyBackAfterAnUnload) {
  const c10::Device device = TestPlace().device;
  const int64_t before = GetMemoryStats(device).allocated;
  {
    const auto lease = Acquire("union");
    if (device.is_cpu()) {
      EXPECT_GE(GetMemoryStats(device).allocated, before + static_cast<int64_t>(lease->info().block_bytes));
    }
    ASSERT_TRUE(store_->Unload("union").ok());
    EXPECT_TRUE(lease->control_net()->block.defined()) << "a lease keeps its net";
  }
  EXPECT_EQ(GetMemoryStats(device).allocated, before);
}

TEST_F(ControlStoreTest, RefusesWhatIsNoControlNetOfThisModel) {
  ExpectRefused("absent", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet \"absent\"");
  ExpectRefused("union/diffusion_pytorch_model", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet");
  TensorMap tensors = GoldenControlNet("depth");
  tensors["controlnet_cond_embedding.conv_in.weight"] = at::zeros({4, 4, 3, 3});
  WriteTensors(tensors, folder_.Under("channels.safetensors"));
  ExpectRefused("channels", absl::StatusCode::kFailedPrecondition, "CONTROL_MISMATCH",
                "controlnet_cond_embedding.conv_in.weight is [4, 4, 3, 3], expected [4, 3, 3, 3]");
  tensors = GoldenControlNet("depth");
  tensors["controlnet_mid_block.bias"] = at::full_like(tensors["controlnet_mid_block.bias"], std::nan(""));
  WriteTensors(tensors, folder_.Under("nan.safetensors"));
  ExpectRefused("nan", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID", "not finite");
  std::filesystem::create_directory(folder_.Under("bare"));
  std::ofstream(folder_.Under("bare/config.json")) << "{}";
  ExpectRefused("bare", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID",
                "lacks diffusion_pytorch_model.safetensors beside its config.json");
  EXPECT_EQ(store_->Get("nan")->state, AdapterState::kFailed);
  EXPECT_NE(Acquire("depth"), nullptr);
}

TEST_F(ControlStoreTest, RefusesEveryBrokenFile) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("broken_adapters"))) {
    if (entry.path().extension() == ".safetensors") {
      std::filesystem::copy_file(entry.path(), folder_.Under("broken.safetensors"),
                                 std::filesystem::copy_options::overwrite_existing);
      const absl::Status status = store_->Acquire("broken").status();
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << entry.path() << status;
      EXPECT_THAT(GetErrorDetails(status).reason, testing::AnyOf("CONTROL_INVALID", "CONTROL_MISMATCH"));
      ++files;
    }
  }
  EXPECT_GE(files, 30);
  EXPECT_NE(Acquire("union"), nullptr);
}

TEST_F(ControlStoreTest, ReceivesAFileAndDeletesIt) {
  const std::string bytes = BytesOf(folder_.Under("depth.safetensors"));
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  auto upload = store_->BeginUpload({"new/depth", bytes.size(), hash.HexDigest(), false});
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE((*upload)->Append(bytes).ok());
  const auto info = (*upload)->Commit();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "controlnet");
  const auto lease = Acquire("new/depth");
  ASSERT_TRUE(store_->Delete("new/depth").ok());
  ExpectRefused("new/depth", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet");
  ASSERT_TRUE(store_->Delete("union").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_.Under("union")));
}

}  // namespace
}  // namespace hotlora
