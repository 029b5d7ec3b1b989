#include "src/tensor/available_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A machine of files.
class AvailableMemoryTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(root_); }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  // A group of cgroup version 2.
  void WriteGroup(const std::string& path, const std::string& limit, int64_t usage, int64_t inactive) const {
    const std::string folder = "/sys/fs/cgroup" + path;
    Write(folder + "/memory.max", limit + "\n");
    Write(folder + "/memory.current", std::to_string(usage) + "\n");
    Write(folder + "/memory.stat",
          "anon 5\nfile 7\nactive_file 9\ninactive_file " + std::to_string(inactive) + "\nslab 3\n");
  }
  int64_t Available() const { return AvailableHostMemory(root_); }

  const std::string root_ = testing::TempDir() + "/available_memory." + std::to_string(getpid());
};

TEST_F(AvailableMemoryTest, WithoutAnyLimitIsUnlimited) { EXPECT_EQ(Available(), std::numeric_limits<int64_t>::max()); }

TEST_F(AvailableMemoryTest, IsWhatTheMachineHas) {
  Write("/proc/meminfo", "MemTotal:       8000 kB\nMemFree:  1 kB\nMemAvailable:    5000 kB\n");
  EXPECT_EQ(Available(), 5000 * 1024);
}

TEST_F(AvailableMemoryTest, StrictOvercommitLimitsWhatIsPromised) {
  const std::string text = "MemAvailable: 5000 kB\nCommitLimit: 4000 kB\nCommitted_AS: 3000 kB\n";
  Write("/proc/meminfo", text);
  Write("/proc/sys/vm/overcommit_memory", "0\n");
  EXPECT_EQ(Available(), 5000 * 1024);
  Write("/proc/sys/vm/overcommit_memory", "2\n");
  EXPECT_EQ(Available(), 1000 * 1024);
  Write("/proc/meminfo", "CommitLimit: 4000 kB\nCommitted_AS: 4100 kB\n");
  EXPECT_EQ(Available(), 0);
}

TEST_F(AvailableMemoryTest, IsTheLeastOfAllGroupsUpToTheRoot) {
  Write("/proc/self/cgroup", "0::/pod/server\n");
  WriteGroup("/pod/server", "1000", 400, 0);
  EXPECT_EQ(Available(), 600);
  WriteGroup("/pod", "5000", 4800, 50);
  EXPECT_EQ(Available(), 250);
  WriteGroup("/pod", "max", 4800, 50);
  WriteGroup("", "700", 600, 0);
  EXPECT_EQ(Available(), 100);
}

TEST_F(AvailableMemoryTest, InactivePageCacheIsFree) {
  Write("/proc/self/cgroup", "0::/\n");
  WriteGroup("", "1000", 900, 350);
  EXPECT_EQ(Available(), 450);
}

TEST_F(AvailableMemoryTest, FindsTheGroupThatAContainerSeesAsTheRoot) {
  Write("/proc/self/cgroup", "0::/system.slice/docker-1.scope\n");
  WriteGroup("", "1000", 200, 0);
  EXPECT_EQ(Available(), 800);
}

TEST_F(AvailableMemoryTest, KnowsVersion1) {
  Write("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/pod\n0::/\n");
  Write("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "1000\n");
  Write("/sys/fs/cgroup/memory/pod/memory.usage_in_bytes", "900\n");
  Write("/sys/fs/cgroup/memory/pod/memory.stat", "inactive_file 1\ntotal_inactive_file 30\n");
  EXPECT_EQ(Available(), 130);
}

TEST_F(AvailableMemoryTest, DoesNotTrustFilesThatSayNothing) {
  Write("/proc/self/cgroup", "nonsense\n0::\n0::relative\n");
  Write("/proc/meminfo", "MemAvailable: many kB\n");
  WriteGroup("", "", 1, 1);
  EXPECT_EQ(Available(), std::numeric_limits<int64_t>::max());
}

TEST(AvailableHostMemoryTest, IsLimitedByTheAddressSpace) {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const int64_t used = pages * sysconf(_SC_PAGESIZE);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit limit{static_cast<rlim_t>(used + 64 * kMiB), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  const int64_t available = AvailableHostMemory();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_LE(available, 65 * kMiB);
  EXPECT_GT(available, 48 * kMiB);
  EXPECT_GT(AvailableHostMemory(), available);
}

TEST(AvailableHostMemoryTest, TheCpusIsTheHosts) { EXPECT_GT(AvailableMemory(c10::kCPU), 0); }

}  // namespace
}  // namespace hotlora
