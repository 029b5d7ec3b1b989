#include "src/adapters/adapter_writer.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/temporary_folder.h"

namespace {

// What was synced, as paths, and the path whose sync fails.
std::vector<std::string>* g_synced = nullptr;
std::string g_failing;
int g_error = 0;

}  // namespace

// Stands for the C library's in this test program.
extern "C" int fsync(int descriptor) {
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  if (g_synced != nullptr && readlink(link.c_str(), path, sizeof(path) - 1) > 0) {
    g_synced->push_back(path);
    if (g_error != 0 && g_failing == path) {
      errno = g_error;
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}

namespace hotlora {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class AdapterWriterTest : public testing::Test {
 protected:
  void SetUp() override { g_synced = &synced_; }
  void TearDown() override {
    g_synced = nullptr;
    g_error = 0;
  }

  absl::Status Write(const std::string& name, const std::string& bytes, bool replace = false) {
    absl::StatusOr<IncomingFile> file = writer_.Create(name, bytes.size());
    EXPECT_TRUE(file.ok()) << file.status();
    hidden_ = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file->number()));
    EXPECT_TRUE(file->Append(bytes).ok());
    const absl::Status finished = file->Finish();
    return finished.ok() ? writer_.Commit(*file, name, replace) : finished;
  }
  void WritePeft(const std::string& name) {
    std::filesystem::create_directories(folder_.Under(name));
    std::ofstream(folder_.Under(name + "/adapter_model.safetensors")) << "tensors";
    std::ofstream(folder_.Under(name + "/adapter_config.json")) << "{}";
  }
  // As the kernel names it.
  std::string Real(const std::string& name = "") const {
    return std::filesystem::weakly_canonical(folder_.Under(name));
  }
  // Every sync of this path fails from now on.
  void Fail(const std::string& path, int error = EIO) {
    g_failing = path;
    g_error = error;
  }
  bool Has(const std::string& name) const { return std::filesystem::exists(folder_.Under(name)); }
  std::string Content(const std::string& name) const {
    std::ifstream file(folder_.Under(name));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  void ExpectUnconfirmed(const absl::Status& status, const std::string& what) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_FOLDER");
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(what), HasSubstr("Input/output error"), testing::Not(HasSubstr(folder_.path()))));
  }

  const TemporaryFolder folder_;
  const AdapterDirectory directory_ = AdapterDirectory::Open(folder_.path(), /*follow_links=*/false).value();
  const AdapterWriter writer_{directory_};
  std::string hidden_;
  std::vector<std::string> synced_;
};

TEST_F(AdapterWriterTest, SyncsTheFileThenEachFolderThatMayBeNew) {
  ASSERT_TRUE(Write("a/b/neon", "bytes").ok());
  EXPECT_THAT(synced_, ElementsAre(hidden_, Real("a/b"), Real("a"), Real()));
  synced_.clear();
  ASSERT_TRUE(Write("neon", "bytes").ok());
  EXPECT_THAT(synced_, ElementsAre(hidden_, Real()));
}

TEST_F(AdapterWriterTest, SyncsWhatADeleteChanges) {
  ASSERT_TRUE(Write("a/neon", "bytes").ok());
  WritePeft("p/peft");
  synced_.clear();
  ASSERT_TRUE(writer_.Delete("a/neon").ok());
  EXPECT_THAT(synced_, ElementsAre(Real("a"), Real()));
  synced_.clear();
  ASSERT_TRUE(writer_.Delete("p/peft").ok());
  // The tensors are off the disk before the configuration is touched.
  EXPECT_THAT(synced_, ElementsAre(Real("p/peft"), Real("p/peft"), Real("p"), Real()));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(AdapterWriterTest, AFileThatCannotBeSyncedGetsNoName) {
  absl::StatusOr<IncomingFile> file = writer_.Create("neon", 5);
  ASSERT_TRUE(file.ok() && file->Append("bytes").ok());
  Fail(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file->number())));
  EXPECT_EQ(file->Finish().code(), absl::StatusCode::kInternal);
  Fail(g_failing, ENOSPC);
  EXPECT_EQ(file->Finish().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(AdapterWriterTest, AnUploadThatTheDiskDoesNotConfirmSaysSo) {
  const std::string folders[] = {Real("a/b"), Real("a"), Real()};
  for (const std::string& failing : folders) {
    Fail(failing);
    ExpectUnconfirmed(Write("a/b/neon", failing, /*replace=*/true), "adapter \"a/b/neon\" is in its folder");
    EXPECT_EQ(Content("a/b/neon.safetensors"), failing);
  }
  g_error = 0;
  EXPECT_TRUE(Write("a/b/neon", "again", /*replace=*/true).ok());
}

TEST_F(AdapterWriterTest, ADeleteThatTheDiskDoesNotConfirmSaysSo) {
  ASSERT_TRUE(Write("a/neon", "bytes").ok());
  Fail(Real("a"));
  ExpectUnconfirmed(writer_.Delete("a/neon"), "adapter \"a/neon\" is deleted");
  EXPECT_FALSE(Has("a/neon.safetensors"));
  WritePeft("peft");
  Fail(Real("peft"));
  ExpectUnconfirmed(writer_.Delete("peft"), "adapter \"peft\" is deleted");
  EXPECT_FALSE(Has("peft/adapter_model.safetensors"));
}

TEST_F(AdapterWriterTest, AFileSystemThatCannotSyncFoldersWillDo) {
  Fail(Real(), EINVAL);
  EXPECT_TRUE(Write("neon", "bytes").ok());
  EXPECT_TRUE(writer_.Delete("neon").ok());
}

TEST_F(AdapterWriterTest, WhatIsLeftOfADeletedPeftFolderCanBeDeleted) {
  WritePeft("peft");
  std::filesystem::remove(folder_.Under("peft/adapter_model.safetensors"));  // as a delete that was killed then
  EXPECT_EQ(directory_.Find("peft").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(writer_.Delete("peft").ok());
  EXPECT_FALSE(Has("peft"));
  EXPECT_EQ(writer_.Delete("peft").code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace hotlora
