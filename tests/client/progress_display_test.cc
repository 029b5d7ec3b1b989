#include "client/progress_display.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

v1::GenerateImagesEvent Step(uint32_t step, uint32_t total) {
  v1::GenerateImagesEvent event;
  event.mutable_progress()->set_step(step);
  event.mutable_progress()->set_total_steps(total);
  event.mutable_progress()->set_step_seconds(0.25);
  return event;
}

// What a display of `style` prints for 50 steps.
std::string Printed(ProgressDisplay::Style style) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* const stream = open_memstream(&text, &size);
  {
    ProgressDisplay display(style, stream);
    for (uint32_t step = 1; step <= 50; ++step) {
      display.Show(Step(step, 50));
    }
  }
  std::fclose(stream);
  const std::string printed(text, size);
  free(text);
  return printed;
}

TEST(ProgressDisplayTest, BarFillsWithTheSteps) {
  EXPECT_EQ(ProgressDisplay::Bar(0, 4), "[                        ]");
  EXPECT_EQ(ProgressDisplay::Bar(2, 4), "[############            ]");
  EXPECT_EQ(ProgressDisplay::Bar(4, 4), "[########################]");
  EXPECT_EQ(ProgressDisplay::Bar(9, 4), "[########################]");
  EXPECT_EQ(ProgressDisplay::Bar(1, 0), "[                        ]");
}

TEST(ProgressDisplayTest, DescribesWhatIsGoingOn) {
  EXPECT_EQ(ProgressDisplay::Describe(Step(3, 30)), "image 0  step 3/30  0.25 s/step");
  v1::GenerateImagesEvent waiting;
  waiting.mutable_waiting()->set_stage("queue");
  waiting.mutable_waiting()->set_queue_position(2);
  EXPECT_EQ(ProgressDisplay::Describe(waiting), "waiting, 2 before this one");
  waiting.mutable_waiting()->set_stage("adapter");
  waiting.mutable_waiting()->set_estimated_seconds(4);
  EXPECT_EQ(ProgressDisplay::Describe(waiting), "loading adapters, about 4 s");
}

TEST(ProgressDisplayTest, LogsGetALineForEachTenthAndTerminalsOneLine) {
  const std::string lines = Printed(ProgressDisplay::Style::kLines);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 11);  // the first step and ten tenths
  const std::string bar = Printed(ProgressDisplay::Style::kBar);
  EXPECT_EQ(std::count(bar.begin(), bar.end(), '\n'), 1);
  EXPECT_EQ(std::count(bar.begin(), bar.end(), '\r'), 50);
  EXPECT_EQ(Printed(ProgressDisplay::Style::kQuiet), "");
}

TEST(ProgressDisplayTest, FollowsOneImageOfABatchUntilItIsDone) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* const stream = open_memstream(&text, &size);
  ProgressDisplay display(ProgressDisplay::Style::kBar, stream);
  for (uint32_t step = 1; step <= 2; ++step) {
    for (uint32_t image = 0; image < 2; ++image) {
      v1::GenerateImagesEvent event = Step(step, 2);
      event.mutable_progress()->set_image_index(image);
      display.Show(event);
    }
  }
  std::fclose(stream);
  const std::string printed(text, size);
  free(text);
  EXPECT_NE(printed.find("image 0  step 1/2"), std::string::npos);
  EXPECT_EQ(printed.find("image 1  step 1/2"), std::string::npos);
  EXPECT_NE(printed.find("image 0  step 2/2"), std::string::npos);
}

}  // namespace
}  // namespace hotlora
