#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bench/adapter_draw.h"
#include "client/bench/statistics.h"
#include "client/bench/swap_bench.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

struct Arm {
  const char* name;
  BenchServer* server;
  bool with_adapters;
  const char* form;  // that the server must have used
  std::vector<double> seconds;
};

// The first step of a request pays for what is made once.
double LaterSteps(const TimedAnswer& answer) {
  const std::vector<double>& steps = answer.step_seconds;
  return Median(std::vector<double>(steps.begin() + (steps.size() > 1 ? 1 : 0), steps.end()));
}

absl::Status TakeBlock(const BenchSettings& settings, const AdapterChoice& adapters, const std::vector<size_t>& order,
                       std::vector<Arm>& arms) {
  for (const size_t which : order) {
    Arm& arm = arms[which];
    ABSL_ASSIGN_OR_RETURN(const TimedAnswer answer,
                          arm.server->Generate(MakeRequest(settings, arm.with_adapters ? adapters : AdapterChoice())));
    const std::string& form = answer.summary.swap_cost().form();
    if (arm.with_adapters && form != arm.form) {
      return absl::FailedPreconditionError(
          absl::StrCat("the adapter was used in the form \"", form, "\" where ", arm.form,
                       " was wanted: start the servers with --apply merged and --apply side"));
    }
    if (answer.step_seconds.empty()) {
      return absl::FailedPreconditionError("the server told no step's time");
    }
    arm.seconds.push_back(LaterSteps(answer));
  }
  return absl::OkStatus();
}

std::vector<double> Ratios(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> ratios(above.size());
  std::transform(above.begin(), above.end(), below.begin(), ratios.begin(), [](double a, double b) { return a / b; });
  return ratios;
}

}  // namespace

absl::StatusOr<BenchReport> RunStepBench(BenchServer& merged, BenchServer* side, const BenchSettings& settings) {
  ABSL_ASSIGN_OR_RETURN(const std::vector<std::string> all, merged.AdapterNames());
  const std::vector<std::string> names = Matching(all, settings.match);
  if (names.empty()) {
    return absl::InvalidArgumentError("no adapter matches");
  }
  std::vector<Arm> arms = {{"none", &merged, false, "", {}}, {"merged", &merged, true, "merged", {}}};
  if (side != nullptr) {
    arms.push_back({"side", side, true, "side", {}});
  }
  AdapterDraw draw(names, settings.weights, settings.seed);
  std::mt19937_64 random(settings.seed);
  std::vector<size_t> order;
  for (size_t i = 0; i < arms.size(); ++i) {
    order.push_back(i);
  }
  BenchReport report;
  for (uint32_t block = 0; block < settings.blocks + 1; ++block) {
    std::shuffle(order.begin(), order.end(), random);
    ABSL_RETURN_IF_ERROR(TakeBlock(settings, draw.Choose(1), order, arms));
    if (block == 0) {  // warms up
      for (Arm& arm : arms) {
        arm.seconds.clear();
      }
    }
  }
  report.csv = side != nullptr ? "none,merged,side\n" : "none,merged\n";
  for (uint32_t block = 0; block < settings.blocks; ++block) {
    for (size_t i = 0; i < arms.size(); ++i) {
      absl::StrAppend(&report.csv, i == 0 ? "" : ",", arms[i].seconds[block]);
    }
    absl::StrAppend(&report.csv, "\n");
  }
  for (const Arm& arm : arms) {
    AddTimes(arm.name, "step", arm.seconds, report);
  }
  for (size_t i = 1; i < arms.size(); ++i) {
    AddRatio(arms[i].name, "step / step without adapters", Ratios(arms[i].seconds, arms[0].seconds), report);
  }
  return report;
}

}  // namespace hotlora
