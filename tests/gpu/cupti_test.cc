#include "tests/gpu/cupti.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

// On the stand-in of tests/fakes/fake_cupti.cc.
TEST(RecordActivitiesTest, TellsKernelsCopiesAndFills) {
  for (int round = 0; round < 2; ++round) {  // a second recording begins with nothing
    bool ran = false;
    const auto activities = RecordActivities([&] { ran = true; });
    ASSERT_TRUE(activities.ok()) << activities.status();
    EXPECT_TRUE(ran);
    ASSERT_EQ(activities->size(), 3);
    EXPECT_EQ((*activities)[0].name, "void cutlass::Kernel2<sm90_xmma_gemm_bf16>");
    EXPECT_EQ((*activities)[0].begin, 1000);
    EXPECT_EQ((*activities)[0].end, 4000);
    EXPECT_EQ((*activities)[1].name, "copy");
    EXPECT_EQ((*activities)[1].end - (*activities)[1].begin, 500);
    EXPECT_EQ((*activities)[2].name, "copy of a value");
  }
}

TEST(RecordActivitiesTest, SaysWhyNothingIsRecorded) {
  setenv("HOTLORA_FAKE_CUPTI_ERROR", "35", 1);
  bool ran = false;
  const auto activities = RecordActivities([&] { ran = true; });
  unsetenv("HOTLORA_FAKE_CUPTI_ERROR");
  EXPECT_FALSE(ran);
  EXPECT_EQ(activities.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(activities.status().message()), HasSubstr("its error 35"));
}

}  // namespace
}  // namespace hotlora
