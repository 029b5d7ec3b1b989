#include "src/engine/model_watch.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/steady_time.h"

namespace hotlora {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);  // must not be reached

// Waits for looks of a watch.
class Looks {
 public:
  void Heard(bool changed) {
    MutexLock lock(&mu_);
    last_ = changed;
    ++count_;
    looked_.SignalAll();
  }

  // Whether a look that began after this call says so, within a bounded time.
  bool Becomes(bool changed) {
    const absl::Time deadline = SteadyNow() + kLong;
    MutexLock lock(&mu_);
    const int from = count_ + 1;
    while (count_ <= from || last_ != changed) {
      if (!looked_.WaitUntil(&mu_, deadline)) {
        return false;
      }
    }
    return true;
  }

 private:
  Mutex mu_;
  CondVar looked_;
  bool last_ ABSL_GUARDED_BY(mu_) = false;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST(ModelWatchTest, TellsEachLookAndWarnsOnce) {
  const std::string path = absl::StrCat(testing::TempDir(), "/model_watch_", getpid());
  std::ofstream(path) << "weights";
  ModelFiles files;
  files.Add(path);
  files.Add(path + "_that_is_not_there");
  Looks looks;
  const uint64_t warnings = LogLineCount(LogLevel::kWarning);
  {
    const ModelWatch watch(files, absl::Milliseconds(1), [&looks](bool changed) { looks.Heard(changed); });
    EXPECT_TRUE(looks.Becomes(false));
    EXPECT_EQ(LogLineCount(LogLevel::kWarning), warnings);
    const auto time = std::filesystem::last_write_time(path);
    std::filesystem::last_write_time(path, time + std::chrono::seconds(1));  // the same size
    EXPECT_TRUE(looks.Becomes(true));
    std::filesystem::last_write_time(path, time);
    EXPECT_TRUE(looks.Becomes(false));
    std::filesystem::remove(path);
    EXPECT_TRUE(looks.Becomes(true));
    EXPECT_EQ(LogLineCount(LogLevel::kWarning), warnings + 1);
  }
}

TEST(ModelWatchTest, EndsInTheMiddleOfItsPeriod) {
  const absl::Time start = absl::Now();
  {
    const ModelWatch watch(ModelFiles(), absl::Hours(1), [](bool) {});
  }
  EXPECT_LT(absl::Now() - start, kLong);
}

}  // namespace
}  // namespace hotlora
