#ifndef HOTLORA_CLIENT_BENCH_SOAK_H_
#define HOTLORA_CLIENT_BENCH_SOAK_H_

#include "absl/status/statusor.h"

#include "client/bench/bench_server.h"
#include "client/bench/settings.h"
#include "client/bench/soak_record.h"

namespace hotlora {

// Sends a seeded list of requests, which has a tenth of the swaps: once for burn-in, then ten times. After each swap
// comes its twin, a request that swaps nothing: without adapters on `twin`, or the same request again on the same
// server if `twin` is null. Before one swap in ten comes a request that fails, of these kinds in turn: it names an
// adapter that does not exist, or a broken one (both after a sound one); it is cancelled when it is admitted, or at its
// first step. After every --idle-every swaps a request without adapters is sent and the memory is read. After --seconds
// it ends early and returns what it has.
absl::StatusOr<SoakRecord> RunSoak(BenchServer& server, BenchServer* twin, const BenchSettings& settings);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SOAK_H_
