#include "src/scheduler/request_queue.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

std::shared_ptr<ImageTask> Request(const std::string& id, int32_t priority = 0, const std::string& caller = "") {
  ImageJob job;
  job.request_id = id;
  job.priority = priority;
  job.caller = caller;
  return std::make_shared<ImageTask>(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
}

// Admits and enqueues it, ready.
std::shared_ptr<ImageTask> Add(RequestQueue& queue, const std::string& id, int32_t priority = 0) {
  auto request = Request(id, priority);
  EXPECT_TRUE(queue.Admit(request).ok()) << id;
  queue.Enqueue(request);
  queue.MarkReady(request);
  return request;
}

// Takes what comes first; nullptr where nothing is ready.
std::shared_ptr<ImageTask> TakeFirst(RequestQueue& queue) {
  const auto ready = queue.Ready();
  return !ready.empty() && queue.Take(ready.front()) ? ready.front() : nullptr;
}

TEST(RequestQueueTest, OneRunsAndCapacityWait) {
  RequestQueue queue(2);
  Add(queue, "running");
  ASSERT_NE(TakeFirst(queue), nullptr);
  Add(queue, "first");
  Add(queue, "second");
  EXPECT_EQ(queue.depth(), 2u);
  EXPECT_EQ(queue.Admit(Request("third")).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RequestQueueTest, APlaceIsTakenFromAdmissionOn) {
  RequestQueue queue(0);
  ASSERT_TRUE(queue.Admit(Request("one")).ok());
  EXPECT_EQ(queue.Admit(Request("two")).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RequestQueueTest, AnEndedRequestFreesItsIdAndItsPlaceAtOnce) {
  RequestQueue queue(0);
  const auto request = Add(queue, "one");
  ASSERT_EQ(TakeFirst(queue), request);
  EXPECT_EQ(queue.Admit(Request("one")).status().code(), absl::StatusCode::kAlreadyExists);
  queue.Forget(request, 1.0);
  const auto position = queue.Admit(Request("one"));
  ASSERT_TRUE(position.ok());
  EXPECT_EQ(*position, 0u);
}

TEST(RequestQueueTest, ACallerHoldsNoMoreThanItsShare) {
  RequestQueue queue(8, 2);
  const auto reason = [&](const std::string& id, const std::string& caller) {
    const auto request = Request(id, 0, caller);
    const absl::Status status = queue.Admit(request).status();
    if (status.ok()) {
      queue.Enqueue(request);
      queue.MarkReady(request);
    }
    return status.ok() ? "" : GetErrorDetails(status).reason;
  };
  EXPECT_EQ(reason("a1", "a"), "");
  EXPECT_EQ(reason("a2", "a"), "");
  EXPECT_EQ(reason("a3", "a"), "") << "nothing runs, so the first of them waits for nothing";
  EXPECT_EQ(reason("a4", "a"), "CLIENT_SHARE");
  EXPECT_EQ(reason("b1", "b"), "");
  const auto first = TakeFirst(queue);
  EXPECT_EQ(reason("a4", "a"), "CLIENT_SHARE") << "two wait, one runs";
  ASSERT_TRUE(queue.Remove(queue.Ready().front()));
  EXPECT_EQ(reason("a5", "a"), "");
  queue.Forget(first, 0);
  EXPECT_EQ(reason("a6", "a"), "") << "nothing runs again";
  EXPECT_EQ(reason("a7", "a"), "CLIENT_SHARE");
}

TEST(RequestQueueTest, OnlyReadyRequestsAreTakenByPriorityThenArrival) {
  RequestQueue queue(8);
  const auto unready = Request("unready", 9);
  ASSERT_TRUE(queue.Admit(unready).ok());
  queue.Enqueue(unready);
  const auto first = Add(queue, "first"), second = Add(queue, "second"), urgent = Add(queue, "urgent", 1);
  EXPECT_EQ(TakeFirst(queue), urgent);
  EXPECT_EQ(TakeFirst(queue), first);
  EXPECT_EQ(TakeFirst(queue), second);
  EXPECT_EQ(TakeFirst(queue), nullptr);
  queue.MarkReady(unready);
  EXPECT_EQ(TakeFirst(queue), unready);
}

TEST(RequestQueueTest, RemoveWorksOnceAndOnlyWhileItWaits) {
  RequestQueue queue(8);
  const auto one = Add(queue, "one"), two = Add(queue, "two");
  EXPECT_TRUE(queue.Remove(one));
  EXPECT_FALSE(queue.Remove(one));
  ASSERT_EQ(TakeFirst(queue), two);
  EXPECT_FALSE(queue.Remove(two));
}

TEST(RequestQueueTest, TellsHowLongOthersWillTake) {
  RequestQueue queue(8);
  const auto done = Add(queue, "done");
  TakeFirst(queue);
  queue.Forget(done, 4.0);
  Add(queue, "first");
  Add(queue, "second");
  const auto waiting = queue.Snapshot();
  ASSERT_EQ(waiting.size(), 2u);
  EXPECT_EQ(waiting[0].position, 0u);
  EXPECT_EQ(waiting[1].position, 1u);
  EXPECT_DOUBLE_EQ(waiting[1].estimated_seconds, 4.0);
}

TEST(RequestQueueTest, ClosedAdmitsNobodyAndEmptiesAsRequestsEnd) {
  RequestQueue queue(8);
  const auto one = Add(queue, "one");
  queue.Close();
  EXPECT_EQ(GetErrorDetails(queue.Admit(Request("two")).status()).reason, "DRAINING");
  EXPECT_FALSE(queue.AwaitEmpty(absl::ZeroDuration()));
  EXPECT_TRUE(queue.Remove(one));
  queue.Forget(one, 0.0);
  EXPECT_TRUE(queue.AwaitEmpty(absl::ZeroDuration()));
}

TEST(RequestQueueTest, SeveralMayRunAndEachGivesItsPlaceBack) {
  RequestQueue queue(1);
  const auto one = Add(queue, "one");
  EXPECT_TRUE(queue.Take(one));
  EXPECT_FALSE(queue.Take(one)) << "it waits no more";
  const auto two = Add(queue, "two");
  EXPECT_TRUE(queue.Take(two));
  EXPECT_EQ(*queue.Admit(Request("three")), 2u);
  EXPECT_FALSE(queue.Admit(Request("four")).ok());
  queue.StepsDone(one);
  EXPECT_FALSE(queue.Admit(Request("four")).ok()) << "one still runs";
  queue.StepsDone(two);
  EXPECT_TRUE(queue.Admit(Request("four")).ok());
}

TEST(RequestQueueTest, AwaitReadyTellsWhetherSomethingIs) {
  RequestQueue queue(8);
  EXPECT_FALSE(queue.AwaitReady(absl::ZeroDuration()));
  Add(queue, "one");
  EXPECT_TRUE(queue.AwaitReady(absl::InfiniteDuration()));
}

TEST(RequestQueueTest, StopWakesWhoeverWaits) {
  RequestQueue queue(8);
  queue.Stop();
  EXPECT_FALSE(queue.AwaitReady(absl::InfiniteDuration()));
  EXPECT_TRUE(queue.stopped());
}

}  // namespace
}  // namespace hotlora
