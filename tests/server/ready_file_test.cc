#include "server/ready_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(ReadyFileTest, ReplacesTheFileInOnePiece) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/ready_file_test.", getpid());
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/ready";
  std::ofstream(path) << "old and much longer than what comes, so that a leftover would "
                         "show.......................";
  std::ofstream(path + ".draft") << "of a process that was killed while it wrote, and longer too....................";
  ASSERT_TRUE(WriteReadyFile(path, 1234, 5678).ok());
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_EQ(text, absl::StrCat("{\"grpc_port\":1234,\"metrics_port\":5678,\"pid\":", getpid(), "}\n"));
  const auto files = std::filesystem::directory_iterator(folder);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
  std::filesystem::remove_all(folder);
}

TEST(ReadyFileTest, SaysWhereItCannotBeWritten) {
  const absl::Status status = WriteReadyFile("/nowhere/ready", 1, 2);
  EXPECT_NE(status.message().find("/nowhere/ready"), absl::string_view::npos);
}

}  // namespace
}  // namespace hotlora
