#ifndef HOTLORA_SERVER_READINESS_H_
#define HOTLORA_SERVER_READINESS_H_

#include <bitset>
#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/base/enum_size.h"
#include "src/base/mutex.h"
#include "src/engine/engine.h"
#include "src/metrics/call_metrics.h"

namespace hotlora {

// Whether the server is ready, and every reason why it is not. Health, /-/ready, the metrics and the log follow this
// alone. It begins as kStarting. Thread-safe.
class Readiness {
 public:
  // `on_change` is told whether the server is ready when that changes, in the order of the changes; it must not call
  // back. `metrics` outlives this object.
  Readiness(CallMetrics* metrics, std::function<void(bool ready)> on_change);

  // A change is one line in the log, which ends with `detail` if the reason comes into force.
  void Set(NotReadyReason reason, bool in_force, absl::string_view detail = "");

  // The reasons kStuck…: in force for the kinds of work that `stuck` holds.
  void SetStuckWork(absl::Span<const StuckWork> stuck);

  bool ready() const;

  // The labels of the reasons, joined by ", "; "" if the server is ready.
  std::string WhyNot() const;

 private:
  using Reasons = std::bitset<kEnumSize<NotReadyReason>>;

  static std::string Labels(const Reasons& reasons);
  ServerState State() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  CallMetrics* const metrics_;
  const std::function<void(bool)> on_change_;

  mutable Mutex mu_;
  Reasons reasons_ ABSL_GUARDED_BY(mu_);
  ServerState state_ ABSL_GUARDED_BY(mu_) = ServerState::kStarting;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_READINESS_H_
