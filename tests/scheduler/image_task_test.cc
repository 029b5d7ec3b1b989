#include "src/scheduler/image_task.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/base/steady_time.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

// Whether a request of that deadline is wanted, and why not.
absl::Status Wanted(absl::Time deadline, absl::Duration longest) {
  ImageJob job;
  job.deadline = deadline;
  return ImageTask(std::move(job), std::make_shared<RecordingListener>(), longest).Wanted();
}

TEST(ImageTaskTest, IsWantedUntilTheCallersDeadlineOrTheServersLimit) {
  const absl::Time past = SteadyNow() - absl::Milliseconds(1), later = SteadyNow() + absl::Hours(1);
  EXPECT_TRUE(Wanted(absl::InfiniteFuture(), absl::InfiniteDuration()).ok());
  EXPECT_TRUE(Wanted(later, absl::Hours(1)).ok());
  for (const absl::Duration longest : {absl::Hours(1), -absl::Milliseconds(1)}) {
    const absl::Status late = Wanted(past, longest);
    EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(GetErrorDetails(late).reason, "DEADLINE_EXCEEDED");
  }
  const absl::Status long_one = Wanted(later, -absl::Milliseconds(1));
  EXPECT_EQ(long_one.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(GetErrorDetails(long_one).reason, "REQUEST_TIME_LIMIT");
}

TEST(ImageTaskTest, TheFirstReasonToEndStays) {
  ImageJob job;
  job.deadline = SteadyNow() - absl::Milliseconds(1);
  ImageTask task(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
  task.Cancel(absl::CancelledError("first"));
  task.Cancel(absl::CancelledError("second"));
  EXPECT_EQ(task.Wanted(), absl::CancelledError("first"));
}

}  // namespace
}  // namespace hotlora
