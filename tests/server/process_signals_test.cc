#include "server/process_signals.h"

#include <signal.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

#include "src/base/logging.h"

namespace hotlora {
namespace {

using Event = ProcessSignals::Event;

// Each case runs in a process of its own: signals are the whole process's.
class ProcessSignalsTest : public ::testing::Test {
 protected:
  ProcessSignalsTest() { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

[[noreturn]] void WaitForever() {
  while (true) {
    pause();
  }
}

class StopSignalTest : public ProcessSignalsTest, public ::testing::WithParamInterface<int> {};

TEST_P(StopSignalTest, EndsWaitAfterBeginService) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        signals.BeginService();
        kill(getpid(), GetParam());
        const bool stop = signals.Wait() == Event::kStop;
        FlushLog();
        _exit(stop ? 7 : 1);
      },
      ::testing::ExitedWithCode(7), "stopping");
}

TEST_P(StopSignalTest, EndsTheProcessBeforeService) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        kill(getpid(), GetParam());
        WaitForever();
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_P(StopSignalTest, WaitsForTheObjectWhileItIsBlocked) {
  EXPECT_EXIT(
      {
        ProcessSignals::Block();
        kill(getpid(), GetParam());
        ProcessSignals signals;
        WaitForever();
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_P(StopSignalTest, EndsAProcessThatTakesNoSignals) {
  EXPECT_EXIT(
      {
        ProcessSignals::Block();
        kill(getpid(), GetParam());
        ProcessSignals::Unblock();
        WaitForever();
      },
      ::testing::KilledBySignal(GetParam()), "");
}

TEST_P(StopSignalTest, SecondSignalEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        signals.BeginService();
        kill(getpid(), SIGTERM);
        signals.Wait();
        kill(getpid(), GetParam());
        WaitForever();
      },
      ::testing::ExitedWithCode(128 + GetParam()), "at once");
}

INSTANTIATE_TEST_SUITE_P(, StopSignalTest, ::testing::Values(SIGTERM, SIGINT, SIGQUIT),
                         [](const auto& tested) { return std::string("Signal") + std::to_string(tested.param); });

TEST_F(ProcessSignalsTest, RequestStopIsLikeASignal) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        signals.BeginService();
        signals.RequestStop(5);
        _exit(signals.Wait() == Event::kStop ? 4 + signals.exit_code() : 1);
      },
      ::testing::ExitedWithCode(9), "");
}

TEST_F(ProcessSignalsTest, RequestStopBeforeServiceEndsTheProcessWithItsCode) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        signals.RequestStop(5);
      },
      ::testing::ExitedWithCode(5), "");
}

TEST_F(ProcessSignalsTest, HangUpIsAReloadBeforeAndDuringService) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        kill(getpid(), SIGHUP);
        bool good = signals.Wait() == Event::kReload;
        signals.BeginService();
        kill(getpid(), SIGHUP);
        good = good && signals.Wait() == Event::kReload;
        kill(getpid(), SIGTERM);
        good = good && signals.Wait() == Event::kStop;
        _exit(good ? 5 : 1);
      },
      ::testing::ExitedWithCode(5), "");
}

TEST_F(ProcessSignalsTest, OthersEndNothing) {
  EXPECT_EXIT(
      {
        ProcessSignals signals;
        signals.BeginService();
        for (const int number : {SIGUSR1, SIGUSR2, SIGPIPE}) {
          kill(getpid(), number);
        }
        kill(getpid(), SIGTERM);
        _exit(signals.Wait() == Event::kStop ? 3 : 1);
      },
      ::testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace hotlora
