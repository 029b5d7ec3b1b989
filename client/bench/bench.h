#ifndef HOTLORA_CLIENT_BENCH_BENCH_H_
#define HOTLORA_CLIENT_BENCH_BENCH_H_

#include "absl/status/statusor.h"

#include "client/arguments.h"
#include "client/bench/bench_report.h"
#include "client/image_client.h"

namespace hotlora {

// Runs the benchmark that arguments.bench names and writes its files. Errors are those of calls, of files, and
// InvalidArgument if the server lacks what it needs.
absl::StatusOr<BenchReport> RunBench(ImageClient& client, const Arguments& arguments);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_BENCH_H_
