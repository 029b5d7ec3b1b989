#include "src/metrics/metrics.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "src/base/enum_size.h"
#include "src/base/error_reason.h"
#include "src/base/mutex.h"
#include "src/metrics/collectors.h"
#include "src/metrics/labels.h"
#include "src/metrics/step_drift.h"

namespace hotlora {
namespace {

const Buckets kSwapBuckets = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30};
// A phase is looked at by its mean, a whole swap by its quantiles.
const Buckets kSwapPhaseBuckets = {.001, .005, .025, .1, .5, 2.5};
const Buckets kRequestBuckets = {.1, .25, .5, 1, 2, 4, 7.5, 15, 30, 60, 120, 300, 600};
// For calls that read or receive a file: a closer look is rarely needed.
const Buckets kFileBuckets = {.1, 1, 30};
// Sum and count alone.
const Buckets kNoBuckets = {};
const Buckets kBatchBuckets = {1, 2, 4, 8, 16};

// The codes of docs/errors.md: those that any call may end with, and what others may end with besides.
constexpr const char* kCommonCodes[] = {"OK",       "INVALID_ARGUMENT", "NOT_FOUND",       "PERMISSION_DENIED",
                                        "INTERNAL", "UNAVAILABLE",      "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"};
constexpr const char* kLaterCodes[] = {"CANCELLED", "DEADLINE_EXCEEDED", "ALREADY_EXISTS"};
constexpr const char* kImageCodes[] = {"FAILED_PRECONDITION", "UNIMPLEMENTED"};
constexpr const char* kChangeCodes[] = {"FAILED_PRECONDITION", "ABORTED"};
constexpr const char* kOutcomes[] = {"ok", "error", "cancelled"};
constexpr const char* kSizes[] = {"le_0.5mp", "le_1mp", "le_2mp", "gt_2mp"};
constexpr const char* kOnOff[] = {"off", "on"};
constexpr const char* kPhases[] = {"queue", "adapter", "encode", "denoise", "decode", "image_encode"};
static_assert(std::size(kPhases) == kEnumSize<RequestPhase>);
constexpr const char* kSwapPhases[] = {"lookup", "read", "parse", "upload", "apply", "restore", "total"};
static_assert(std::size(kSwapPhases) == kEnumSize<SwapPhase>);
constexpr const char* kVaeWorks[] = {"decode", "encode"};
static_assert(std::size(kVaeWorks) == kEnumSize<VaeWork>);
constexpr const char* kRegroupReasons[] = {"size_mismatch", "adapter_mismatch", "full", "memory"};
static_assert(std::size(kRegroupReasons) == kEnumSize<RegroupReason>);
constexpr const char* kStartUpPhases[] = {"load", "warm_up"};
static_assert(std::size(kStartUpPhases) == kEnumSize<StartUpPhase>);

const char* SizeLabel(const StepShape& shape) {
  const double pixels = static_cast<double>(shape.width) * shape.height;
  return pixels <= 0.5 * 1024 * 1024 ? kSizes[0]
         : pixels <= 1024 * 1024     ? kSizes[1]
         : pixels <= 2 * 1024 * 1024 ? kSizes[2]
                                     : kSizes[3];
}

// The same methods as in the rules of deploy/prometheus.
bool MakesImages(absl::string_view method) {
  const auto ends = [&](absl::string_view suffix) { return absl::EndsWith(method, suffix); };
  return ends("Image") || ends("Images") || ends("2Img");
}

bool StartsWithAny(absl::string_view method, absl::Span<const absl::string_view> verbs) {
  return std::any_of(verbs.begin(), verbs.end(), [&](auto verb) { return absl::StartsWith(method, verb); });
}

// Whether calls of that RPC read or receive a file.
bool MovesFile(absl::string_view method) { return StartsWithAny(method, {"Load", "Upload"}); }

// Whether calls of that RPC may be cancelled: the others are answered at once.
bool EndsLater(absl::string_view method) { return MakesImages(method) || MovesFile(method); }

// Whether calls of that RPC change what a store has, on the disk or in memory.
bool ChangesStore(absl::string_view method) { return MovesFile(method) || StartsWithAny(method, {"Unload", "Delete"}); }

std::vector<std::string> KnownCodes(absl::string_view method) {
  std::vector<std::string> codes(std::begin(kCommonCodes), std::end(kCommonCodes));
  const auto add = [&codes](absl::Span<const char* const> more) {
    codes.insert(codes.end(), more.begin(), more.end());
  };
  if (EndsLater(method)) {
    add(kLaterCodes);
  }
  if (MakesImages(method)) {
    add(kImageCodes);
  }
  if (ChangesStore(method)) {
    add(kChangeCodes);
  }
  return codes;
}

// How long calls took that failed or were cancelled is rarely asked.
const Buckets& RequestBuckets(absl::string_view method, absl::string_view outcome) {
  return outcome != kOutcomes[0] ? kNoBuckets
         : MakesImages(method)   ? kRequestBuckets
         : MovesFile(method)     ? kFileBuckets
                                 : kNoBuckets;
}

const Buckets& SwapBuckets(absl::string_view phase) {
  return phase == kSwapPhases[static_cast<size_t>(SwapPhase::kTotal)] ? kSwapBuckets : kSwapPhaseBuckets;
}

// Only files are read and parsed, and what is on the device already is not copied there.
bool HasSource(absl::string_view phase, absl::string_view source) {
  const auto is = [&](SwapPhase other) { return phase == kSwapPhases[static_cast<size_t>(other)]; };
  const bool of_file = is(SwapPhase::kRead) || is(SwapPhase::kParse);
  return of_file ? source == kAdapterTierNames[static_cast<size_t>(AdapterTier::kDisk)]
                 : !is(SwapPhase::kUpload) || source != kAdapterTierNames[static_cast<size_t>(AdapterTier::kDevice)];
}

const char* OutcomeOf(absl::string_view code) {
  return code == "OK" ? "ok" : code == "CANCELLED" ? "cancelled" : "error";
}

}  // namespace

struct Metrics::Families {
  explicit Families(prometheus::Registry& registry);

  HistogramFamily& step;
  GaugeFamily& step_baseline;
  GaugeFamily& step_drift;
  HistogramFamily& batch_size;
  CounterFamily& regroups;
  CounterFamily& tiled_vae;
  CounterFamily& requests;
  HistogramFamily& request_duration;
  HistogramFamily& phase;
  HistogramFamily& queue_wait;
  CounterFamily& images;
  HistogramFamily& swap;
  CounterFamily& swaps;
  CounterFamily& conditioning_requests;
  CounterFamily& restore_mismatch;
  GaugeFamily& adapter_job_age;
  GaugeFamily& adapter_jobs_waiting;
  GaugeFamily& oldest_waiting;
  GaugeFamily& estimated_wait;
  GaugeFamily& heartbeat;
  GaugeFamily& work_memory_available;
  GaugeFamily& work_memory_needed;
  GaugeFamily& start_up;
  GaugeFamily& build_info;
  GaugeFamily& model_info;
  GaugeFamily& model_files_changed;

  void StandAtZero();
};

Metrics::Families::Families(prometheus::Registry& r)
    : step(AddHistogram(r, "hotlora_denoise_step_duration_seconds",
                        "Duration of one denoising step, by image size and guidance: the latency per iteration")),
      step_baseline(AddGauge(r, "hotlora_step_baseline_seconds",
                             "What a step takes by itself: median of its shape's first 32, until then warm-up's")),
      step_drift(
          AddGauge(r, "hotlora_step_drift_ratio",
                   "Median duration of recent steps over the baseline of the same kind of step, mean over kinds")),
      batch_size(AddHistogram(r, "hotlora_batch_size", "Rows in a denoising step; a row is one image")),
      regroups(AddCounter(r, "hotlora_batch_regroup_total",
                          "Requests that were ready and not let into the step that ran next, by what kept them out")),
      tiled_vae(AddCounter(r, "hotlora_vae_tiled_total",
                           "Pictures that the VAE worked on band by band, because the whole would not fit")),
      requests(AddCounter(r, "hotlora_requests_total", "Requests that ended, by method and gRPC code")),
      request_duration(AddHistogram(r, "hotlora_request_duration_seconds", "From arrival of a request to its end")),
      phase(AddHistogram(r, "hotlora_phase_duration_seconds", "Duration of one phase of a request")),
      queue_wait(AddHistogram(r, "hotlora_queue_wait_seconds", "From admission until the first work on a request")),
      images(AddCounter(r, "hotlora_images_total", "Images finished, by format")),
      swap(AddHistogram(r, "hotlora_adapter_swap_duration_seconds",
                        "Duration of an adapter swap by phase, and where the coldest adapter of the set was found")),
      swaps(AddCounter(r, "hotlora_adapter_swaps_total", "Requests whose adapter set was not in effect already")),
      conditioning_requests(AddCounter(r, "hotlora_conditioning_cache_requests_total",
                                       "Requests whose encoded prompts were kept from an earlier one, or not")),
      restore_mismatch(
          AddCounter(r, "hotlora_base_restore_mismatch_total", "Checks that found base weights changed; must stay 0")),
      adapter_job_age(AddGauge(r, "hotlora_adapter_job_age_seconds",
                               "How long the adapter thread has been at its present job; 0 if it has none")),
      adapter_jobs_waiting(AddGauge(r, "hotlora_adapter_jobs_waiting", "Jobs that wait for the adapter thread")),
      oldest_waiting(AddGauge(r, "hotlora_queue_oldest_enqueue_timestamp_seconds",
                              "When the request came that waits longest; 0 if no request waits")),
      estimated_wait(
          AddGauge(r, "hotlora_estimated_wait_seconds", "What a new request would wait, as far as is known")),
      heartbeat(AddGauge(r, "hotlora_scheduler_heartbeat_timestamp_seconds",
                         "When the step thread last finished a step or looked for work")),
      work_memory_available(AddGauge(r, "hotlora_work_memory_available_bytes",
                                     "Memory that steps and decodes could take when nothing ran last")),
      work_memory_needed(AddGauge(r, "hotlora_work_memory_needed_bytes",
                                  "Memory needed by the largest step or decode so far, with head-room")),
      start_up(AddGauge(r, "hotlora_warmup_duration_seconds", "Duration of the phases from the start until ready")),
      build_info(AddGauge(r, "hotlora_build_info", "1, with the versions of this build as labels")),
      model_info(AddGauge(r, "hotlora_model_info", "1, with the resident model as labels")),
      model_files_changed(AddGauge(r, "hotlora_model_files_changed",
                                   "1 if a file of the model is not what was read at start, which has no effect")) {
  StandAtZero();
}

void Metrics::Families::StandAtZero() {
  for (const char* cfg : kOnOff) {
    for (const char* size : kSizes) {
      step.Add({{"size", size}, {"cfg", cfg}}, kStepBuckets);
    }
  }
  batch_size.Add({}, kBatchBuckets);
  for (const char* reason : kRegroupReasons) {
    regroups.Add({{"reason", reason}});
  }
  for (const char* work : kVaeWorks) {
    tiled_vae.Add({{"work", work}});
  }
  for (const char* method : kMethods) {
    for (const std::string& code : KnownCodes(method)) {
      requests.Add({{"method", method}, {"code", code}});
    }
    for (const char* outcome : kOutcomes) {
      if (outcome == kOutcomes[2] && !EndsLater(method)) {
        continue;
      }
      request_duration.Add({{"method", method}, {"outcome", outcome}}, RequestBuckets(method, outcome));
    }
  }
  for (const char* name : kPhases) {
    phase.Add({{"phase", name}}, kPhaseBuckets);
  }
  queue_wait.Add({}, kQueueBuckets);
  for (const char* format : kImageFormatNames) {
    images.Add({{"format", format}});
  }
  for (const char* tier : kAdapterTierNames) {
    for (const char* phase : kSwapPhases) {
      if (HasSource(phase, tier)) {
        swap.Add({{"phase", phase}, {"source", tier}}, SwapBuckets(phase));
      }
    }
  }
  for (const char* result : {"hit", "miss"}) {
    conditioning_requests.Add({{"result", result}});
  }
  for (const char* outcome : {"ok", "error"}) {
    swaps.Add({{"outcome", outcome}});
  }
  restore_mismatch.Add({});
  model_files_changed.Add({});
  adapter_job_age.Add({});
  adapter_jobs_waiting.Add({});
  oldest_waiting.Add({});
  estimated_wait.Add({});
}

struct Metrics::State {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  Families families{*registry};
  CallMetrics calls{*registry};
  StoreMetrics adapters{*registry,
                        "adapter",
                        "adapters",
                        {error_reason::kAdapterNotFound, error_reason::kAdapterInvalid, error_reason::kFileUnreadable,
                         error_reason::kAdapterMismatch, error_reason::kAdapterUnsupported,
                         error_reason::kAdapterBudget, error_reason::kOutOfMemory}};
  StoreMetrics controls{
      *registry,
      "control",
      "ControlNets and image prompts",
      {error_reason::kControlNotFound, error_reason::kControlInvalid, error_reason::kFileUnreadable,
       error_reason::kControlMismatch, error_reason::kControlBudget, error_reason::kOutOfMemory,
       error_reason::kImagePromptNotFound, error_reason::kImagePromptInvalid, error_reason::kImagePromptMismatch,
       error_reason::kImageEncoderInvalid, error_reason::kImageEncoderMismatch, error_reason::kNoImageEncoder}};
  std::shared_ptr<prometheus::Collectable> process = MakeProcessCollector();
  std::shared_ptr<SourcesCollector> sources = std::make_shared<SourcesCollector>();
  std::shared_ptr<prometheus::Collectable> nvml = MakeNvmlCollector([this] { return sources->GpuReservedBytes(); });

  Mutex mu;
  StepDrift drift ABSL_GUARDED_BY(mu);

  void PublishBaseline(const StepShape& shape, const StepDrift::Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
};

// Publishes plain shapes alone: the labels do not tell the others apart.
void Metrics::State::PublishBaseline(const StepShape& shape, const StepDrift::Change& change) {
  const auto gauge = [this](const StepShape& s) -> prometheus::Gauge& {
    return families.step_baseline.Add({{"width", absl::StrCat(s.width)},
                                       {"height", absl::StrCat(s.height)},
                                       {"rows", absl::StrCat(s.rows)},
                                       {"cfg", kOnOff[s.cfg()]}});
  };
  if (change.dropped.has_value() && change.dropped->plain()) {
    families.step_baseline.Remove(&gauge(*change.dropped));
  }
  if (change.baseline.has_value() && shape.plain()) {
    gauge(shape).Set(*change.baseline);
  }
}

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

std::vector<std::shared_ptr<prometheus::Collectable>> Metrics::collectables() const {
  return {state_->registry, state_->calls.adapter_usage(), state_->sources, state_->nvml, state_->process};
}

CallMetrics& Metrics::calls() { return state_->calls; }
StoreMetrics& Metrics::adapters() { return state_->adapters; }
StoreMetrics& Metrics::controls() { return state_->controls; }

std::string Metrics::Render() const {
  std::vector<prometheus::MetricFamily> families;
  for (const auto& collectable : collectables()) {
    auto collected = collectable->Collect();
    std::move(collected.begin(), collected.end(), std::back_inserter(families));
  }
  return prometheus::TextSerializer().Serialize(families);
}

void Metrics::SetSources(GaugeSources sources) { state_->sources->Set(std::move(sources)); }

void Metrics::SetBuildInfo(absl::string_view version, absl::string_view libtorch) {
  state_->families.build_info.Add({{"version", std::string(version)}, {"libtorch", std::string(libtorch)}}).Set(1);
}

void Metrics::SetModelInfo(absl::string_view model, absl::string_view sha256, absl::string_view dtype,
                           absl::string_view device) {
  state_->families.model_info
      .Add({{"model", std::string(model)},
            {"sha256_12", std::string(sha256.substr(0, 12))},
            {"dtype", std::string(dtype)},
            {"device", std::string(device)}})
      .Set(1);
}

void Metrics::SetModelFilesChanged(bool changed) { state_->families.model_files_changed.Add({}).Set(changed); }

void Metrics::SetCertificateEnd(std::function<std::optional<absl::Time>()> end) {
  state_->sources->SetCertificateEnd(std::move(end));
}

void Metrics::SetStartUp(StartUpPhase phase, double seconds) {
  state_->families.start_up.Add({{"phase", kStartUpPhases[static_cast<size_t>(phase)]}}).Set(seconds);
}

void Metrics::BeatScheduler() { state_->families.heartbeat.Add({}).SetToCurrentTime(); }

void Metrics::ObserveStep(const StepShape& shape, double seconds) {
  BeatScheduler();
  Families& families = state_->families;
  families.step.Add({{"size", SizeLabel(shape)}, {"cfg", kOnOff[shape.cfg()]}}, kStepBuckets).Observe(seconds);
  families.batch_size.Add({}, kBatchBuckets).Observe(shape.rows);
  MutexLock lock(&state_->mu);
  state_->PublishBaseline(shape, state_->drift.Add(shape, seconds));
  if (const std::optional<double> ratio = state_->drift.ratio(); ratio.has_value()) {
    families.step_drift.Add({}).Set(*ratio);
  }
}

void Metrics::SetStepBaseline(const StepShape& shape, double seconds) {
  MutexLock lock(&state_->mu);
  state_->PublishBaseline(shape, state_->drift.SetWarmUp(shape, seconds));
}

void Metrics::CountRegroup(RegroupReason reason) {
  state_->families.regroups.Add({{"reason", kRegroupReasons[static_cast<size_t>(reason)]}}).Increment();
}

void Metrics::CountTiledVae(VaeWork work) {
  state_->families.tiled_vae.Add({{"work", kVaeWorks[static_cast<size_t>(work)]}}).Increment();
}

void Metrics::SetWorkMemory(int64_t available_bytes, int64_t needed_bytes) {
  state_->families.work_memory_available.Add({}).Set(static_cast<double>(available_bytes));
  state_->families.work_memory_needed.Add({}).Set(static_cast<double>(needed_bytes));
}

void Metrics::CountRequest(absl::string_view method, absl::string_view code, double seconds) {
  const std::string name(method);
  state_->families.requests.Add({{"method", name}, {"code", std::string(code)}}).Increment();
  const char* const outcome = OutcomeOf(code);
  state_->families.request_duration.Add({{"method", name}, {"outcome", outcome}}, RequestBuckets(method, outcome))
      .Observe(seconds);
}

void Metrics::ObservePhase(RequestPhase phase, double seconds) {
  state_->families.phase.Add({{"phase", kPhases[static_cast<size_t>(phase)]}}, kPhaseBuckets).Observe(seconds);
}

void Metrics::ObserveQueueWait(double seconds) { state_->families.queue_wait.Add({}, kQueueBuckets).Observe(seconds); }

void Metrics::CountImage(ImageFormat format) {
  state_->families.images.Add({{"format", kImageFormatNames[static_cast<size_t>(format)]}}).Increment();
}

void Metrics::ObserveSwapPhase(SwapPhase phase, AdapterTier source, double seconds) {
  const char* const name = kSwapPhases[static_cast<size_t>(phase)];
  state_->families.swap
      .Add({{"phase", name}, {"source", kAdapterTierNames[static_cast<size_t>(source)]}}, SwapBuckets(name))
      .Observe(seconds);
}

void Metrics::CountSwap(bool ok) { state_->families.swaps.Add({{"outcome", ok ? "ok" : "error"}}).Increment(); }

void Metrics::CountConditioning(bool kept) {
  state_->families.conditioning_requests.Add({{"result", kept ? "hit" : "miss"}}).Increment();
}

void Metrics::SetWaiting(absl::Time oldest, double newcomer_seconds) {
  state_->families.oldest_waiting.Add({}).Set(absl::ToDoubleSeconds(oldest - absl::UnixEpoch()));
  state_->families.estimated_wait.Add({}).Set(newcomer_seconds);
}

void Metrics::SetAdapterJobs(double age_seconds, uint64_t waiting) {
  state_->families.adapter_job_age.Add({}).Set(age_seconds);
  state_->families.adapter_jobs_waiting.Add({}).Set(static_cast<double>(waiting));
}

void Metrics::CountBaseRestoreMismatch() { state_->families.restore_mismatch.Add({}).Increment(); }

}  // namespace hotlora
