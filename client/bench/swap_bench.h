#ifndef HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_
#define HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_

#include "absl/status/statusor.h"

#include "client/bench/bench_report.h"
#include "client/bench/bench_server.h"
#include "client/bench/settings.h"

namespace hotlora {

// Each block is a request that swaps, and the same request again, which swaps nothing. Before it the adapters are put
// into the tier of --source. Reports the server's figures of each phase by the tier of the coldest adapter, and what
// the swap added to the request: the ratio and the difference within the block.
absl::StatusOr<BenchReport> RunSwapBench(BenchServer& server, const BenchSettings& settings);

// Each block is a request without adapters and one with adapters, in random order, on each server; `side` may be null.
// Reports the times of the steps and the ratios within the block. If a request has several steps, its first is left
// out.
absl::StatusOr<BenchReport> RunStepBench(BenchServer& merged, BenchServer* side, const BenchSettings& settings);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SWAP_BENCH_H_
