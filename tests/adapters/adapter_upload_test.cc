#include "src/adapters/adapter_upload.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/adapter_format/adapter_file.h"
#include "src/adapters/adapter_store.h"
#include "src/base/error_details.h"
#include "src/base/sha256.h"
#include "src/metrics/metrics.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kModule[] = "lora_unet_input_blocks_4_1_proj_in";  // [32, 32]

std::string AdapterBytes(int64_t rank, float value = 0.5f) {
  SafetensorsWriter writer;
  writer.Add(std::string(kModule) + ".lora_down.weight", {rank, 32}, value);
  writer.Add(std::string(kModule) + ".lora_up.weight", {32, rank}, value);
  return writer.Bytes();
}

std::string Sha(const std::string& bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.HexDigest();
}

UploadHeader HeaderOf(const std::string& name, const std::string& bytes, bool replace = false) {
  return {name, bytes.size(), Sha(bytes), replace};
}

// Adapters without tensors, and no device.
class NoMemory : public AdapterMemory {
 public:
  explicit NoMemory(uint64_t host_bytes) : host_bytes_(host_bytes) {}
  uint64_t host_bytes() const override { return host_bytes_; }
  uint64_t device_bytes() const override { return 0; }
  absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) override {
    return StagedAdapter{parsed.tensor_bytes, [](uint64_t) { return HeldWeights(); }};
  }
  absl::StatusOr<HeldWeights> Upload(const HeldWeights& hosted, uint64_t, uint64_t) override { return hosted; }

 private:
  const uint64_t host_bytes_;
};

class AdapterUploadTest : public testing::Test {
 protected:
  void SetUp() override { Open(folder_.path()); }

  void Open(const std::string& directory, uint64_t host_bytes = 1 << 20) {
    store_.reset();
    AdapterStoreOptions options;
    options.directory = directory;
    store_ =
        AdapterStore::Create(options, TinySdxl(), &metrics_.adapters(), std::make_unique<NoMemory>(host_bytes)).value();
  }

  absl::StatusOr<AdapterInfo> Upload(const UploadHeader& header, const std::string& bytes, size_t chunk = 100) {
    auto upload = store_->BeginUpload(header);
    if (!upload.ok()) {
      return upload.status();
    }
    for (size_t at = 0; at < bytes.size(); at += chunk) {
      if (absl::Status status = (*upload)->Append(bytes.substr(at, chunk)); !status.ok()) {
        return status;
      }
    }
    return (*upload)->Commit();
  }
  void ExpectRefused(const absl::StatusOr<AdapterInfo>& answer, absl::StatusCode code, const std::string& reason) {
    EXPECT_EQ(answer.status().code(), code) << answer.status();
    EXPECT_EQ(GetErrorDetails(answer.status()).reason, reason);
    EXPECT_THAT(std::string(answer.status().message()), testing::Not(HasSubstr(folder_.path())));
  }
  // Everything in the folder, hidden files too.
  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
      files.push_back(entry.path().lexically_relative(folder_.path()));
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  std::string Content(const std::string& name) const {
    std::ifstream file(folder_.Under(name + ".safetensors"), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  const TemporaryFolder folder_;
  Metrics metrics_;
  std::unique_ptr<AdapterStore> store_;
};

TEST_F(AdapterUploadTest, ArrivesWholeUnderItsName) {
  const std::string bytes = AdapterBytes(3);
  const AdapterInfo info = Upload(HeaderOf("styles/new/neon", bytes), bytes).value();
  EXPECT_EQ(info.name, "styles/new/neon");
  EXPECT_EQ(info.content_sha256, Sha(bytes));
  EXPECT_EQ(info.bytes, bytes.size());
  EXPECT_EQ(info.rank_max, 3u);
  EXPECT_EQ(info.format, "lora");
  EXPECT_EQ(info.tier, AdapterTier::kDisk);
  EXPECT_EQ(Content("styles/new/neon"), bytes);
  EXPECT_THAT(Files(), ElementsAre("styles", "styles/new", "styles/new/neon.safetensors"));
  EXPECT_EQ(store_->Acquire("styles/new/neon").value()->info().content_sha256, Sha(bytes));
}

TEST_F(AdapterUploadTest, IsInvisibleUntilItIsCommittedAndLeavesNothingWhenDropped) {
  const std::string bytes = AdapterBytes(3);
  auto upload = store_->BeginUpload(HeaderOf("neon", bytes)).value();
  ASSERT_TRUE(upload->Append(bytes).ok());
  EXPECT_EQ(store_->Get("neon").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->List("", 10).value().empty());
  EXPECT_EQ(Files().size(), 1u) << "the negative control of the next line: something is there meanwhile";
  upload.reset();
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, WrongSizeOrHashIsRefused) {
  const std::string bytes = AdapterBytes(3);
  UploadHeader header = HeaderOf("neon", bytes);
  ExpectRefused(Upload(header, bytes.substr(1)), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE");
  ExpectRefused(Upload(header, bytes + "x"), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE");
  ExpectRefused(Upload(header, ""), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE");
  std::string flipped = bytes;
  flipped.back() ^= 1;
  ExpectRefused(Upload(header, flipped), absl::StatusCode::kInvalidArgument, "UPLOAD_CHECKSUM");
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, EveryBadFieldOfTheHeaderIsNamed) {
  for (const std::string name : {"", "../x", "/etc/x", "a//b", ".hidden", "a/../b"}) {
    const absl::Status status = store_->BeginUpload({name, 0, "ABC", false}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(GetErrorDetails(status).violations.size(), 3u) << name;
  }
  const std::string bytes = AdapterBytes(1);
  ExpectRefused(Upload(HeaderOf("folder/adapter_model", bytes), bytes), absl::StatusCode::kInvalidArgument,
                "INVALID_REQUEST");
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, ContentIsCheckedAsALoadWould) {
  SafetensorsWriter foreign;
  foreign.Add("lora_unet_of_another_model.lora_down.weight", {1, 4});
  foreign.Add("lora_unet_of_another_model.lora_up.weight", {4, 1});
  const std::string page = "<!DOCTYPE html>", nan = AdapterBytes(2, std::numeric_limits<float>::quiet_NaN());
  ExpectRefused(Upload(HeaderOf("page", page), page), absl::StatusCode::kInvalidArgument, "ADAPTER_INVALID");
  ExpectRefused(Upload(HeaderOf("nan", nan), nan), absl::StatusCode::kInvalidArgument, "ADAPTER_INVALID");
  ExpectRefused(Upload(HeaderOf("foreign", foreign.Bytes()), foreign.Bytes()), absl::StatusCode::kInvalidArgument,
                "ADAPTER_MISMATCH");
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, ATakenNameAlreadyExistsUnlessReplaced) {
  const std::string first = AdapterBytes(1), second = AdapterBytes(2);
  ASSERT_TRUE(Upload(HeaderOf("neon", first), first).ok());
  const auto lease = store_->Acquire("neon").value();
  ExpectRefused(Upload(HeaderOf("neon", second), second), absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
  EXPECT_EQ(Content("neon"), first);
  ASSERT_TRUE(Upload(HeaderOf("neon", second, /*replace=*/true), second).ok());
  EXPECT_EQ(lease->info().content_sha256, Sha(first)) << "who runs keeps the version it has";
  EXPECT_EQ(store_->Acquire("neon").value()->info().content_sha256, Sha(second));
  const std::string broken = "no adapter";
  ExpectRefused(Upload(HeaderOf("neon", broken, /*replace=*/true), broken), absl::StatusCode::kInvalidArgument,
                "ADAPTER_INVALID");
  EXPECT_EQ(Content("neon"), second);
  EXPECT_EQ(Files().size(), 1u);
}

TEST_F(AdapterUploadTest, OfTwoUploadsOfOneNameOneWins) {
  const std::string first = AdapterBytes(1), second = AdapterBytes(2);
  auto a = store_->BeginUpload(HeaderOf("neon", first)).value();
  auto b = store_->BeginUpload(HeaderOf("neon", second)).value();
  ASSERT_TRUE(a->Append(first).ok());
  ASSERT_TRUE(b->Append(second).ok());
  ASSERT_TRUE(b->Commit().ok());
  ExpectRefused(a->Commit(), absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
  a.reset();
  EXPECT_EQ(Content("neon"), second);
  EXPECT_THAT(Files(), ElementsAre("neon.safetensors"));
}

TEST_F(AdapterUploadTest, WhatNeverFitsIsRefusedBeforeItComes) {
  Open(folder_.path(), /*host_bytes=*/64);
  const std::string bytes = AdapterBytes(3);
  ExpectRefused(Upload(HeaderOf("neon", bytes), bytes), absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  UploadHeader huge = HeaderOf("neon", bytes);
  huge.size = uint64_t{1} << 40;
  ExpectRefused(store_->BeginUpload(huge).status(), absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET");
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, AFolderInTheWayIsNeverReplaced) {
  const std::string bytes = AdapterBytes(2);
  ASSERT_TRUE(Upload(HeaderOf("neon.safetensors/x", bytes), bytes).ok());
  for (const bool replace : {false, true}) {
    const auto answer = Upload(HeaderOf("neon", bytes, replace), bytes);
    ExpectRefused(answer, absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr("\"neon.safetensors\""));
  }
  EXPECT_THAT(Files(), ElementsAre("neon.safetensors", "neon.safetensors/x.safetensors"));
}

TEST_F(AdapterUploadTest, NamesAreThoseThatCanBeListedAndStayOneFileInAnyForm) {
  const std::string bytes = AdapterBytes(2), other = AdapterBytes(3);
  for (const char* const name : {"p/p/p/p/p/p/p/p/p", "a:b", ".x", "a\\b", "a\nb", "\u202ea"}) {
    ExpectRefused(Upload(HeaderOf(name, bytes), bytes), absl::StatusCode::kInvalidArgument, "INVALID_REQUEST");
  }
  EXPECT_EQ(Upload(HeaderOf("e\u0301 (v2), a+b", bytes), bytes)->name, "\u00e9 (v2), a+b");
  EXPECT_THAT(Files(), ElementsAre("\u00e9 (v2), a+b.safetensors"));
  // One that was copied here in another form.
  std::filesystem::rename(folder_.Under("\u00e9 (v2), a+b.safetensors"), folder_.Under("e\u0301.safetensors"));
  ExpectRefused(Upload(HeaderOf("\u00e9", other), other), absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS");
  EXPECT_EQ(Upload(HeaderOf("\u00e9", other, /*replace=*/true), other)->rank_max, 3u);
  EXPECT_THAT(Files(), ElementsAre("e\u0301.safetensors"));
  EXPECT_TRUE(store_->Delete("\u00e9").ok());
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, DeletingAndFailingLeaveNoEmptyFolders) {
  const std::string bytes = AdapterBytes(2);
  ASSERT_TRUE(Upload(HeaderOf("a/b/c/d", bytes), bytes).ok());
  ASSERT_TRUE(Upload(HeaderOf("a/other", bytes), bytes).ok());
  EXPECT_TRUE(store_->Delete("a/b/c/d").ok());
  EXPECT_THAT(Files(), ElementsAre("a", "a/other.safetensors"));
  std::filesystem::create_directories(folder_.Under("p/q/r"));
  std::ofstream(folder_.Under("p/q/r/adapter_model.safetensors")) << bytes;
  std::ofstream(folder_.Under("p/q/r/adapter_config.json")) << "{}";
  EXPECT_TRUE(store_->Delete("p/q/r").ok());
  EXPECT_TRUE(store_->Delete("a/other").ok());
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(AdapterUploadTest, UploadsUnderWaySetNoMoreDiskAsideThanTheHostTierHas) {
  const std::string bytes = AdapterBytes(2);
  const uint64_t most = (1 << 20) + kMaxAdapterHeaderBytes;
  auto header = [&](const std::string& name, uint64_t size) { return UploadHeader{name, size, Sha(bytes), false}; };
  auto first = store_->BeginUpload(header("a", most - 1000));
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status refused = store_->BeginUpload(header("b", 1001)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(refused).reason, "UPLOADS_BUSY");
  EXPECT_TRUE(store_->BeginUpload(header("b", 1000)).ok());
  first->reset();
  EXPECT_TRUE(store_->BeginUpload(header("b", 1001)).ok());
}

TEST_F(AdapterUploadTest, WithoutAFolderThereIsNoUpload) {
  Open("");
  ExpectRefused(store_->BeginUpload(HeaderOf("neon", "x")).status(), absl::StatusCode::kFailedPrecondition,
                "NO_ADAPTER_FOLDER");
}

TEST_F(AdapterUploadTest, AFullDiskRefusesAndIsLeftClean) {
  // A folder on a small file system needs privileges, so a limit on file sizes stands for the full disk.
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 256;
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string bytes = AdapterBytes(8);
  const absl::StatusOr<AdapterInfo> answer = Upload(HeaderOf("neon", bytes), bytes);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  ExpectRefused(answer, absl::StatusCode::kResourceExhausted, "DISK_FULL");
  EXPECT_THAT(Files(), ElementsAre());
  EXPECT_TRUE(Upload(HeaderOf("neon", bytes), bytes).ok());
}

TEST_F(AdapterUploadTest, AFolderThatIsReplacedTakesNewUploadsAndEndsThoseUnderWay) {
  const std::string bytes = AdapterBytes(2);
  auto under_way = store_->BeginUpload(HeaderOf("a", bytes)).value();
  ASSERT_TRUE(under_way->Append(bytes).ok());
  std::filesystem::remove_all(folder_.path());
  ExpectRefused(Upload(HeaderOf("b", bytes), bytes), absl::StatusCode::kFailedPrecondition, "NO_ADAPTER_FOLDER");
  std::filesystem::create_directory(folder_.path());
  ExpectRefused(under_way->Commit(), absl::StatusCode::kAborted, "ADAPTER_FOLDER_REPLACED");
  under_way.reset();
  EXPECT_TRUE(Upload(HeaderOf("a", bytes), bytes).ok());
  EXPECT_THAT(Files(), ElementsAre("a.safetensors"));
}

TEST_F(AdapterUploadTest, LinksOutOfTheFolderAreNotWrittenThrough) {
  const TemporaryFolder elsewhere;
  std::filesystem::create_directory_symlink(elsewhere.path(), folder_.Under("out"));
  const std::string bytes = AdapterBytes(1);
  ExpectRefused(Upload(HeaderOf("out/neon", bytes), bytes), absl::StatusCode::kInvalidArgument, "INVALID_REQUEST");
  EXPECT_TRUE(std::filesystem::is_empty(elsewhere.path()));
  std::ofstream(elsewhere.Under("kept.safetensors")) << bytes;
  EXPECT_EQ(store_->Delete("out/kept").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::exists(elsewhere.Under("kept.safetensors")));
}

TEST_F(AdapterUploadTest, WhatAKilledServerLeftIsRemovedButNotAnothersUpload) {
  std::ofstream(folder_.Under(".hotlora-upload-dead")) << "part";
  std::ofstream(folder_.Under(".hotlora-upload-live")) << "part";
  std::ofstream(folder_.Under(".somebody-elses")) << "file";
  const int live = open(folder_.Under(".hotlora-upload-live").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(flock(live, LOCK_EX), 0);  // as its server does
  Open(folder_.path());
  EXPECT_THAT(Files(), ElementsAre(".hotlora-upload-live", ".somebody-elses"));
  close(live);
}

TEST_F(AdapterUploadTest, DeletedIsNotFoundWhileItsLeaseLives) {
  const std::string bytes = AdapterBytes(2);
  ASSERT_TRUE(Upload(HeaderOf("styles/neon", bytes), bytes).ok());
  const auto lease = store_->Acquire("styles/neon").value();
  EXPECT_TRUE(store_->Delete("styles/neon").ok());
  EXPECT_EQ(store_->Acquire("styles/neon").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Delete("styles/neon").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(lease->info().content_sha256, Sha(bytes));
  EXPECT_TRUE(Upload(HeaderOf("styles/neon", bytes), bytes).ok()) << "the name is free again";
}

TEST_F(AdapterUploadTest, DeletingAPeftFolderTakesItsFilesAndSparesOthers) {
  std::filesystem::create_directories(folder_.Under("peft"));
  std::ofstream(folder_.Under("peft/adapter_model.safetensors")) << "x";
  std::ofstream(folder_.Under("peft/adapter_config.json")) << "{}";
  std::ofstream(folder_.Under("peft/README.md")) << "words";
  const std::string bytes = AdapterBytes(2);
  ExpectRefused(Upload(HeaderOf("peft", bytes, /*replace=*/true), bytes), absl::StatusCode::kAlreadyExists,
                "ADAPTER_EXISTS");
  EXPECT_TRUE(store_->Delete("peft").ok());
  EXPECT_THAT(Files(), ElementsAre("peft", "peft/README.md"));
  EXPECT_EQ(store_->Delete("peft").code(), absl::StatusCode::kNotFound);
}

TEST_F(AdapterUploadTest, UploadsDeletesAndUsesAtOnceLeaveNoStrayFile) {
  const std::string bytes[] = {AdapterBytes(1), AdapterBytes(2)};
  std::vector<std::thread> threads;
  for (int caller = 0; caller < 4; ++caller) {
    threads.emplace_back([&, caller] {
      for (int i = 0; i < 25; ++i) {
        const std::string& mine = bytes[(caller + i) % 2];
        const absl::Status statuses[] = {Upload(HeaderOf("hot", mine, i % 2 == 0), mine, 1000).status(),
                                         store_->Acquire("hot").status(),
                                         caller == 0 ? store_->Delete("hot") : absl::OkStatus()};
        for (const absl::Status& status : statuses) {
          // FailedPrecondition: it changed again and again while it was read.
          EXPECT_TRUE(status.ok() || absl::IsNotFound(status) || absl::IsAlreadyExists(status) ||
                      absl::IsFailedPrecondition(status))
              << status;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_LE(Files().size(), 1u);
  const std::string last = Content("hot");
  EXPECT_TRUE(last.empty() || last == bytes[0] || last == bytes[1]);
}

}  // namespace
}  // namespace hotlora
