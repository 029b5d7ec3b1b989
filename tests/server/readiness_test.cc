#include "server/readiness.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/metrics/metrics.h"

namespace hotlora {
namespace {

class ReadinessTest : public ::testing::Test {
 protected:
  bool Shows(const std::string& line) { return metrics_.Render().find("\n" + line + "\n") != std::string::npos; }

  static StuckWork Stuck(WorkKind kind) {
    StuckWork stuck;
    stuck.work.kind = kind;
    return stuck;
  }

  Metrics metrics_;
  std::vector<bool> changes_;
  Readiness readiness_{&metrics_.calls(), [this](bool ready) { changes_.push_back(ready); }};
};

TEST_F(ReadinessTest, StartsThenIsReadyUnlessThereIsAReason) {
  EXPECT_EQ(readiness_.WhyNot(), "starting");
  EXPECT_TRUE(Shows("hotlora_not_ready{reason=\"starting\"} 1"));
  readiness_.Set(NotReadyReason::kStarting, false);
  EXPECT_TRUE(readiness_.ready());
  EXPECT_EQ(readiness_.WhyNot(), "");
  EXPECT_TRUE(Shows("hotlora_not_ready{reason=\"starting\"} 0"));
  EXPECT_TRUE(Shows("hotlora_ready 1"));
  readiness_.Set(NotReadyReason::kListenerDeaf, true, "for 5s");
  readiness_.Set(NotReadyReason::kListenerDeaf, true, "for 6s");
  EXPECT_FALSE(readiness_.ready());
  EXPECT_TRUE(Shows("hotlora_not_ready{reason=\"listener_deaf\"} 1"));
  EXPECT_TRUE(Shows("hotlora_ready 0"));
  EXPECT_TRUE(Shows("hotlora_state_transitions_total{to=\"not_ready\"} 1"));
  readiness_.Set(NotReadyReason::kListenerDeaf, false);
  EXPECT_EQ(changes_, (std::vector<bool>{true, false, true}));
}

TEST_F(ReadinessTest, IsReadyOnlyOnceNoReasonIsLeft) {
  readiness_.Set(NotReadyReason::kStarting, false);
  readiness_.Set(NotReadyReason::kBaseDamaged, true);
  readiness_.Set(NotReadyReason::kNoDescriptors, true);
  EXPECT_EQ(readiness_.WhyNot(), "base_damaged, no_descriptors");
  readiness_.Set(NotReadyReason::kBaseDamaged, false);
  EXPECT_FALSE(readiness_.ready());
  readiness_.Set(NotReadyReason::kDraining, true);
  readiness_.Set(NotReadyReason::kNoDescriptors, false);
  EXPECT_EQ(readiness_.WhyNot(), "draining");
  EXPECT_TRUE(Shows("hotlora_draining 1"));
  EXPECT_EQ(changes_, (std::vector<bool>{true, false}));
}

TEST_F(ReadinessTest, EachKindOfStuckWorkIsAReason) {
  readiness_.Set(NotReadyReason::kStarting, false);
  const std::pair<WorkKind, const char*> kinds[] = {{WorkKind::kApply, "stuck_apply"},
                                                    {WorkKind::kEncode, "stuck_encode"},
                                                    {WorkKind::kStep, "stuck_step"},
                                                    {WorkKind::kDecode, "stuck_decode"},
                                                    {WorkKind::kCheck, "stuck_check"}};
  for (const auto& [kind, reason] : kinds) {
    readiness_.SetStuckWork({Stuck(kind)});
    EXPECT_EQ(readiness_.WhyNot(), reason);
  }
  readiness_.SetStuckWork({Stuck(WorkKind::kStep), Stuck(WorkKind::kDecode)});
  EXPECT_EQ(readiness_.WhyNot(), "stuck_step, stuck_decode");
  readiness_.SetStuckWork({});
  EXPECT_TRUE(readiness_.ready());
}

TEST_F(ReadinessTest, AFailedDeviceOutweighsTheOtherStates) {
  readiness_.Set(NotReadyReason::kDeviceFailed, true);
  readiness_.Set(NotReadyReason::kDraining, true);
  EXPECT_TRUE(Shows("hotlora_state_transitions_total{to=\"failed\"} 1"));
  EXPECT_TRUE(Shows("hotlora_state_transitions_total{to=\"draining\"} 0"));
}

}  // namespace
}  // namespace hotlora
