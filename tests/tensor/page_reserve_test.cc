#include "src/tensor/page_reserve.h"

#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

class PageReserveTest : public testing::Test {
 protected:
  static constexpr int64_t kBytes = 512 * kMiB;

  void SetUp() override {
    begin_ = static_cast<char*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ASSERT_NE(begin_, MAP_FAILED);
  }
  void TearDown() override { munmap(begin_, kBytes); }

  int64_t Resident() const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    std::vector<unsigned char> pages(static_cast<size_t>(kBytes / page));
    EXPECT_EQ(mincore(begin_, kBytes, pages.data()), 0);
    int64_t resident = 0;
    for (const unsigned char in : pages) {
      resident += in & 1;
    }
    return resident * page;
  }

  void AwaitResident(int64_t bytes) const {
    for (int i = 0; i < 6000 && Resident() < bytes; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(Resident(), bytes);
  }

  char* begin_ = nullptr;
};

TEST_F(PageReserveTest, RunsAheadOfWhatIsUsedAndNoFurther) {
  PageReserve reserve({{begin_, kBytes}});
  AwaitResident(PageReserve::kLeastAhead);
  reserve.Use(0, 0, 10 * kMiB);
  AwaitResident(10 * kMiB + PageReserve::kLeastAhead);
  reserve.Use(0, 2 * kMiB, kMiB);  // below what is in use already
  reserve.Use(0, 20 * kMiB, 100 * kMiB);
  AwaitResident(320 * kMiB);  // two more like that
  reserve.Use(0, 400 * kMiB, 100 * kMiB);
  AwaitResident(kBytes);
}

TEST_F(PageReserveTest, WhatIsThereStays) {
  begin_[0] = 1;
  begin_[5 * kMiB + 17] = 2;
  PageReserve reserve({{begin_, 40 * kMiB}});
  AwaitResident(40 * kMiB);
  EXPECT_EQ(begin_[0], 1);
  EXPECT_EQ(begin_[5 * kMiB + 17], 2);
}

TEST_F(PageReserveTest, EndsWithoutWaitingForTheRest) {
  PageReserve reserve({{begin_, kBytes}, {begin_, 0}});
  reserve.Use(0, 0, kBytes);
  reserve.Use(1, 0, 0);
}

}  // namespace
}  // namespace hotlora
