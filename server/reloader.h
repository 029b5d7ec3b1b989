#ifndef HOTLORA_SERVER_RELOADER_H_
#define HOTLORA_SERVER_RELOADER_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/flags.h"
#include "server/server.h"
#include "src/metrics/call_metrics.h"

namespace hotlora {

// Reads again, while the server runs: the tokens file, the certificate's files, and log_level of --config. All or
// nothing: a fault in one of them, or in another setting, leaves all as it was. Not thread-safe.
class Reloader {
 public:
  // `flags`: the settings in force. `read_flags` reads all sources of settings again. `server` and `metrics` outlive
  // this.
  Reloader(const Flags& flags, std::function<absl::StatusOr<Flags>()> read_flags, Server* server, CallMetrics* metrics);

  // Counts and logs how it went, beside returning it.
  absl::Status Reload();

 private:
  absl::Status ReadAndTake();

  const Flags flags_;
  const std::function<absl::StatusOr<Flags>()> read_flags_;
  Server* const server_;
  CallMetrics* const metrics_;
  std::string log_level_;  // as the settings had it last; SetLogLevel's is another thing
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_RELOADER_H_
