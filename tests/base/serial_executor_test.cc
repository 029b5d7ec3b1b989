#include "src/base/serial_executor.h"

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(SerialExecutorTest, KeysTakeTurnsAndEachKeepsItsOrder) {
  std::vector<std::string> ran;
  {
    absl::Notification posted;
    SerialExecutor executor("test");
    executor.Post("", [&] { posted.WaitForNotification(); });
    for (const char* const work : {"a1", "a2", "a3", "a4", "b1", "b2", "c1"}) {
      executor.Post(std::string(1, work[0]), [&ran, work] { ran.push_back(work); });
    }
    posted.Notify();
  }
  EXPECT_EQ(ran, (std::vector<std::string>{"a1", "b1", "c1", "a2", "b2", "a3", "a4"}));
}

TEST(SerialExecutorTest, AKeyThatWasDoneTakesItsTurnAgain) {
  std::vector<std::string> ran;
  {
    SerialExecutor executor("test");
    for (const char* const work : {"first", "second"}) {
      absl::Notification done;
      executor.Post("a", [&] {
        ran.push_back(work);
        done.Notify();
      });
      done.WaitForNotification();
    }
  }
  EXPECT_EQ(ran, (std::vector<std::string>{"first", "second"}));
}

TEST(SerialExecutorTest, TellsHowLongItsWorkTakesAndWhatWaits) {
  SerialExecutor executor("test");
  EXPECT_EQ(executor.load().seconds, 0.0);
  absl::Notification begun, go_on, done;
  executor.Post("a", [&] {
    begun.Notify();
    go_on.WaitForNotification();
  });
  begun.WaitForNotification();
  executor.Post("a", [] {});
  executor.Post("b", [&] { done.Notify(); });
  EXPECT_GT(executor.load().seconds, 0.0);
  EXPECT_EQ(executor.load().waiting, 2u);
  go_on.Notify();
  done.WaitForNotification();
  EXPECT_EQ(executor.load().waiting, 0u);
}

}  // namespace
}  // namespace hotlora
