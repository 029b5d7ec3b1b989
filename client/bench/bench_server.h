#ifndef HOTLORA_CLIENT_BENCH_BENCH_SERVER_H_
#define HOTLORA_CLIENT_BENCH_BENCH_SERVER_H_

// A running server for a benchmark: requests are timed by the client's clock; the server's own figures come with them.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "client/image_client.h"

namespace hotlora {

struct TimedAnswer {
  double seconds = 0.0;  // around the whole call
  v1::Summary summary;
  std::vector<double> step_seconds;  // as the server measured them

  double median_step() const;
};

// Memory and the process, read while nothing runs. Figures that only the metrics page has are 0 without its URL.
struct IdleFigures {
  uint64_t allocated_bytes = 0;  // the allocator's own figures
  uint64_t reserved_bytes = 0;
  uint64_t host_tier_bytes = 0;
  uint64_t resident_bytes = 0;  // RSS
  uint64_t open_files = 0;
  uint64_t threads = 0;
};

// Where the coldest of a request's adapters was found: "disk", "host" or "device".
std::string ColdestSource(const v1::Summary& summary);

// The values of a Prometheus text page that have no labels, by name.
std::map<std::string, double> PlainMetrics(absl::string_view page);

// Not thread-safe. Errors are gRPC's code and words, as absl has them.
class BenchServer {
 public:
  // `metrics_url` as http://HOST:PORT/PATH; empty: there is none.
  BenchServer(ImageClient* client, std::string metrics_url);

  absl::StatusOr<TimedAnswer> Generate(const v1::GenerateImagesRequest& request);

  // Sends the request and cancels it at its first step (`at_step`) or as soon as it is admitted. OK if the
  // request was cancelled, or had ended before.
  absl::Status GenerateAndCancel(const v1::GenerateImagesRequest& request, bool at_step);

  absl::StatusOr<std::vector<std::string>> AdapterNames();
  // Puts the adapter into the tier where the next request is to find it: "disk", "host" or "device".
  absl::Status Place(const std::string& adapter, absl::string_view tier);

  // Waits (up to ten seconds) until no request waits and no adapter is leased, then reads. DeadlineExceeded if
  // another caller uses the server.
  absl::StatusOr<IdleFigures> ReadIdle();

  absl::StatusOr<v1::BaseIntegrity> VerifyBase();
  absl::StatusOr<v1::ServerInfo> Info();

 private:
  ImageClient* const client_;
  const std::string metrics_url_;
};

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_BENCH_SERVER_H_
