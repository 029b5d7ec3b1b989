#ifndef HOTLORA_TESTS_CONTROLS_CONTROL_STORE_FIXTURE_H_
#define HOTLORA_TESTS_CONTROLS_CONTROL_STORE_FIXTURE_H_

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/base/error_details.h"
#include "src/base/sha256.h"
#include "src/controls/control_store.h"
#include "src/metrics/metrics.h"
#include "src/tensor/memory_stats.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {

inline std::string BytesOf(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline std::string HashOf(const std::string& bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.HexDigest();
}

inline std::string ShardName(const std::string& stem, size_t i, size_t count) {
  return absl::StrFormat("%s-%05d-of-%05d.safetensors", stem, i + 1, count);
}

// Splits tensors into `count` shards with an index, in an existing folder. Returns the index.
inline nlohmann::json WriteShards(const TensorMap& tensors, const std::string& folder, const std::string& stem,
                                  size_t count, const std::string& index) {
  std::vector<TensorMap> shards(count);
  nlohmann::json map;
  size_t next = 0;
  for (const auto& [name, tensor] : tensors) {
    const size_t shard = next++ % count;
    shards[shard].emplace(name, tensor);
    map[name] = ShardName(stem, shard, count);
  }
  for (size_t i = 0; i < count; ++i) {
    WriteTensors(shards[i], folder + "/" + ShardName(stem, i, count));
  }
  const nlohmann::json text = {{"metadata", {{"total_size", 1}}}, {"weight_map", map}};
  std::ofstream(folder + "/" + index) << text;
  return text;
}

// A store of ControlNets and image prompts for the tiny model.
class ControlStoreFixture : public testing::Test {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  void OpenStore(const ControlStoreOptions& options) {
    store_.reset();
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

  absl::StatusOr<AdapterInfo> Upload(const std::string& name, const std::string& bytes) {
    auto upload = store_->BeginUpload({name, bytes.size(), HashOf(bytes), false});
    EXPECT_TRUE(upload.ok()) << upload.status();
    EXPECT_TRUE((*upload)->Append(bytes).ok());
    return (*upload)->Commit();
  }

  void ExpectRefused(const std::string& name, absl::StatusCode code, const std::string& reason,
                     const std::string& message) {
    const absl::Status status = store_->Acquire(name).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr(folder_.path())))
        << "a path on the server";
    EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr("\\n"))) << "a name of the store's own";
  }

  // Every broken adapter, in the place of the file of that name at `path`.
  void ExpectBrokenFilesRefused(const std::string& name, const std::string& path, const char* invalid,
                                const char* mismatch) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("broken_adapters"))) {
      if (entry.path().extension() == ".safetensors") {
        std::filesystem::copy_file(entry.path(), path, std::filesystem::copy_options::overwrite_existing);
        const absl::Status status = store_->Acquire(name).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << entry.path() << status;
        EXPECT_THAT(GetErrorDetails(status).reason, testing::AnyOf(invalid, mismatch));
        ++files;
      }
    }
    EXPECT_GE(files, 30);
  }

  AdapterTier TierOf(const std::string& name) { return store_->Get(name)->tier; }

  TemporaryFolder folder_;
  Metrics metrics_;
  std::unique_ptr<AdapterStore> store_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_CONTROLS_CONTROL_STORE_FIXTURE_H_
