#include "src/base/thread_team.h"

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <thread>
#include <utility>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/tensor/parallel_for.h"
#include "src/tensor/torch_guard.h"

namespace hotlora {
namespace {

constexpr int kThreads = 3;

// Of this process.
int64_t Threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

absl::Status Work() {
  ParallelFor(0, kThreads, 1, [](int64_t, int64_t) {});
  return absl::OkStatus();
}

// How many threads `body` leaves behind while its own, a new one, goes on.
template <typename Body>
int64_t LeftBy(const Body& body) {
  int64_t left = 0;
  std::thread([&] {
    const int threads = at::get_num_threads();
    at::set_num_threads(kThreads);
    const int64_t before = Threads();
    body();
    left = Threads() - before;
    at::set_num_threads(threads);
    ReleaseTeam();
  }).join();
  return left;
}

TEST(ThreadTeamTest, StaysUntilItIsReleased) {
  EXPECT_EQ(LeftBy([] { EXPECT_TRUE(Work().ok()); }), kThreads - 1) << "the negative control";
  EXPECT_EQ(LeftBy([] {
              EXPECT_TRUE(Work().ok());
              ReleaseTeam();
            }),
            0);
  EXPECT_EQ(LeftBy([] {
              const KeptTeam outer;
              { const KeptTeam inner; }
              EXPECT_TRUE(Work().ok());
              ReleaseTeam();
            }),
            kThreads - 1);
}

TEST(ThreadTeamTest, GuardTorchReleasesItUnlessItIsKept) {
  EXPECT_EQ(LeftBy([] { EXPECT_TRUE(GuardTorch("work", Work).ok()); }), 0);
  EXPECT_EQ(LeftBy([] {
              const KeptTeam team;
              EXPECT_TRUE(GuardTorch("work", Work).ok());
            }),
            kThreads - 1);
}

TEST(ThreadTeamTest, AReleaseWithinParallelWorkDoesNoHarm) {
  EXPECT_EQ(LeftBy([] { ParallelFor(0, kThreads, 1, [](int64_t, int64_t) { ReleaseTeam(); }); }), kThreads - 1);
  EXPECT_EQ(LeftBy([] { ReleaseTeam(); }), 0) << "of a thread that has none";
}

}  // namespace
}  // namespace hotlora
