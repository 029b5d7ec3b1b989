#include "server/startup.h"

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/fakes/fake_engine.h"

namespace hotlora {
namespace {

class StartupTest : public ::testing::Test {
 protected:
  StartupTest() {
    for (const char* name : {"a", "broken", "c", "odd"}) {
      AdapterInfo info;
      info.name = name;
      info.bytes = 1 << 20;
      engine_.AddAdapter(info);
    }
  }

  FakeEngine engine_;
  Metrics metrics_;
};

TEST_F(StartupTest, PinsEveryNamedAdapter) {
  ASSERT_TRUE(LoadPinnedAdapters(engine_, {"a", "c"}).ok());
  EXPECT_TRUE(engine_.GetAdapter("a")->pinned);
  EXPECT_FALSE(engine_.GetAdapter("broken")->pinned);
  EXPECT_TRUE(engine_.GetAdapter("c")->pinned);
}

TEST_F(StartupTest, PinThatFailsIsNamed) {
  const absl::Status status = LoadPinnedAdapters(engine_, {"a", "nobody"});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message().find("--pin nobody: "), 0u);
}

TEST_F(StartupTest, CheckListsEveryAdapterThatFails) {
  engine_.FailLoads("broken", MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID", "not finite"));
  engine_.FailLoads("odd", MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_MISMATCH", "no such module"));
  GaugeSources sources;
  sources.device = "cpu";
  sources.device_memory = [] { return DeviceMemory{3 << 20, 3 << 20}; };
  metrics_.SetSources(std::move(sources));
  const CheckReport report = CheckModelAndAdapters(engine_, metrics_, 64 << 20);
  EXPECT_FALSE(report.ok);
  EXPECT_NE(report.text.find("broken: FAILED_PRECONDITION: not finite\n"), std::string::npos) << report.text;
  EXPECT_NE(report.text.find("odd: FAILED_PRECONDITION: no such module\n"), std::string::npos);
  EXPECT_NE(report.text.find("4 found, 2 failed"), std::string::npos);
  EXPECT_NE(report.text.find("3.0 MiB allocated on cpu"), std::string::npos);
  EXPECT_NE(report.text.find("host memory up to 64.0 MiB"), std::string::npos);
  EXPECT_EQ(engine_.GetAdapter("a")->tier, AdapterTier::kDisk);
}

TEST_F(StartupTest, CheckIsFineWithSoundAdapters) {
  EXPECT_TRUE(CheckModelAndAdapters(engine_, metrics_, 64 << 20).ok);
}

}  // namespace
}  // namespace hotlora
