#include "server/startup.h"

#include <regex>
#include <string>

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
};

TEST_F(StartupTest, PinsEveryNamedAdapter) {
  ASSERT_TRUE(LoadPinned(engine_.adapters(), "--pin", {"a", "c"}).ok());
  EXPECT_TRUE(engine_.adapters().Get("a")->pinned);
  EXPECT_FALSE(engine_.adapters().Get("broken")->pinned);
  EXPECT_TRUE(engine_.adapters().Get("c")->pinned);
}

TEST_F(StartupTest, PinThatFailsIsNamed) {
  const absl::Status status = LoadPinned(engine_.adapters(), "--pin", {"a", "nobody"});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message().find("--pin nobody: "), 0u);
}

TEST_F(StartupTest, CheckListsEveryAdapterThatFails) {
  engine_.FailLoads("broken", MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID", "not finite"));
  engine_.FailLoads("odd", MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_MISMATCH", "no such module"));
  EngineStatistics statistics;
  statistics.memory = {{"unet weights", "cpu", 2 << 20}};
  statistics.device_memory.allocated = 3 << 20;
  statistics.adapters.tiers.push_back({AdapterTier::kHost, 64 << 20});
  engine_.SetStatistics(statistics);
  const CheckReport report = CheckModelAndAdapters(engine_);
  EXPECT_FALSE(report.ok);
  EXPECT_NE(report.text.find("broken: FAILED_PRECONDITION: not finite\n"), std::string::npos) << report.text;
  EXPECT_NE(report.text.find("odd: FAILED_PRECONDITION: no such module\n"), std::string::npos);
  EXPECT_NE(report.text.find("4 found, 2 failed"), std::string::npos);
  EXPECT_TRUE(std::regex_search(report.text, std::regex("unet weights +2\\.0 MiB  cpu\n")));
  EXPECT_TRUE(std::regex_search(report.text, std::regex("adapters in the host tier +64\\.0 MiB  host\n")));
  EXPECT_TRUE(std::regex_search(report.text, std::regex("allocated before the first request +3\\.0 MiB  cpu\n")));
  EXPECT_EQ(engine_.adapters().Get("a")->tier, AdapterTier::kDisk);
}

TEST_F(StartupTest, CheckHasALineForEachNameWithItsState) {
  AdapterInfo info;
  info.name = "a\\x0ab";  // as ListAdapters shows what is no name
  info.state = AdapterState::kFailed;
  info.error = "its name has the control character U+000A";
  engine_.AddAdapter(info);
  const CheckReport report = CheckModelAndAdapters(engine_);
  EXPECT_FALSE(report.ok);
  EXPECT_NE(report.text.find("5 found, 1 failed\n  ok      a\n"), std::string::npos) << report.text;
  EXPECT_NE(report.text.find("  FAILED  a\\x0ab: its name has the control character U+000A\n"), std::string::npos);
  EXPECT_NE(report.text.find("  ok      odd\n"), std::string::npos);
}

TEST_F(StartupTest, CheckIsFineWithSoundAdapters) { EXPECT_TRUE(CheckModelAndAdapters(engine_).ok); }

}  // namespace
}  // namespace hotlora
