#ifndef HOTLORA_CLIENT_BENCH_SOAK_H_
#define HOTLORA_CLIENT_BENCH_SOAK_H_

#include "absl/status/statusor.h"

#include "client/bench/bench_server.h"
#include "client/bench/settings.h"
#include "client/bench/soak_record.h"

namespace hotlora {

// Swaps and swaps: a seeded list of requests, a tenth of the swaps long, is sent once for burn-in and then ten times
// over. Each swap is followed by its twin, a request that swaps nothing: on `twin` without adapters, if that is not
// null, else the same again on the same server. Before one swap in ten something goes wrong, in turn: a request names
// an adapter that is not there, or a broken one (both after a sound one), or is cancelled when it is admitted, or at
// its first step. Every --idle-every swaps a request without adapters is made and the memory is read. Ends early, with
// what it has, after --seconds.
absl::StatusOr<SoakRecord> RunSoak(BenchServer& server, BenchServer* twin, const BenchSettings& settings);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SOAK_H_
