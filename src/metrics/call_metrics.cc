#include "src/metrics/call_metrics.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/time/clock.h"
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "src/base/enum_size.h"
#include "src/base/error_reason.h"
#include "src/metrics/adapter_usage.h"
#include "src/metrics/labels.h"

namespace hotlora {
namespace {

constexpr const char* kStates[] = {"starting", "ready", "not_ready", "draining", "failed"};
static_assert(std::size(kStates) == kEnumSize<ServerState>);
constexpr const char* kNotReadyLabels[] = {"starting",       "draining",      "device_failed", "base_damaged",
                                           "no_descriptors", "listener_deaf", "stuck_apply",   "stuck_encode",
                                           "stuck_step",     "stuck_decode",  "stuck_check"};
static_assert(std::size(kNotReadyLabels) == kEnumSize<NotReadyReason>);
constexpr const char* kCallStages[] = {"queued", "denoise", "decode"};
static_assert(std::size(kCallStages) == kEnumSize<CallStage>);
constexpr const char* kCauses[] = {"client", "deadline", "shutdown"};
static_assert(std::size(kCauses) == kEnumSize<CancelCause>);
constexpr const char* kAuthFailures[] = {"missing", "invalid", "scope"};
static_assert(std::size(kAuthFailures) == kEnumSize<AuthFailure>);
constexpr const char* kConnectionRefusals[] = {"descriptors", "peer"};
static_assert(std::size(kConnectionRefusals) == kEnumSize<ConnectionRefusal>);
constexpr const char* kReloadOutcomes[] = {"error", "ok"};
constexpr const char* kOtherReason = "other";

const Buckets kAdaptersBuckets = {1, 2, 3, 4, 6, 8, 16};

}  // namespace

struct CallMetrics::Families {
  explicit Families(prometheus::Registry& registry);

  CounterFamily& transitions;
  prometheus::Gauge& ready;
  prometheus::Gauge& draining;
  GaugeFamily& not_ready;
  GaugeFamily& in_flight;
  prometheus::Counter& retries;
  CounterFamily& rejected;
  CounterFamily& nonfinite;
  CounterFamily& auth_failures;
  CounterFamily& connections_refused;
  CounterFamily& config_reloads;
  CounterFamily& tls_reloads;
  CounterFamily& cancelled;
  prometheus::Histogram& cancel_latency;
  prometheus::Histogram& first_event;
  prometheus::Histogram& send_blocked;
  prometheus::Counter& given_up;
  prometheus::Counter& updates_dropped;
  CounterFamily& image_bytes;
  prometheus::Counter& upload_bytes;
  prometheus::Histogram& adapters_per_request;
  std::shared_ptr<AdapterUsage> usage = std::make_shared<AdapterUsage>();

  void StandAtZero();
};

CallMetrics::Families::Families(prometheus::Registry& r)
    : transitions(AddCounter(r, "hotlora_state_transitions_total", "Changes of the server's state, by the new one")),
      ready(AddGauge(r, "hotlora_ready", "1 while requests are accepted").Add({})),
      draining(AddGauge(r, "hotlora_draining", "1 while the server finishes what runs, before it stops").Add({})),
      not_ready(AddGauge(r, "hotlora_not_ready", "1 for each reason for which requests are not accepted now")),
      in_flight(AddGauge(r, "hotlora_requests_in_flight", "Requests that arrived and have not ended")),
      retries(AddCounter(r, "hotlora_client_retries_total", "Calls that were made by a client's retry policy").Add({})),
      rejected(AddCounter(r, "hotlora_requests_rejected_total",
                          "Requests that were refused or failed, by the reason in the error's ErrorInfo")),
      nonfinite(AddCounter(r, "hotlora_images_nonfinite_total", "Requests that failed because values were not finite")),
      auth_failures(AddCounter(r, "hotlora_auth_failures_total", "Calls without a token that allows them")),
      connections_refused(AddCounter(r, "hotlora_connections_refused_total",
                                     "Connections to the gRPC port that were closed at once, because descriptors ran "
                                     "short or because their peer had too many")),
      config_reloads(AddCounter(r, "hotlora_config_reloads_total", "Times that SIGHUP read the settings again")),
      tls_reloads(AddCounter(r, "hotlora_tls_reloads_total",
                             "New certificates taken, and looks at certificate files that were not sound")),
      cancelled(AddCounter(r, "hotlora_requests_cancelled_total",
                           "Admitted requests that ended early, by how far they had come and by who ended them")),
      cancel_latency(AddHistogram(r, "hotlora_cancel_latency_seconds", "From a cancelled call to the end of its work")
                         .Add({}, kStepBuckets)),
      first_event(AddHistogram(r, "hotlora_time_to_first_event_seconds", "From a stream's arrival to its first event")
                      .Add({}, kQueueBuckets)),
      send_blocked(AddHistogram(r, "hotlora_grpc_send_blocked_seconds",
                                "How long a message of a stream was in gRPC's hands before the next could follow")
                       .Add({}, kPhaseBuckets)),
      given_up(AddCounter(r, "hotlora_slow_readers_cancelled_total",
                          "Calls that were cancelled because the caller did not read what was sent")
                   .Add({})),
      updates_dropped(AddCounter(r, "hotlora_stream_updates_dropped_total",
                                 "Progress events and previews that a slow reader did not get")
                          .Add({})),
      image_bytes(AddCounter(r, "hotlora_image_bytes_total", "Bytes of images handed to callers, by format")),
      upload_bytes(AddCounter(r, "hotlora_adapter_upload_bytes_total", "Bytes of adapters that callers sent").Add({})),
      adapters_per_request(
          AddHistogram(r, "hotlora_adapters_per_request", "Adapters of a request that ran").Add({}, kAdaptersBuckets)) {
  StandAtZero();
}

void CallMetrics::Families::StandAtZero() {
  for (const char* state : kStates) {
    transitions.Add({{"to", state}});
  }
  transitions.Add({{"to", kStates[0]}}).Increment();
  for (const char* reason : kNotReadyLabels) {
    not_ready.Add({{"reason", reason}});
  }
  for (const char* method : kMethods) {
    in_flight.Add({{"method", method}});
  }
  for (const char* reason : error_reason::kForCallers) {
    rejected.Add({{"reason", absl::AsciiStrToLower(reason)}});
  }
  rejected.Add({{"reason", kOtherReason}});
  nonfinite.Add({});
  for (const char* failure : kAuthFailures) {
    auth_failures.Add({{"reason", failure}});
  }
  for (const char* reason : kConnectionRefusals) {
    connections_refused.Add({{"reason", reason}});
  }
  for (const char* outcome : kReloadOutcomes) {
    config_reloads.Add({{"outcome", outcome}});
    tls_reloads.Add({{"outcome", outcome}});
  }
  for (const char* stage : kCallStages) {
    for (const char* cause : kCauses) {
      cancelled.Add({{"stage", stage}, {"cause", cause}});
    }
  }
  for (const char* format : kImageFormatNames) {
    image_bytes.Add({{"format", format}});
  }
}

CallMetrics::CallMetrics(prometheus::Registry& registry) : families_(std::make_unique<Families>(registry)) {}
CallMetrics::~CallMetrics() = default;

std::shared_ptr<prometheus::Collectable> CallMetrics::adapter_usage() const { return families_->usage; }

void CallMetrics::SetState(ServerState state) {
  families_->ready.Set(state == ServerState::kReady ? 1 : 0);
  families_->draining.Set(state == ServerState::kDraining ? 1 : 0);
  families_->transitions.Add({{"to", kStates[static_cast<size_t>(state)]}}).Increment();
}

const char* NotReadyLabel(NotReadyReason reason) { return kNotReadyLabels[static_cast<size_t>(reason)]; }

void CallMetrics::SetNotReady(NotReadyReason reason, bool in_force) {
  families_->not_ready.Add({{"reason", NotReadyLabel(reason)}}).Set(in_force ? 1 : 0);
}

void CallMetrics::AddInFlight(absl::string_view method, int change) {
  families_->in_flight.Add({{"method", std::string(method)}}).Increment(change);
}

void CallMetrics::CountRetry() { families_->retries.Increment(); }

void CallMetrics::CountRejection(absl::string_view reason) {
  const auto* const end = std::end(error_reason::kForCallers);
  const bool known = std::find(std::begin(error_reason::kForCallers), end, reason) != end;
  families_->rejected.Add({{"reason", known ? absl::AsciiStrToLower(reason) : kOtherReason}}).Increment();
  if (reason == error_reason::kNonfiniteOutput) {
    families_->nonfinite.Add({}).Increment();
  }
}

void CallMetrics::CountAuthFailure(AuthFailure failure) {
  families_->auth_failures.Add({{"reason", kAuthFailures[static_cast<size_t>(failure)]}}).Increment();
}

void CallMetrics::CountRefusedConnection(ConnectionRefusal reason) {
  families_->connections_refused.Add({{"reason", kConnectionRefusals[static_cast<size_t>(reason)]}}).Increment();
}

void CallMetrics::CountReload(ReloadedPart part, bool good) {
  CounterFamily& reloads = part == ReloadedPart::kSettings ? families_->config_reloads : families_->tls_reloads;
  reloads.Add({{"outcome", kReloadOutcomes[good ? 1 : 0]}}).Increment();
}

void CallMetrics::CountCancelled(CallStage stage, CancelCause cause) {
  families_->cancelled
      .Add({{"stage", kCallStages[static_cast<size_t>(stage)]}, {"cause", kCauses[static_cast<size_t>(cause)]}})
      .Increment();
}

void CallMetrics::ObserveCancelLatency(double seconds) { families_->cancel_latency.Observe(seconds); }
void CallMetrics::ObserveFirstEvent(double seconds) { families_->first_event.Observe(seconds); }
void CallMetrics::ObserveSendBlocked(double seconds) { families_->send_blocked.Observe(seconds); }

void CallMetrics::CountGivenUp() { families_->given_up.Increment(); }

void CallMetrics::CountDroppedUpdates(uint64_t count) {
  families_->updates_dropped.Increment(static_cast<double>(count));
}

void CallMetrics::CountUploadBytes(uint64_t bytes) { families_->upload_bytes.Increment(static_cast<double>(bytes)); }

void CallMetrics::CountImageBytes(ImageFormat format, uint64_t bytes) {
  families_->image_bytes.Add({{"format", kImageFormatNames[static_cast<size_t>(format)]}})
      .Increment(static_cast<double>(bytes));
}

void CallMetrics::CountAdapterUse(const std::vector<std::string>& names) {
  families_->adapters_per_request.Observe(static_cast<double>(names.size()));
  families_->usage->Count(names, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
}

}  // namespace hotlora
