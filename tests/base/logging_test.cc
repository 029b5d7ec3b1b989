#include "src/base/logging.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/line_writer.h"

namespace hotlora {
namespace {

// Standard error is a pipe, which is not read before ReadAll.
class PipeForStderr {
 public:
  PipeForStderr() : before_(dup(STDERR_FILENO)) {
    FlushLog();
    EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0);
    dup2(ends_[1], STDERR_FILENO);
    close(ends_[1]);
  }
  ~PipeForStderr() { Restore(); }

  // Everything written until now, once the writer has come to its end or the pipe is full.
  std::string ReadAll() {
    std::string text;
    std::thread reader([&] {
      char buffer[65536];
      for (ssize_t got; (got = read(ends_[0], buffer, sizeof(buffer))) > 0;) {
        text.append(buffer, static_cast<size_t>(got));
      }
    });
    FlushLog();
    Restore();  // the last writing end: the reader sees its end
    reader.join();
    return text;
  }

 private:
  void Restore() {
    if (before_ >= 0) {
      dup2(before_, STDERR_FILENO);
      close(before_);
      before_ = -1;
    }
  }

  int before_;
  int ends_[2] = {-1, -1};
};

TEST(LoggingTest, LinesAreWrittenInOrderWithTheirLevel) {
  PipeForStderr pipe;
  LogInfo("one\n", 1);
  LogWarning("two");
  LogPlain("last words");
  EXPECT_THAT(pipe.ReadAll(), testing::MatchesRegex("[^\n]* info one.n1\n[^\n]* warning two\nlast words\n"));
}

TEST(LoggingTest, APipeThatIsNotReadBlocksNoThreadAndLostLinesAreCounted) {
  constexpr int kThreads = 4;
  constexpr int kLines = static_cast<int>(LineWriter::kMaxWaiting);
  const uint64_t lost = LostLogLineCount();
  const uint64_t logged = LogLineCount(LogLevel::kInfo);
  PipeForStderr pipe;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([] {
      for (int line = 0; line < kLines; ++line) {
        LogInfo("a line of a call that would wait for ever if it waited for its line");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(LogLineCount(LogLevel::kInfo) - logged, static_cast<uint64_t>(kThreads * kLines));
  const std::string text = pipe.ReadAll();
  const auto written = static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
  EXPECT_GT(LostLogLineCount(), lost);
  EXPECT_EQ(written + (LostLogLineCount() - lost), static_cast<uint64_t>(kThreads * kLines));
}

}  // namespace
}  // namespace hotlora
