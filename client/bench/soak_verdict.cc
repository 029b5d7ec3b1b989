#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/bench/soak_record.h"
#include "client/bench/statistics.h"

namespace hotlora {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kSwapsOfBound = 10000;
constexpr double kResidentBoundMiB = 8.0;
constexpr double kRatioLow = 0.97, kRatioHigh = 1.03;
constexpr size_t kIdleBlock = 10;   // idle points drawn together
constexpr size_t kRatioBlock = 25;  // swaps drawn together
constexpr size_t kFewestIdle = 20;
constexpr uint64_t kPoolThreads = 4;

Gate Equal(const SoakRecord& record, const std::string& name,
           const std::function<uint64_t(const IdleFigures&)>& figure) {
  const uint64_t first = figure(record.idle.front().figures);
  const auto other = std::find_if(record.idle.begin(), record.idle.end(),
                                  [&](const SoakIdle& idle) { return figure(idle.figures) != first; });
  if (other == record.idle.end()) {
    return {name, true, absl::StrCat(first, " at each of ", record.idle.size(), " idle points")};
  }
  return {name, false,
          absl::StrCat(first, " after burn-in, ", figure(other->figures), " after ", other->swaps, " swaps, ",
                       figure(record.idle.back().figures), " at the end")};
}

Gate EqualBytes(const SoakRecord& record, const std::string& name, uint64_t IdleFigures::*figure) {
  const bool moves = HostTierMoves(record);
  return Equal(record, name,
               [&](const IdleFigures& idle) { return idle.*figure - (moves ? idle.host_tier_bytes : 0); });
}

// A file may still be closing, and gRPC's pool of threads grows now and then: so the most of each half is
// compared, with room for that.
Gate NoGrowth(const SoakRecord& record, const std::string& name, uint64_t IdleFigures::*figure, uint64_t room) {
  const auto most = [&](size_t begin, size_t end) {
    uint64_t result = 0;
    for (size_t i = begin; i < end; ++i) {
      result = std::max(result, record.idle[i].figures.*figure);
    }
    return result;
  };
  const size_t half = record.idle.size() / 2;
  const uint64_t first = most(0, half), second = most(half, record.idle.size());
  return {name, second <= first + room,
          absl::StrCat("at most ", first, " in the first half, ", second, " in the second")};
}

Gate ResidentGate(const SoakRecord& record) {
  std::vector<double> swaps, mib;
  for (const SoakIdle& idle : record.idle) {
    swaps.push_back(idle.swaps);
    mib.push_back(static_cast<double>(idle.figures.resident_bytes) / kMiB);
  }
  if (swaps.size() < kFewestIdle) {
    return {"RSS", false, absl::StrCat("only ", swaps.size(), " idle points, ", kFewestIdle, " are needed")};
  }
  const double slope = TheilSenSlope(swaps, mib) * kSwapsOfBound;
  const Interval interval = TheilSenInterval(swaps, mib, {kIdleBlock, 1000, 0});
  const double high = interval.high * kSwapsOfBound;
  return {"RSS", high < kResidentBoundMiB,
          absl::StrFormat("%+.2f MiB in 10,000 swaps [%+.2f, %+.2f], bound %.0f; %.1f to %.1f MiB", slope,
                          interval.low * kSwapsOfBound, high, kResidentBoundMiB,
                          *std::min_element(mib.begin(), mib.end()), *std::max_element(mib.begin(), mib.end()))};
}

// The same requests in the first and the last whole cycle, each against its own twin: what differs between requests
// (ranks, formats, tiers) and what the machine does to both of a pair falls out.
Gate LatencyGate(const SoakRecord& record) {
  const size_t cycle = record.cycle;
  const size_t last = record.swaps.size() / cycle * cycle;
  if (last < 2 * cycle) {
    return {"latency", false, "less than two cycles of requests were made"};
  }
  std::vector<double> drift, first_ratio, last_ratio;
  for (size_t i = 0; i < cycle; ++i) {
    first_ratio.push_back(record.swaps[i].ratio());
    last_ratio.push_back(record.swaps[last - cycle + i].ratio());
    drift.push_back(last_ratio.back() / first_ratio.back());
  }
  const Interval interval = BootstrapInterval(drift, Median, {std::min(kRatioBlock, cycle / 10), 1000, 0});
  return {"latency", kRatioLow <= interval.low && interval.high <= kRatioHigh,
          absl::StrFormat("last tenth / first tenth %.4f [%.4f, %.4f], bounds %.2f to %.2f; a swapping request takes "
                          "%.3f and %.3f of its twin's time",
                          Median(drift), interval.low, interval.high, kRatioLow, kRatioHigh, Median(first_ratio),
                          Median(last_ratio))};
}

Gate BaseGate(const SoakRecord& record) {
  const auto sound = [](const v1::BaseIntegrity& base) { return base.intact() && base.mismatches() == 0; };
  return {"base weights", sound(record.base_before) && sound(record.base_after),
          absl::StrCat(record.base_after.modules_checked(), " modules checked, ", record.base_after.mismatches(),
                       " mismatches, ", record.base_before.mismatches(), " before")};
}

}  // namespace

bool HostTierMoves(const SoakRecord& record) {
  const auto same = [&](const std::function<uint64_t(const IdleFigures&)>& figure) {
    return Equal(record, "", figure).passed;
  };
  return !same([](const IdleFigures& idle) { return idle.allocated_bytes; }) &&
         same([](const IdleFigures& idle) { return idle.allocated_bytes - idle.host_tier_bytes; });
}

std::vector<Gate> JudgeSoak(const SoakRecord& record, bool exact_only) {
  const bool has_metrics = record.idle.front().figures.resident_bytes > 0;
  std::vector<Gate> gates = {EqualBytes(record, "allocated bytes", &IdleFigures::allocated_bytes),
                             EqualBytes(record, "reserved bytes", &IdleFigures::reserved_bytes)};
  if (has_metrics) {
    gates.push_back(NoGrowth(record, "open files", &IdleFigures::open_files, 0));
    gates.push_back(NoGrowth(record, "threads", &IdleFigures::threads, kPoolThreads));
  }
  gates.push_back(BaseGate(record));
  gates.push_back({"calls", record.surprises.empty(),
                   record.surprises.empty()
                       ? absl::StrCat(record.refused, " refused and ", record.cancelled, " cancelled, as they must be")
                       : absl::StrCat(record.surprises.size(), " ended otherwise, the first: ", record.surprises[0])});
  if (!exact_only) {
    if (has_metrics) {
      gates.push_back(ResidentGate(record));
    }
    gates.push_back(LatencyGate(record));
  }
  return gates;
}

std::string SoakCsv(const SoakRecord& record) {
  std::string csv =
      "kind,swaps,adapters,source,form,changed,seconds,twin_seconds,ratio,swap_seconds,step_seconds,"
      "allocated_bytes,reserved_bytes,host_tier_bytes,resident_bytes,open_files,threads\n";
  for (size_t i = 0; i < record.swaps.size(); ++i) {
    const SoakSwap& swap = record.swaps[i];
    absl::StrAppend(&csv, "swap,", i + 1, ",", swap.adapters, ",", swap.source, ",", swap.form, ",", swap.changed, ",",
                    swap.seconds, ",", swap.twin_seconds, ",", swap.ratio(), ",", swap.swap_seconds, ",",
                    swap.step_seconds, ",,,,,,\n");
  }
  for (const SoakIdle& idle : record.idle) {
    const IdleFigures& figures = idle.figures;
    absl::StrAppend(&csv, "idle,", idle.swaps, ",,,,,,,,,,", figures.allocated_bytes, ",", figures.reserved_bytes, ",",
                    figures.host_tier_bytes, ",", figures.resident_bytes, ",", figures.open_files, ",", figures.threads,
                    "\n");
  }
  return csv;
}

}  // namespace hotlora
