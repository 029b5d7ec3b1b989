// The tests of the networks and the pipeline against the reference's numbers and pictures (tests/sdxl, tests/pipeline),
// all in this process. In float32 as the tests want it, which is exact, and in the half types as they are served.

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <gtest/gtest.h>

#include "tests/golden_path.h"
#include "tests/gpu/stages.h"
#include "tests/margin.h"

namespace hotlora {
namespace {

// Makes each case a check: the comparison that came nearest to its tolerance, and what failed.
class CaseListener : public testing::EmptyTestEventListener {
 public:
  explicit CaseListener(Probe& probe) : probe_(probe) {
    TheMarginListener() = [this](double worst, double tolerance, const std::string& what) {
      NoteMargin(worst, tolerance, what);
    };
  }
  ~CaseListener() override { TheMarginListener() = nullptr; }

 private:
  struct Margin {
    double worst, tolerance;
    std::string what;
  };

  void NoteMargin(double worst, double tolerance, const std::string& what) {
    // A NaN is further off than anything.
    const auto share = [](double error, double allowed) { return error == 0 ? 0 : error / allowed; };
    if (!nearest_.has_value() || !(share(worst, tolerance) <= share(nearest_->worst, nearest_->tolerance))) {
      nearest_ = {worst, tolerance, what};
    }
  }

  void OnTestStart(const testing::TestInfo& test) override {
    nearest_.reset();
    probe_.SetDoing(absl::StrCat("it ran ", NameOf(test)));
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    std::string text = nearest_.has_value() ? nearest_->what : "";
    for (int i = 0; i < test.result()->total_part_count(); ++i) {
      const testing::TestPartResult& part = test.result()->GetTestPartResult(i);
      if (part.skipped()) {
        probe_.LeaveOut(NameOf(test), part.message());
        return;
      }
      if (part.failed()) {
        text = part.message();
        break;
      }
    }
    Probe::Check check = {NameOf(test), {}, {}, test.result()->Passed(), text};
    if (nearest_.has_value()) {
      check.worst = nearest_->worst;
      check.tolerance = nearest_->tolerance;
    }
    probe_.AddCheck(check);
  }

  static std::string NameOf(const testing::TestInfo& test) {
    // Cases with parameters have slashes.
    return absl::StrReplaceAll(absl::StrCat(test.test_suite_name(), ".", test.name()), {{"/", "."}});
  }

  Probe& probe_;
  std::optional<Margin> nearest_;
};

}  // namespace

absl::Status RunGolden(Probe& probe) {
  if (!std::ifstream(GoldenPath("unet/manifest.json"))) {
    return absl::UnavailableError(
        absl::StrCat("no golden data at ", GoldenPath(""), ": set HOTLORA_TEST_SOURCE to a checkout of hotlora"));
  }
  setenv("HOTLORA_TEST_DEVICE", probe.device_name().c_str(), /*overwrite=*/1);
  // One of each network and a picture, in float32 and in a half type, are enough for a rehearsal.
  testing::GTEST_FLAG(filter) =
      probe.tiny() ? "*MatchesDiffusers:*MatchesTransformers:Unet*HalfTypes*:EncodeGolden*:AppliedAdaptersTest.Weights*"
                   : "*-*SingleFile*";
  testing::GTEST_FLAG(brief) = true;
  int count = 1;
  char name[] = "gpu_probe";
  char* arguments[] = {name, nullptr};
  testing::InitGoogleTest(&count, arguments);
  testing::UnitTest::GetInstance()->listeners().Append(new CaseListener(probe));
  const bool failed = RUN_ALL_TESTS() != 0;
  const int cases = testing::UnitTest::GetInstance()->test_to_run_count();
  probe.AddNote("cases", cases);
  // Beside the checks, what fails outside of cases.
  probe.AddCheck("golden.all_cases", !failed);
  return cases > 0 ? absl::OkStatus() : absl::InternalError("the filter matches no case");
}

}  // namespace hotlora
