#include "src/base/line_writer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/time/time.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(LineWriterTest, ALineThatWasCutSpoilsNoOther) {
  const std::string path = testing::TempDir() + "/lines";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  int lost = 0;
  {
    LineWriter writer(file, [&] { ++lost; });
    // A limit on file sizes stands for a full disk.
    struct rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = before;
    small.rlim_cur = 10;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    writer.Write("whole");
    writer.Write("cut here");
    writer.Write("not written");
    const bool flushed = writer.Flush(absl::Minutes(1));
    setrlimit(RLIMIT_FSIZE, &before);
    ASSERT_TRUE(flushed);
    writer.Write("next");
  }
  close(file);
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "whole\ncut \nnext\n");
  EXPECT_EQ(lost, 2);
}

}  // namespace
}  // namespace hotlora
