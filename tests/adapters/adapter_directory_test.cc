#include "src/adapters/adapter_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

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
    for (const ListedAdapter& adapter : directory.List("", 1000)) {
      if (adapter.version.ok()) {
        names.push_back(adapter.name);
      }
    }
    return names;
  }
  // What is listed as not to be served, by name, and why.
  std::map<std::string, std::string> Faults(const AdapterDirectory& directory) {
    std::map<std::string, std::string> faults;
    for (const ListedAdapter& adapter : directory.List("", 1000)) {
      if (!adapter.version.ok()) {
        faults[adapter.name] = std::string(adapter.version.status().message());
      }
    }
    return faults;
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
  EXPECT_FALSE(file->config.has_value());
  EXPECT_EQ(*directory.Find("styles/neon"), file->version);
  const absl::StatusOr<OpenedAdapter> peft = directory.OpenAdapter("styles/peft");
  ASSERT_TRUE(peft.ok()) << peft.status();
  EXPECT_EQ(peft->version.weights.size, 3u);
  EXPECT_EQ(peft->config, "{}");
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
  const char* const why =
      GetParam() ? "link that leaves" : "not a regular file";  // older kernels follow no link at all
  EXPECT_THAT(Faults(strict), ElementsAre(Pair("absolute", HasSubstr(why)),
                                          Pair("folder", HasSubstr("link that leaves")), Pair("up", HasSubstr(why))));
  EXPECT_THAT(Names(open), ElementsAre("absolute", "folder/secret", "up"));
  EXPECT_THAT(Faults(open), IsEmpty());
}

TEST_P(AdapterDirectoryTest, OnlyRegularFilesCount) {
  ASSERT_EQ(mkfifo(Inside("pipe.safetensors").c_str(), 0600), 0);
  std::filesystem::create_directories(Inside("folder.safetensors"));
  const AdapterDirectory directory = Open();
  EXPECT_EQ(directory.OpenAdapter("pipe").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(directory.OpenAdapter("folder").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Names(directory), IsEmpty());
  EXPECT_THAT(Faults(directory), ElementsAre(Pair("pipe", HasSubstr("not a regular file"))));
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
        "a name.safetensors", "readme.txt", "a-1.safetensors"}) {
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
  EXPECT_THAT(Names(directory), ElementsAre("a", "a name", "a-1", "a/peft", "a/z", "b"));
  EXPECT_THAT(Faults(directory)[deep + "far"], HasSubstr("has 10 parts; allowed are at most 8"));
  EXPECT_FALSE(directory.Find(deep + "far").ok()) << "what cannot be listed cannot be named";
}

// Each way in which a folder is replaced as a whole: what a request sees is what the path names at that time.
TEST_P(AdapterDirectoryTest, SeesTheFolderThatThePathNamesNow) {
  namespace fs = std::filesystem;
  const fs::path place = folder_.Under("releases");
  const fs::path current = place / "current";
  const auto fresh = [&](bool by_link) {
    fs::remove_all(place);
    Write(place / "one/style.safetensors", "1");
    Write(place / "two/style.safetensors", "22");
    Write(place / "two/second.safetensors", "2");
    if (by_link) {
      fs::create_directory_symlink("one", current);
    } else {
      fs::rename(place / "one", current);
    }
  };
  struct Case {
    const char* what;
    bool by_link;
    std::function<void()> change;
  };
  const Case cases[] = {
      {"git-sync: the link is switched", true,
       [&] {
         fs::create_directory_symlink("two", place / "draft");
         fs::rename(place / "draft", current);
       }},
      {"the link is removed and made anew", true,
       [&] {
         fs::remove(current);
         fs::create_directory_symlink("two", current);
       }},
      {"two renames", false,
       [&] {
         fs::rename(current, place / "old");
         fs::rename(place / "two", current);
       }},
      {"rm -r and mkdir", false,
       [&] {
         fs::remove_all(current);
         fs::create_directory(current);
         fs::copy(place / "two", current, fs::copy_options::recursive);
       }},
      {"a link takes the folder's place", false,
       [&] {
         fs::remove_all(current);
         fs::create_directory_symlink("two", current);
       }},
  };
  for (const Case& test : cases) {
    fresh(test.by_link);
    const AdapterDirectory directory = AdapterDirectory::Open(current, false, GetParam()).value();
    const absl::StatusOr<OpenedAdapter> before = directory.OpenAdapter("style");
    ASSERT_TRUE(before.ok()) << test.what << before.status();
    EXPECT_THAT(Names(directory), ElementsAre("style")) << test.what;
    test.change();
    const absl::StatusOr<AdapterVersion> after = directory.Find("style");
    ASSERT_TRUE(after.ok()) << test.what << after.status();
    EXPECT_EQ(after->weights.size, 2u) << test.what;
    EXPECT_THAT(Names(directory), ElementsAre("second", "style")) << test.what;
    char byte = 0;  // who has the old file open keeps it
    EXPECT_EQ(read(before->weights.number(), &byte, 1), 1) << test.what;
    EXPECT_EQ(byte, '1') << test.what;
  }
}

// What Kubernetes makes of a ConfigMap or an image volume: links to a hidden link to a hidden folder, which is
// switched.
TEST(AdapterDirectoryOpenat2Test, FollowsTheLinksOfKubernetes) {
  namespace fs = std::filesystem;
  const TemporaryFolder folder;
  Write(folder.Under("..2026_1/style.safetensors"), "1");
  Write(folder.Under("..2026_2/style.safetensors"), "22");
  fs::create_directory_symlink("..2026_1", folder.Under("..data"));
  fs::create_symlink("..data/style.safetensors", folder.Under("style.safetensors"));
  const AdapterDirectory directory = AdapterDirectory::Open(folder.path(), false).value();
  EXPECT_EQ(directory.Find("style").value().weights.size, 1u);
  fs::create_directory_symlink("..2026_2", folder.Under("..data_tmp"));
  fs::rename(folder.Under("..data_tmp"), folder.Under("..data"));
  fs::remove_all(folder.Under("..2026_1"));
  EXPECT_EQ(directory.Find("style").value().weights.size, 2u);
}

TEST_P(AdapterDirectoryTest, AFolderThatIsGoneSaysSoUntilItIsThereAgain) {
  Write(Inside("a.safetensors"), "x");
  const AdapterDirectory directory = Open();
  std::filesystem::rename(Inside(""), folder_.Under("away"));
  const absl::Status gone = directory.Find("a").status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetails(gone).reason, "ADAPTER_FOLDER_MISSING");
  EXPECT_THAT(std::string(gone.message()), HasSubstr("folder cannot be opened now"));
  EXPECT_THAT(Names(directory), IsEmpty());
  std::filesystem::rename(folder_.Under("away"), Inside(""));
  EXPECT_TRUE(directory.Find("a").ok());
}

TEST_P(AdapterDirectoryTest, ServesWhatPeopleCallTheirFiles) {
  const std::vector<std::string> names = {" leading",  "-dash",  "Pony Style (v2)", "[char] miku",
                                          "_pony",     "a+b",    "caf\u00e9",       "ends.",
                                          "style@0.8", "te,st1", "trailing ",       "\u6c34\u5f69\u98ce"};
  for (const std::string& name : names) {
    Write(Inside(name + ".safetensors"), "x");
  }
  const AdapterDirectory directory = Open();
  EXPECT_THAT(Names(directory), testing::ElementsAreArray(names));
  EXPECT_THAT(Faults(directory), IsEmpty());
  for (const std::string& name : names) {
    EXPECT_TRUE(directory.OpenAdapter(name).ok()) << name;
  }
}

// macOS and rsync from it leave decomposed names.
TEST_P(AdapterDirectoryTest, FindsAFileInAnyUnicodeForm) {
  Write(Inside("e\u0301/cafe\u0301.safetensors"), "12");
  Write(Inside("u\u0308/adapter_model.safetensors"), "1");
  Write(Inside("u\u0308/adapter_config.json"), "{}");
  const AdapterDirectory directory = Open();
  EXPECT_THAT(Names(directory), ElementsAre("\u00e9/caf\u00e9", "\u00fc"));
  for (const char* const name : {"\u00e9/caf\u00e9", "e\u0301/cafe\u0301", "\u00e9/cafe\u0301"}) {
    const absl::StatusOr<AdapterVersion> version = directory.Find(name);
    ASSERT_TRUE(version.ok()) << name << version.status();
    EXPECT_EQ(version->weights.size, 2u);
  }
  EXPECT_EQ(directory.OpenAdapter("\u00fc")->config, "{}");
  Write(Inside("o\u0308.safetensors"), "new");
  EXPECT_TRUE(directory.Find("\u00f6").ok()) << "one that has just come";
}

TEST_P(AdapterDirectoryTest, TwoFilesOfOneNameAreNeitherServed) {
  Write(Inside("cafe\u0301.safetensors"), "1");
  Write(Inside("caf\u00e9.safetensors"), "2");
  const AdapterDirectory directory = Open();
  EXPECT_THAT(Faults(directory), ElementsAre(Pair("caf\u00e9", HasSubstr("two files have this name"))));
  const absl::Status status = directory.Find("caf\u00e9").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("two files have this name"));
  std::filesystem::remove(Inside("cafe\u0301.safetensors"));
  EXPECT_TRUE(directory.Find("caf\u00e9").ok());
}

// Each file that a person may take for an adapter is listed with why it is none, and nothing else is.
TEST_P(AdapterDirectoryTest, TellsWhatItCannotServe) {
  for (const char* const path : {"a:b.safetensors",
                                 "a<b.safetensors",
                                 "back\\slash.safetensors",
                                 "line\nbreak.safetensors",
                                 "\u202egnp.safetensors",
                                 "na\xefve.safetensors",
                                 "no:folder/x.safetensors",
                                 "LOUD.SAFETENSORS",
                                 "\u212aelvin.safetensors",
                                 "bare/adapter_config.json",
                                 "lone/adapter_model.safetensors",
                                 "adapter_model.safetensors",
                                 "fine.safetensors",
                                 "fine.png",
                                 "fine.preview.png",
                                 "fine.txt",
                                 "fine.json",
                                 "fine.civitai.info",
                                 "fine.safetensors.sha256",
                                 "old.pt",
                                 "older.ckpt",
                                 ".hidden.safetensors",
                                 ".cache/x.safetensors",
                                 "._fine.safetensors",
                                 "empty/readme.txt"}) {
    Write(Inside(path), "x");
  }
  std::filesystem::create_symlink("nothing", Inside("dangling.safetensors"));
  std::filesystem::create_symlink("/nowhere/mounted", Inside("drive"));
  const AdapterDirectory directory = Open();
  EXPECT_THAT(Names(directory), ElementsAre("fine"));
  EXPECT_THAT(Faults(directory),
              ElementsAre(Pair("Kelvin", HasSubstr("only looks like one of \"Kelvin\"")),
                          Pair("LOUD.SAFETENSORS", HasSubstr("not .safetensors in small letters")),
                          Pair("\\xe2\\x80\\xaegnp", HasSubstr("U+202E")), Pair("a:b", HasSubstr("\":\"")),
                          Pair("a<b", HasSubstr("\"<\"")), Pair("adapter_model", HasSubstr("folder of their own")),
                          Pair("back\\\\slash", HasSubstr("backslash")),
                          Pair("bare", HasSubstr("lacks adapter_model.safetensors")),
                          Pair("dangling", HasSubstr(GetParam() ? "link to nothing" : "")),
                          Pair("line\\x0abreak", HasSubstr("U+000A")), Pair("lone", HasSubstr("lacks adapter_config")),
                          Pair("na\\xefve", HasSubstr("not valid UTF-8")), Pair("no:folder/x", HasSubstr("\":\""))));
  testing::internal::CaptureStderr();
  directory.LogWhatIsNotServed();
  FlushLog();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("old.pt, older.ckpt"));
  EXPECT_THAT(log, HasSubstr("U+202E"));
  EXPECT_THAT(log, HasSubstr("lead to nothing: drive"));
}

// A client that pages through a large folder costs one scan, and one that comes again none if nothing has changed.
TEST_P(AdapterDirectoryTest, PagesShareOneScan) {
  for (int i = 0; i < 500; ++i) {
    Write(Inside(absl::StrCat("f", i % 10, "/", 1000 + i, ".safetensors")), "x");
  }
  const AdapterDirectory directory = Open();
  std::vector<std::string> names;
  for (std::string after;;) {
    const std::vector<ListedAdapter> page = directory.List(after, 7);
    for (const ListedAdapter& adapter : page) {
      names.push_back(adapter.name);
    }
    if (page.empty()) {
      break;
    }
    after = page.back().name;
  }
  EXPECT_EQ(names.size(), 500u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(directory.scans_for_test(), 1u);
  Write(Inside("f0/new.safetensors"), "x");
  EXPECT_EQ(directory.List("", 1000).size(), 501u) << "a new listing sees what has come";
}

TEST_P(AdapterDirectoryTest, NoFolderHasNoAdapters) {
  const AdapterDirectory none = AdapterDirectory::Open("", false, GetParam()).value();
  EXPECT_THAT(Names(none), IsEmpty());
  EXPECT_EQ(none.Find("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(AdapterDirectory::Open(folder_.Under("nothing"), false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(FolderScanTest, IsCurrentUntilAFolderChangesAndNotForLong) {
  const TemporaryFolder folder;
  Write(folder.Under("a/x.safetensors"), "x");
  const ServedFolder served = ServedFolder::Find(kAdapterKind, folder.path(), false, true).value();
  const OpenedFolder opened = served.Open().value();
  const absl::Time later = absl::Now() + absl::Seconds(10);
  const FolderScan scan(opened, kAdapterKind, later);
  EXPECT_TRUE(scan.IsCurrent(opened, later + absl::Seconds(4)));
  EXPECT_FALSE(scan.IsCurrent(opened, later + absl::Seconds(5))) << "not every file system tells of new entries";
  EXPECT_FALSE(FolderScan(opened, kAdapterKind).IsCurrent(opened)) << "the folder has just been made";
  Write(folder.Under("a/y.safetensors"), "x");
  EXPECT_FALSE(scan.IsCurrent(opened, later));
}

INSTANTIATE_TEST_SUITE_P(Kernels, AdapterDirectoryTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Openat2" : "Older"; });

}  // namespace
}  // namespace hotlora
