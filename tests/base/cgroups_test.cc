#include "src/base/cgroups.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

class CpusOfQuotaTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::optional<int> Cpus() const { return CpusOfQuota(root_); }

  const std::string root_ = testing::TempDir() + "/cgroups." + std::to_string(getpid());
};

TEST_F(CpusOfQuotaTest, WithoutAQuotaIsNone) {
  EXPECT_EQ(Cpus(), std::nullopt) << "no files at all";
  Write("/proc/self/cgroup", "0::/pod\n");
  EXPECT_EQ(Cpus(), std::nullopt) << "no group's files";
  for (const char* text : {"max 100000\n", "nonsense", "200000\n", "200000 0\n", ""}) {
    Write("/sys/fs/cgroup/pod/cpu.max", text);
    EXPECT_EQ(Cpus(), std::nullopt) << text;
  }
}

TEST_F(CpusOfQuotaTest, IsRoundedUp) {
  Write("/proc/self/cgroup", "0::/\n");
  for (const auto& [text, cpus] :
       {std::pair("200000 100000\n", 2), {"200001 100000\n", 3}, {"50000 100000\n", 1}, {"400000 50000\n", 8}}) {
    Write("/sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(Cpus(), cpus) << text;
  }
}

TEST_F(CpusOfQuotaTest, IsTheLeastOfAllGroupsUpToTheRoot) {
  Write("/proc/self/cgroup", "0::/pod/server\n");
  Write("/sys/fs/cgroup/pod/server/cpu.max", "800000 100000\n");
  Write("/sys/fs/cgroup/pod/cpu.max", "300000 100000\n");
  Write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(Cpus(), 3);
}

TEST_F(CpusOfQuotaTest, OfTheFirstVersion) {
  Write("/proc/self/cgroup", "9:memory:/other\n4:cpu,cpuacct:/pod\n0::/\n");
  Write("/sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/pod/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cpus(), std::nullopt);
  Write("/sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(Cpus(), 4);
}

}  // namespace
}  // namespace hotlora
