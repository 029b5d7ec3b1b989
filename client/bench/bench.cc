#include "client/bench/bench.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bench/bench_server.h"
#include "client/bench/soak.h"
#include "client/bench/soak_record.h"
#include "client/bench/swap_bench.h"
#include "client/output_files.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// Another server, reached the same way. Null if no place is given.
absl::StatusOr<std::unique_ptr<ImageClient>> Other(ConnectionOptions connection, const std::string& place) {
  if (place.empty()) {
    return std::unique_ptr<ImageClient>();
  }
  connection.server = place;
  return ImageClient::Create(connection);
}

absl::StatusOr<BenchReport> Soak(BenchServer& server, BenchServer* twin, const BenchSettings& settings) {
  ABSL_ASSIGN_OR_RETURN(const SoakRecord record, RunSoak(server, twin, settings));
  BenchReport report;
  std::vector<double> swaps, requests, steps;
  for (const SoakSwap& swap : record.swaps) {
    requests.push_back(swap.seconds);
    if (swap.changed) {
      swaps.push_back(swap.swap_seconds);
    }
    steps.push_back(swap.step_seconds);
  }
  absl::StrAppend(&report.text, swaps.size(), " swaps in ", record.swaps.size(), " requests, of ", settings.swaps,
                  " wanted, after ", record.cycle, " of burn-in\n");
  report.json = {{"swaps", swaps.size()}, {"refused", record.refused}, {"cancelled", record.cancelled}};
  AddTimes("soak", "request", requests, report);
  AddTimes("soak", "swap", swaps, report);
  AddTimes("soak", "step", steps, report);
  AddGates(JudgeSoak(record, settings.exact_only), report);
  report.csv = SoakCsv(record);
  if (!settings.plot.empty()) {
    ABSL_RETURN_IF_ERROR(PlotSoak(record, settings.plot));
  }
  return report;
}

}  // namespace

absl::StatusOr<BenchReport> RunBench(ImageClient& client, const Arguments& arguments) {
  const BenchSettings& settings = arguments.bench;
  for (const auto& [flag, file] : {std::pair{"--csv", settings.csv}, std::pair{"--plot", settings.plot}}) {
    if (!file.empty()) {
      ABSL_RETURN_IF_ERROR(CheckWritable(flag, file));
    }
  }
  const bool soak = settings.kind == BenchKind::kSoak;
  ABSL_ASSIGN_OR_RETURN(const std::unique_ptr<ImageClient> other,
                        Other(arguments.connection, soak ? settings.twin : settings.side_server));
  BenchServer server(&client, settings.metrics);
  BenchServer second(other.get(), "");
  BenchServer* const twin = other == nullptr ? nullptr : &second;
  ABSL_ASSIGN_OR_RETURN(BenchReport report, soak                                ? Soak(server, twin, settings)
                                            : settings.kind == BenchKind::kStep ? RunStepBench(server, twin, settings)
                                                                                : RunSwapBench(server, settings));
  if (!settings.csv.empty()) {
    ABSL_RETURN_IF_ERROR(WriteFile(settings.csv, report.csv));
  }
  return report;
}

}  // namespace hotlora
