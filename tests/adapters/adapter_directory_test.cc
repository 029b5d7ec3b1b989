#include "src/adapters/adapter_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "src/base/error_details.h"
#include "tests/adapters/temporary_folder.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

void Write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

// With and without openat2.
class AdapterDirectoryTest : public testing::TestWithParam<bool> {
 protected:
  AdapterDirectory Open(bool follow_links = false) {
    return AdapterDirectory::Open(Inside(""), follow_links, GetParam()).value();
  }
  std::string Inside(const std::string& name) const { return folder_.Under("adapters/" + name); }
  std::vector<std::string> Names(const AdapterDirectory& directory) {
    std::vector<std::string> names;
    for (const ListedAdapter& adapter : directory.List()) {
      names.push_back(adapter.name);
    }
    return names;
  }

  void SetUp() override { std::filesystem::create_directories(Inside("")); }

  const TemporaryFolder folder_;
};

TEST_P(AdapterDirectoryTest, FindsFilesAndPeftFoldersByName) {
  Write(Inside("styles/neon.safetensors"), "12345");
  Write(Inside("styles/peft/adapter_model.safetensors"), "123");
  Write(Inside("styles/peft/adapter_config.json"), "{}");
  const AdapterDirectory directory = Open();
  const absl::StatusOr<OpenedAdapter> file = directory.OpenAdapter("styles/neon");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->version.weights.size, 5u);
  EXPECT_FALSE(file->peft_config.has_value());
  EXPECT_EQ(*directory.Find("styles/neon"), file->version);
  const absl::StatusOr<OpenedAdapter> peft = directory.OpenAdapter("styles/peft");
  ASSERT_TRUE(peft.ok()) << peft.status();
  EXPECT_EQ(peft->version.weights.size, 3u);
  EXPECT_EQ(peft->peft_config, "{}");
  EXPECT_EQ(*directory.Find("styles/peft"), peft->version);
}

TEST_P(AdapterDirectoryTest, NamesAreNeverPaths) {
  Write(folder_.Under("secret.safetensors"), "x");
  Write(Inside("a.safetensors"), "x");
  Write(Inside(".hidden.safetensors"), "x");
  Write(Inside("peft/adapter_model.safetensors"), "x");
  Write(Inside("peft/adapter_config.json"), "{}");
  const AdapterDirectory directory = Open();
  for (const std::string& name :
       {std::string("../secret"), std::string("x/../../secret"), folder_.Under("secret"), std::string("."),
        std::string(".."), std::string(""), std::string("a.safetensors"), std::string(".hidden"),
        std::string("a\0b", 3), std::string(5000, 'a'), std::string("a/b"), std::string("peft/adapter_model")}) {
    const absl::Status status = directory.Find(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << name;
    EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_NOT_FOUND");
  }
}

TEST_P(AdapterDirectoryTest, LinksThatLeaveTheFolderNeedPermission) {
  Write(folder_.Under("outside/secret.safetensors"), "x");
  std::filesystem::create_symlink(folder_.Under("outside/secret.safetensors"), Inside("absolute.safetensors"));
  std::filesystem::create_symlink("../outside/secret.safetensors", Inside("up.safetensors"));
  std::filesystem::create_directory_symlink("../outside", Inside("folder"));
  const AdapterDirectory strict = Open();
  const AdapterDirectory open = Open(/*follow_links=*/true);
  for (const char* const name : {"absolute", "up", "folder/secret"}) {
    const absl::Status status = strict.OpenAdapter(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << name << status;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(folder_.path())));
    EXPECT_TRUE(open.OpenAdapter(name).ok()) << name;
  }
  EXPECT_THAT(Names(strict), IsEmpty());
  EXPECT_THAT(Names(open), ElementsAre("absolute", "folder/secret", "up"));
}

TEST_P(AdapterDirectoryTest, OnlyRegularFilesCount) {
  ASSERT_EQ(mkfifo(Inside("pipe.safetensors").c_str(), 0600), 0);
  std::filesystem::create_directories(Inside("folder.safetensors"));
  const AdapterDirectory directory = Open();
  EXPECT_EQ(directory.OpenAdapter("pipe").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(directory.OpenAdapter("folder").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Names(directory), IsEmpty());
}

TEST_P(AdapterDirectoryTest, PeftFolderNeedsItsConfiguration) {
  Write(Inside("peft/adapter_model.safetensors"), "x");
  const absl::Status status = Open().Find("peft").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_INVALID");
}

TEST_P(AdapterDirectoryTest, VersionChangesWithTheFile) {
  Write(Inside("a.safetensors"), "old");
  const AdapterDirectory directory = Open();
  const AdapterVersion before = directory.Find("a").value();
  Write(Inside("b"), "new");
  std::filesystem::rename(Inside("b"), Inside("a.safetensors"));
  EXPECT_NE(directory.Find("a").value(), before);
  Write(Inside("peft/adapter_model.safetensors"), "x");
  Write(Inside("peft/adapter_config.json"), "{}");
  const AdapterVersion peft = directory.Find("peft").value();
  Write(Inside("peft/adapter_config.json"), "{ }");
  EXPECT_NE(directory.Find("peft").value(), peft);
}

TEST_P(AdapterDirectoryTest, ListsInOrderOfNames) {
  for (const char* const name :
       {"b.safetensors", "a/z.safetensors", "a.safetensors", "a/peft/adapter_model.safetensors", ".git/x.safetensors",
        "bad name.safetensors", "readme.txt", "a-1.safetensors"}) {
    Write(Inside(name), "x");
  }
  Write(Inside("a/peft/adapter_config.json"), "{}");
  std::filesystem::create_directory_symlink(".", Inside("a/ring"));
  std::string deep;
  for (int i = 0; i < 9; ++i) {
    absl::StrAppend(&deep, "d/");
  }
  Write(Inside(deep + "far.safetensors"), "x");
  const AdapterDirectory directory = Open();
  EXPECT_THAT(Names(directory), ElementsAre("a", "a-1", "a/peft", "a/z", "b"));
  EXPECT_TRUE(directory.Find(deep + "far").ok());
}

TEST_P(AdapterDirectoryTest, NoFolderHasNoAdapters) {
  const AdapterDirectory none = AdapterDirectory::Open("", false, GetParam()).value();
  EXPECT_THAT(Names(none), IsEmpty());
  EXPECT_EQ(none.Find("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(AdapterDirectory::Open(folder_.Under("nothing"), false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Kernels, AdapterDirectoryTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Openat2" : "Older"; });

}  // namespace
}  // namespace hotlora
