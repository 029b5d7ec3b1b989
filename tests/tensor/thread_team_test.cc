#include "src/base/thread_team.h"

#include <sys/resource.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/tensor/parallel_for.h"
#include "src/tensor/torch_guard.h"

namespace hotlora {
namespace {

constexpr int kThreads = 3;

// How many threads this process has.
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

TEST(ThreadTeamTest, StaysIfAddressesAreLimited) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(LeftBy([&] {
              EXPECT_TRUE(Work().ok());
              rlimit limit = before;
              limit.rlim_cur = uint64_t{1} << 46;
              ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
              ReleaseTeam();
              EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
            }),
            kThreads - 1);
}

TEST(ThreadDefaultsTest, AQuotaBelowTheCpusLimitsThreadsAndTheirSpinning) {
  using Settings = std::vector<std::pair<std::string, std::string>>;
  const std::pair<std::string, std::string> passive("OMP_WAIT_POLICY", "PASSIVE"), spin("GOMP_SPINCOUNT", "100000");
  EXPECT_EQ(ThreadDefaults({8, 4, std::nullopt}, false), (Settings{passive, spin}));
  EXPECT_EQ(ThreadDefaults({8, 4, 8}, false), (Settings{passive, spin}));
  EXPECT_EQ(ThreadDefaults({8, 4, 6}, false), (Settings{passive}));
  EXPECT_EQ(ThreadDefaults({8, 4, 2}, false), (Settings{{"OMP_NUM_THREADS", "2"}, passive}));
  EXPECT_EQ(ThreadDefaults({8, 4, 2}, true), (Settings{{"OMP_NUM_THREADS", "2"}}));
  EXPECT_EQ(ThreadDefaults({8, 4, std::nullopt}, true), Settings());
}

TEST(ThreadDefaultsTest, ATeamIsAsLargeAsLibTorchs) {
  const Cpus cpus = CpusOfThisProcess();
  EXPECT_GE(cpus.team, 1);
  EXPECT_LE(cpus.team, cpus.allowed);
  if (std::getenv("OMP_NUM_THREADS") == nullptr && std::getenv("MKL_NUM_THREADS") == nullptr) {
    EXPECT_EQ(cpus.team, at::get_num_threads());
  }
}

}  // namespace
}  // namespace hotlora
