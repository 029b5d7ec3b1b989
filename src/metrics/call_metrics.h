#ifndef HOTLORA_SRC_METRICS_CALL_METRICS_H_
#define HOTLORA_SRC_METRICS_CALL_METRICS_H_

// What the server's side of a call is worth counting: the process's state, calls under way, refusals, callers who
// cancel or read slowly, and which adapters are asked for. The engine's figures are in metrics.h, which owns this.
// Thread-safe.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "src/image/rgb_image.h"

namespace prometheus {
class Collectable;
class Registry;
}  // namespace prometheus

namespace hotlora {

enum class ServerState { kStarting, kReady, kNotReady, kDraining, kFailed };

// kStuck…: work of that kind (src/scheduler/work_watch.h).
enum class NotReadyReason {
  kStarting,
  kDraining,
  kDeviceFailed,
  kBaseDamaged,
  kNoDescriptors,
  kListenerDeaf,
  kStuckApply,
  kStuckEncode,
  kStuckStep,
  kStuckDecode,
  kStuckCheck
};

// As in the label `reason`.
const char* NotReadyLabel(NotReadyReason reason);

enum class CallStage { kQueued, kDenoise, kDecode };
enum class CancelCause { kClient, kDeadline, kShutdown };
enum class AuthFailure { kMissing, kInvalid, kScope };
enum class ConnectionRefusal { kDescriptors, kPeer };
enum class ReloadedPart { kSettings, kCertificate };

class CallMetrics {
 public:
  explicit CallMetrics(prometheus::Registry& registry);
  ~CallMetrics();
  CallMetrics(const CallMetrics&) = delete;
  CallMetrics& operator=(const CallMetrics&) = delete;

  // What CountAdapterUse counts; scraped beside the registry.
  std::shared_ptr<prometheus::Collectable> adapter_usage() const;

  void SetState(ServerState state);  // kStarting from the start
  void SetNotReady(NotReadyReason reason, bool in_force);

  void AddInFlight(absl::string_view method, int change);
  void CountRetry();                              // a call that its client's retry policy made
  void CountRejection(absl::string_view reason);  // a call that ended with an error; `reason` as in ErrorInfo
  void CountAuthFailure(AuthFailure failure);
  void CountRefusedConnection(ConnectionRefusal reason);  // one to the gRPC port that was closed at once
  void CountReload(ReloadedPart part, bool good);

  void CountCancelled(CallStage stage, CancelCause cause);
  void ObserveCancelLatency(double seconds);  // from the news that the caller has gone to the end of the work
  void ObserveFirstEvent(double seconds);     // from arrival to the first event of a stream
  void ObserveSendBlocked(double seconds);    // one message in gRPC's hands
  void CountGivenUp();                        // a caller who did not read
  void CountDroppedUpdates(uint64_t count);
  void CountUploadBytes(uint64_t bytes);  // of adapters, as their chunks come
  void CountImageBytes(ImageFormat format, uint64_t bytes);

  // A request that ran, with the names of its adapters. Only names that the adapter store knew may come here.
  void CountAdapterUse(const std::vector<std::string>& names);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_CALL_METRICS_H_
