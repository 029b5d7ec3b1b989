#include "server/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

// Each case runs in a process of its own: signals are the whole process's.
class StopSignalTest : public ::testing::Test {
 protected:
  StopSignalTest() { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

[[noreturn]] void WaitForever() {
  while (true) {
    pause();
  }
}

TEST_F(StopSignalTest, EndsWaitAfterBeginService) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        stop.BeginService();
        kill(getpid(), SIGTERM);
        stop.Wait();
        _exit(7);
      },
      ::testing::ExitedWithCode(7), "stopping");
}

TEST_F(StopSignalTest, EndsTheProcessBeforeService) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        kill(getpid(), SIGTERM);
        WaitForever();
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(StopSignalTest, SecondSignalEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        stop.BeginService();
        kill(getpid(), SIGTERM);
        stop.Wait();
        kill(getpid(), SIGINT);
        WaitForever();
      },
      ::testing::ExitedWithCode(128 + SIGINT), "at once");
}

TEST_F(StopSignalTest, RequestIsLikeASignal) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        stop.BeginService();
        stop.Request();
        stop.Wait();
        _exit(9);
      },
      ::testing::ExitedWithCode(9), "");
}

}  // namespace
}  // namespace hotlora
