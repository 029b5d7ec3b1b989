#ifndef HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_
#define HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_

#include "absl/status/statusor.h"

#include "client/bench/bench_report.h"
#include "client/bench/bench_server.h"
#include "client/bench/settings.h"

namespace hotlora {

// Each block is a request that swaps, its adapters put where --source says before, and the same request once more,
// which swaps nothing. Tells the server's figures of each phase by where the coldest adapter was, and what the swap
// added to the request: the ratio and the difference within the block.
absl::StatusOr<BenchReport> RunSwapBench(BenchServer& server, const BenchSettings& settings);

// Each block is a request without adapters and one with, in random order, on each server; the second may be null. Tells
// the steps' times, the first of each request left out if there are more, and the ratios within the block.
absl::StatusOr<BenchReport> RunStepBench(BenchServer& merged, BenchServer* side, const BenchSettings& settings);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_
