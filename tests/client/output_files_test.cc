#include "client/output_files.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

class OutputFilesTest : public ::testing::Test {
 protected:
  OutputFilesTest() : folder_(absl::StrCat(::testing::TempDir(), "/output_files_test.", getpid())) {
    std::filesystem::create_directory(folder_);
  }
  ~OutputFilesTest() override { std::filesystem::remove_all(folder_); }

  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  const std::string folder_;
};

TEST_F(OutputFilesTest, SeveralImagesAreNumberedBeforeTheEnding) {
  EXPECT_EQ(OutputNames("a/cat.png", 1), std::vector<std::string>{"a/cat.png"});
  EXPECT_EQ(OutputNames("a/cat.png", 2), (std::vector<std::string>{"a/cat-0.png", "a/cat-1.png"}));
  EXPECT_EQ(OutputNames("a.b/cat", 2), (std::vector<std::string>{"a.b/cat-0", "a.b/cat-1"}));
  EXPECT_TRUE(OutputNames("cat.png", 0).empty());
}

TEST_F(OutputFilesTest, PreviewsAreNumberedByImageAndStep) {
  EXPECT_EQ(PreviewName("a/cat.jpg", 0, 1, 5, 30), "a/cat-05.jpg");
  EXPECT_EQ(PreviewName("a.b/cat", 2, 3, 7, 8), "a.b/cat-2-7.jpg");
  EXPECT_EQ(PreviewName("cat.png", 0, 1, 10, 100), "cat.png-010.jpg");
}

TEST_F(OutputFilesTest, ReplacesAFileAndLeavesNothingBeside) {
  const std::string path = folder_ + "/x.png";
  std::ofstream(path) << "old, and longer than the new one";
  ASSERT_TRUE(WriteFile(path, absl::string_view("new\0bytes", 9)).ok());
  EXPECT_EQ(Read(path), std::string("new\0bytes", 9));
  const auto files = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(OutputFilesTest, FailureLeavesWhatWasThere) {
  const std::string taken = folder_ + "/folder";
  std::filesystem::create_directory(taken);
  std::ofstream(taken + "/inside") << "kept";
  EXPECT_FALSE(WriteFile(taken, "bytes").ok());
  EXPECT_EQ(Read(taken + "/inside"), "kept");
  const auto files = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(OutputFilesTest, FoldersThatCannotTakeTheFileAreNamed) {
  EXPECT_TRUE(CheckWritable("--out", folder_ + "/x.png").ok());
  EXPECT_TRUE(CheckWritable("--out", "x.png").ok());
  EXPECT_NE(CheckWritable("--out", "/nowhere/x.png").message().find("--out /nowhere/x.png: "), absl::string_view::npos);
  EXPECT_FALSE(CheckWritable("--out", folder_).ok());
}

}  // namespace
}  // namespace hotlora
