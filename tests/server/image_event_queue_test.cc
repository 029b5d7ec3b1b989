#include "server/image_event_queue.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

std::vector<v1::GenerateImagesEvent> TakeAll(ImageEventQueue* queue) {
  std::vector<v1::GenerateImagesEvent> events;
  v1::GenerateImagesEvent event;
  while (queue->Next(event)) {
    events.push_back(event);
  }
  return events;
}

FinishedImage ImageOf(size_t bytes) {
  FinishedImage image;
  image.index = 3;
  image.data = std::string(bytes, 'x');
  return image;
}

TEST(ImageEventQueueTest, DropsOldestUpdatesOnly) {
  ImageEventQueue queue;
  queue.PushAccepted({"id", 7, 0});
  queue.PushWaiting({1, WaitStage::kQueue, 0});
  for (uint32_t step = 1; step <= 30; ++step) {
    queue.PushProgress({0, step, 30});
    if (step == 20) {
      queue.PushImage(ImageOf(5));
    }
  }
  queue.PushSummary({});
  const auto events = TakeAll(&queue);
  ASSERT_EQ(events.size(), ImageEventQueue::kMaxUpdates + 3);
  EXPECT_EQ(events[0].accepted().request_id(), "id");
  EXPECT_EQ(events[1].image().data(), "xxxxx");
  for (size_t i = 0; i < ImageEventQueue::kMaxUpdates; ++i) {
    EXPECT_EQ(events[2 + i].progress().step(), 30 - ImageEventQueue::kMaxUpdates + 1 + i);
  }
  EXPECT_TRUE(events.back().has_summary());
  EXPECT_TRUE(queue.empty());
}

TEST(ImageEventQueueTest, MakesRoomAgainWhenUpdatesAreTaken) {
  ImageEventQueue queue;
  for (int round = 0; round < 3; ++round) {
    for (uint32_t step = 1; step <= ImageEventQueue::kMaxUpdates; ++step) {
      queue.PushProgress({0, step, 30});
    }
    EXPECT_EQ(TakeAll(&queue).size(), ImageEventQueue::kMaxUpdates);
  }
}

TEST(ImageEventQueueTest, SplitsOnlyAboveTwoMebibytes) {
  struct Case {
    size_t bytes;
    size_t messages;
  };
  for (const Case& c : {Case{0, 1}, Case{ImageEventQueue::kMaxWholeBytes, 1},
                        Case{ImageEventQueue::kMaxWholeBytes + 1, 3}, Case{4 * ImageEventQueue::kPartBytes, 4}}) {
    ImageEventQueue queue;
    queue.PushImage(ImageOf(c.bytes));
    const auto events = TakeAll(&queue);
    ASSERT_EQ(events.size(), c.messages) << c.bytes;
    size_t total = 0;
    for (const auto& event : events) {
      EXPECT_EQ(event.image().index(), 3u);
      EXPECT_EQ(event.image().total_bytes(), c.bytes);
      total += event.image().data().size();
    }
    EXPECT_EQ(total, c.bytes);
  }
}

}  // namespace
}  // namespace hotlora
