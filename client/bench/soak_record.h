#ifndef HOTLORA_CLIENT_BENCH_SOAK_RECORD_H_
#define HOTLORA_CLIENT_BENCH_SOAK_RECORD_H_

// What a soak measured, and the gates that it must pass.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/bench/bench_server.h"

namespace hotlora {

struct SoakSwap {
  double seconds = 0.0, twin_seconds = 0.0;  // of the whole calls
  double swap_seconds = 0.0;                 // as the server measured it
  double step_seconds = 0.0;
  bool changed = false;  // the server had to change its adapters
  std::string adapters, source, form;

  double ratio() const { return seconds / twin_seconds; }
};

struct SoakIdle {
  uint32_t swaps = 0;  // done until then, burn-in not counted
  IdleFigures figures;
};

struct SoakRecord {
  uint32_t cycle = 0;  // requests until the list repeats: a tenth of the swaps
  std::vector<SoakSwap> swaps;
  std::vector<SoakIdle> idle;  // the first right after burn-in
  uint32_t refused = 0, cancelled = 0;
  std::vector<std::string> surprises;  // calls that did not end as expected
  v1::BaseIntegrity base_before, base_after;
};

// Whether the allocator's bytes are the same at every idle point but for what the host tier holds. A host tier that is
// not one storage comes and goes with what is in it, within its budget: then only what is beside it must stay the same.
bool HostTierMoves(const SoakRecord& record);

// One thing that a soak is judged by.
struct Gate {
  std::string name;
  bool passed = false;
  std::string words;  // the figures
};

// Exact: allocated and reserved bytes the same at every idle point, open files no more in the second half than in the
// first and threads by four at most (gRPC's pool); base weights intact; calls ended as they must. Unless `exact_only`,
// by intervals of 95 %: RSS grows by less than 8 MiB in 10,000 swaps, and the ratio of a request that swaps to its twin
// is in the last cycle 0.97 to 1.03 of what the same request's was in the first. REQUIRES an idle point.
std::vector<Gate> JudgeSoak(const SoakRecord& record, bool exact_only);

// Every swap and every idle point as a line.
std::string SoakCsv(const SoakRecord& record);

// Draws memory and latency over swaps. Unavailable if gnuplot is not there or fails.
absl::Status PlotSoak(const SoakRecord& record, const std::string& file);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SOAK_RECORD_H_
