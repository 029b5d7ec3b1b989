#include "client/bench/bench_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/bench/statistics.h"

namespace hotlora {
namespace {

std::vector<double> Milliseconds(std::vector<double> seconds) {
  for (double& value : seconds) {
    value *= 1e3;
  }
  return seconds;
}

}  // namespace

void AddTimes(absl::string_view group, absl::string_view what, const std::vector<double>& seconds,
              BenchReport& report) {
  if (seconds.empty()) {
    return;
  }
  const std::vector<double> ms = Milliseconds(seconds);
  const auto p95 = [](const std::vector<double>& values) { return Quantile(values, 0.95); };
  const Interval middle = BootstrapInterval(ms, Median);
  const Interval high = BootstrapInterval(ms, p95);
  absl::StrAppendFormat(&report.text, "%-8s %-9s n %5d   p50 %9.3f ms [%.3f, %.3f]   p95 %9.3f ms [%.3f, %.3f]\n",
                        group, what, ms.size(), Median(ms), middle.low, middle.high, p95(ms), high.low, high.high);
  report.json[std::string(group)][std::string(what)] = {{"n", ms.size()},
                                                        {"p50_ms", Median(ms)},
                                                        {"p50_interval", {middle.low, middle.high}},
                                                        {"p95_ms", p95(ms)},
                                                        {"p95_interval", {high.low, high.high}}};
}

void AddRatio(absl::string_view group, absl::string_view what, const std::vector<double>& ratios, BenchReport& report) {
  if (ratios.empty()) {
    return;
  }
  const Interval interval = BootstrapInterval(ratios, Median);
  absl::StrAppendFormat(&report.text, "%-8s %s: %.4f [%.4f, %.4f], n %d\n", group, what, Median(ratios), interval.low,
                        interval.high, ratios.size());
  report.json[std::string(group)][std::string(what)] = {
      {"n", ratios.size()}, {"ratio", Median(ratios)}, {"interval", {interval.low, interval.high}}};
}

void AddGates(const std::vector<Gate>& gates, BenchReport& report) {
  for (const Gate& gate : gates) {
    absl::StrAppendFormat(&report.text, "%-6s %-16s %s\n", gate.passed ? "ok" : "FAILED", gate.name, gate.words);
    report.json["gates"].push_back({{"name", gate.name}, {"passed", gate.passed}, {"words", gate.words}});
    report.passed = report.passed && gate.passed;
  }
  absl::StrAppend(&report.text, report.passed ? "passed\n" : "FAILED\n");
  report.json["passed"] = report.passed;
}

}  // namespace hotlora
