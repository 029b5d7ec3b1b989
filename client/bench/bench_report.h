#ifndef HOTLORA_CLIENT_BENCH_BENCH_REPORT_H_
#define HOTLORA_CLIENT_BENCH_BENCH_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "client/bench/soak_record.h"

namespace hotlora {

// What a benchmark says in the end, to a human and to a script.
struct BenchReport {
  std::string text;  // lines, the last one ended
  nlohmann::json json;
  std::string csv;
  bool passed = true;
};

// Adds a line of the median and the 95th percentile of these values, in milliseconds, each with its 95 % interval.
// Nothing if there are no values.
void AddTimes(absl::string_view group, absl::string_view what, const std::vector<double>& seconds, BenchReport& report);

// Likewise of the median of ratios.
void AddRatio(absl::string_view group, absl::string_view what, const std::vector<double>& ratios, BenchReport& report);

// A line for each gate, and whether all were passed.
void AddGates(const std::vector<Gate>& gates, BenchReport& report);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_BENCH_REPORT_H_
