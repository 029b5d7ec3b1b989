#include "src/metrics/store_metrics.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "src/base/enum_size.h"
#include "src/metrics/labels.h"

namespace hotlora {
namespace {

constexpr const char* kEvictionReasons[] = {"capacity", "explicit", "replaced"};
static_assert(std::size(kEvictionReasons) == kEnumSize<EvictionReason>);
constexpr const char* kOtherReason = "other";

const char* TierLabel(AdapterTier tier) { return kAdapterTierNames[static_cast<size_t>(tier)]; }

}  // namespace

struct StoreMetrics::Families {
  Families(prometheus::Registry& registry, const std::string& prefix, const std::string& plural);

  CounterFamily& cache_requests;
  CounterFamily& evictions;
  GaugeFamily& cache_bytes;
  GaugeFamily& cache_capacity;
  GaugeFamily& cache_pinned;
  GaugeFamily& cache_entries;
  GaugeFamily& refs;
  CounterFamily& loads;
  CounterFamily& bytes_loaded;
};

StoreMetrics::Families::Families(prometheus::Registry& r, const std::string& prefix, const std::string& plural)
    : cache_requests(AddCounter(r, absl::StrCat("hotlora_", prefix, "_cache_requests_total"),
                                absl::StrCat("Look-ups of ", plural, " in a tier"))),
      evictions(AddCounter(r, absl::StrCat("hotlora_", prefix, "_cache_evictions_total"),
                           absl::StrCat("Times that one of the ", plural, " left a tier, and why"))),
      cache_bytes(AddGauge(r, absl::StrCat("hotlora_", prefix, "_cache_bytes"),
                           absl::StrCat("Bytes of ", plural, " in a tier"))),
      cache_capacity(AddGauge(r, absl::StrCat("hotlora_", prefix, "_cache_capacity_bytes"),
                              absl::StrCat("Byte budget of a tier of ", plural))),
      cache_pinned(AddGauge(r, absl::StrCat("hotlora_", prefix, "_cache_pinned_bytes"),
                            absl::StrCat("Bytes of ", plural, " that a tier never evicts"))),
      cache_entries(AddGauge(r, absl::StrCat("hotlora_", prefix, "_cache_entries"),
                             absl::StrCat("Number of ", plural, " in a tier"))),
      refs(AddGauge(r, absl::StrCat("hotlora_", prefix, "_refs"),
                    absl::StrCat("Leases on ", plural, " held by running requests"))),
      loads(AddCounter(r, absl::StrCat("hotlora_", prefix, "_loads_total"),
                       absl::StrCat("Files of ", plural, " read, and why those that failed did"))),
      bytes_loaded(AddCounter(r, absl::StrCat("hotlora_", prefix, "_bytes_loaded_total"),
                              absl::StrCat("Bytes of ", plural, " read, by where from"))) {
  for (const char* tier : kAdapterTierNames) {
    for (const char* result : {"hit", "miss"}) {
      cache_requests.Add({{"tier", tier}, {"result", result}});
    }
  }
  // A file is never evicted from the disk.
  for (const AdapterTier tier : {AdapterTier::kHost, AdapterTier::kDevice}) {
    const prometheus::Labels labels = {{"tier", TierLabel(tier)}};
    for (const char* reason : kEvictionReasons) {
      evictions.Add({{"tier", TierLabel(tier)}, {"reason", reason}});
    }
    for (GaugeFamily* const family : {&cache_bytes, &cache_capacity, &cache_pinned, &cache_entries}) {
      family->Add(labels);
    }
  }
  refs.Add({});
  for (const AdapterTier source : {AdapterTier::kDisk, AdapterTier::kHost}) {
    bytes_loaded.Add({{"source", TierLabel(source)}});
  }
}

StoreMetrics::StoreMetrics(prometheus::Registry& registry, const std::string& prefix, const std::string& plural,
                           std::vector<std::string> load_reasons)
    : families_(std::make_unique<Families>(registry, prefix, plural)), load_reasons_(std::move(load_reasons)) {
  families_->loads.Add({{"outcome", "ok"}, {"reason", "none"}});
  for (const std::string& reason : load_reasons_) {
    families_->loads.Add({{"outcome", "error"}, {"reason", absl::AsciiStrToLower(reason)}});
  }
  families_->loads.Add({{"outcome", "error"}, {"reason", kOtherReason}});
}

StoreMetrics::~StoreMetrics() = default;

void StoreMetrics::CountCacheRequest(AdapterTier tier, bool hit) {
  families_->cache_requests.Add({{"tier", TierLabel(tier)}, {"result", hit ? "hit" : "miss"}}).Increment();
}

void StoreMetrics::CountEviction(AdapterTier tier, EvictionReason reason) {
  families_->evictions.Add({{"tier", TierLabel(tier)}, {"reason", kEvictionReasons[static_cast<size_t>(reason)]}})
      .Increment();
}

void StoreMetrics::SetCache(AdapterTier tier, const TierFill& fill) {
  const prometheus::Labels labels = {{"tier", TierLabel(tier)}};
  families_->cache_bytes.Add(labels).Set(static_cast<double>(fill.bytes));
  families_->cache_capacity.Add(labels).Set(static_cast<double>(fill.capacity_bytes));
  families_->cache_pinned.Add(labels).Set(static_cast<double>(fill.pinned_bytes));
  families_->cache_entries.Add(labels).Set(static_cast<double>(fill.entries));
}

void StoreMetrics::AddRefs(int change) { families_->refs.Add({}).Increment(change); }

void StoreMetrics::CountLoad(absl::string_view reason, uint64_t bytes) {
  if (reason.empty()) {
    families_->loads.Add({{"outcome", "ok"}, {"reason", "none"}}).Increment();
    families_->bytes_loaded.Add({{"source", TierLabel(AdapterTier::kDisk)}}).Increment(static_cast<double>(bytes));
    return;
  }
  const bool known = std::find(load_reasons_.begin(), load_reasons_.end(), reason) != load_reasons_.end();
  families_->loads.Add({{"outcome", "error"}, {"reason", known ? absl::AsciiStrToLower(reason) : kOtherReason}})
      .Increment();
}

void StoreMetrics::CountRaisedBytes(uint64_t bytes) {
  families_->bytes_loaded.Add({{"source", TierLabel(AdapterTier::kHost)}}).Increment(static_cast<double>(bytes));
}

}  // namespace hotlora
