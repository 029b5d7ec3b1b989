#ifndef HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_
#define HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_

// A tier of adapters, or of another kind, in memory, the host's or the device's: a byte budget, least recently used
// first out. No LibTorch here.

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_lease.h"
#include "src/adapters/adapter_statistics.h"
#include "src/adapters/tier_ledger.h"
#include "src/base/mutex.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

// ResourceExhausted (the kind's reason `in_use`): worth another try once other requests have released theirs.
absl::Status InUseError(const StoredKind& kind, absl::string_view message);

// One version of one adapter in a tier. Immutable; shared by the tier and all requests that use it.
struct ResidentAdapter {
  ResidentAdapter(AdapterInfo info, AdapterVersion version, TierReservation room, HeldWeights weights)
      : info(std::move(info)), version(std::move(version)), room(std::move(room)), weights(std::move(weights)) {}

  const AdapterInfo info;
  const AdapterVersion version;
  // Before the tensors, so that they are freed before their bytes are given back.
  const TierReservation room;
  const HeldWeights weights;
};

using Resident = std::shared_ptr<const ResidentAdapter>;

// The tiers that have an adapter. It is used on the device, or from the host if the device has no storage of its own.
struct Residence {
  Resident host, device;

  const Resident& use() const { return device != nullptr ? device : host; }
};

// Use, which is all that a warm swap needs, is O(1); Reserve is O(n log n) in resident adapters. `kind` and `metrics`
// outlive the tier and all adapters that were in it.
//
// Threads  thread-safe; no call waits for a file or a copy
class ResidentTier {
 public:
  ResidentTier(const StoredKind& kind, AdapterTier label, uint64_t capacity, StoreMetrics* metrics)
      : kind_(kind),
        label_(label),
        metrics_(metrics),
        ledger_(std::make_shared<TierLedger>(label, capacity, metrics)) {}

  // The adapter, now the most recently used; nullptr if that version, or with nullptr any version, is not here.
  std::shared_ptr<const ResidentAdapter> Use(absl::string_view name, const AdapterVersion* version);

  // What is known of it, with `pinned` as it is now; nothing if it is not here. Does not count as a use.
  std::optional<AdapterInfo> Describe(absl::string_view name) const;

  // Sets `bytes` aside, evicting adapters that are neither leased nor pinned: the least recently used first, last of
  // all `replacing` (the earlier version of the same adapter, which serves until the new one is here), and none that
  // the block does not need. ResourceExhausted (ADAPTER_BUDGET) if even that is not enough; nothing is evicted then.
  absl::StatusOr<TierReservation> Reserve(absl::string_view replacing, uint64_t bytes);

  // Whether these adapters, of so many bytes together, could be in the tier at the same time, by their bytes. Moves
  // nothing. ResourceExhausted: ADAPTER_BUDGET if others that are pinned leave too little, ADAPTERS_IN_USE if others
  // that are in use do so now.
  absl::Status CheckRoom(absl::Span<const std::string> names, uint64_t bytes) const;

  // Puts the adapter in. It replaces its earlier version and takes over that one's pin.
  void Insert(std::shared_ptr<const ResidentAdapter> adapter);

  // Does nothing if it is not here.
  void Remove(absl::string_view name, EvictionReason reason);

  // Keeps it from being evicted until it is removed; false if it is not here.
  bool Pin(absl::string_view name);

  // Counts a lookup on behalf of a request. Use counts nothing, because one request may ask several times.
  void CountLookup(bool hit);

  TierStatistics Statistics() const;

  uint64_t bytes() const { return ledger_->bytes(); }
  uint64_t capacity() const { return ledger_->capacity(); }

 private:
  struct Entry {
    std::shared_ptr<const ResidentAdapter> adapter;
    bool pinned = false;
    std::list<std::string>::iterator position;  // in order_
  };

  // Whether no request holds it. Exact enough: requests can only get it from the tier, under mu_.
  static bool IsIdle(const Entry& entry) { return !entry.pinned && entry.adapter.use_count() == 1; }

  // What to evict so that there is a hole of `bytes`; nothing if no eviction makes one.
  std::optional<std::vector<const Entry*>> Victims(absl::string_view replacing, uint64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const char* TierName() const { return kAdapterTierNames[static_cast<size_t>(label_)]; }
  absl::Status BudgetError(uint64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Erase(absl::string_view name, EvictionReason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const StoredKind& kind_;
  const AdapterTier label_;
  StoreMetrics* const metrics_;
  const std::shared_ptr<TierLedger> ledger_;  // outlives the tier with the leases
  mutable Mutex mu_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::list<std::string> order_ ABSL_GUARDED_BY(mu_);  // least recently used first
  uint64_t hits_ ABSL_GUARDED_BY(mu_) = 0, misses_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t evictions_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t pinned_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_
