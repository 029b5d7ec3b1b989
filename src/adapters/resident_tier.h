#ifndef HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_
#define HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_

// A tier of adapters in memory, the host's or the device's: a byte budget, least recently used first out. No LibTorch
// here.

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
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_statistics.h"
#include "src/adapters/tier_ledger.h"
#include "src/metrics/metrics.h"

namespace hotlora {

struct AdapterWeights;

// ResourceExhausted (ADAPTERS_IN_USE): worth another try once others have let go of their adapters.
absl::Status InUseError(absl::string_view message);

// One version of one adapter in a tier. Immutable; shared by the tier and all requests that use it.
struct ResidentAdapter {
  ResidentAdapter(AdapterInfo info, AdapterVersion version, TierReservation room,
                  std::shared_ptr<const AdapterWeights> weights)
      : info(std::move(info)), version(std::move(version)), room(std::move(room)), weights(std::move(weights)) {}

  const AdapterInfo info;
  const AdapterVersion version;
  // Before the tensors, so that they are freed before their bytes are given back.
  const TierReservation room;
  const std::shared_ptr<const AdapterWeights> weights;
};

// What takes bytes or makes them free takes longer the more is resident; Use, which a warm swap is, does not.
// Thread-safe. No call waits for a file or a copy.
class ResidentTier {
 public:
  ResidentTier(AdapterTier label, uint64_t capacity, Metrics* metrics)
      : label_(label), metrics_(metrics), ledger_(std::make_shared<TierLedger>(label, capacity, metrics)) {}

  // The adapter, now the most recently used; nullptr if that version, or with nullptr any version, is not here.
  std::shared_ptr<const ResidentAdapter> Use(absl::string_view name, const AdapterVersion* version);

  // What is known of it, with `pinned` as it is now; nothing if it is not here. Holds nothing.
  std::optional<AdapterInfo> Describe(absl::string_view name) const;

  // Sets `bytes` aside, evicting adapters that are neither leased nor pinned: the least recently used first, `replacing` (the
  // version of the same adapter that goes on serving until the new one is here) last of all, and none whose going does
  // not help. ResourceExhausted (ADAPTER_BUDGET) if even that would not do; nothing is evicted then.
  absl::StatusOr<TierReservation> Reserve(absl::string_view replacing, uint64_t bytes);

  // Whether these adapters, of so many bytes together, could be in the tier at the same time, by their bytes. Moves
  // nothing. ResourceExhausted: ADAPTER_BUDGET where others that are pinned leave too little, ADAPTERS_IN_USE where
  // others that are in use do so now.
  absl::Status CheckRoom(absl::Span<const std::string> names, uint64_t bytes) const;

  // Puts the adapter in, in the place of its earlier version, whose pin it takes over.
  void Insert(std::shared_ptr<const ResidentAdapter> adapter);

  // Nothing happens where it is not here.
  void Remove(absl::string_view name, EvictionReason reason);

  // Keeps it from being evicted until it is removed; false if it is not here.
  bool Pin(absl::string_view name);

  // All but hits and misses, which are the store's to count.
  TierStatistics Statistics() const;

  uint64_t bytes() const { return ledger_->bytes(); }
  uint64_t capacity() const { return ledger_->capacity(); }

 private:
  struct Entry {
    std::shared_ptr<const ResidentAdapter> adapter;
    bool pinned = false;
    std::list<std::string>::iterator place;  // in order_
  };

  // Only the tier holds it. Exact enough: others can only get it from the tier, under its mutex.
  static bool IsIdle(const Entry& entry) { return !entry.pinned && entry.adapter.use_count() == 1; }

  // What to evict so that a hole of `bytes` comes to be; nothing if no eviction can do that.
  std::optional<std::vector<const Entry*>> Victims(absl::string_view replacing, uint64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  const char* TierName() const { return kAdapterTierNames[static_cast<size_t>(label_)]; }
  absl::Status BudgetError(uint64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Erase(absl::string_view name, EvictionReason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const AdapterTier label_;
  Metrics* const metrics_;
  const std::shared_ptr<TierLedger> ledger_;  // outlives the tier with the leases
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> order_ ABSL_GUARDED_BY(mutex_);  // least recently used first
  uint64_t evictions_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t pinned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_RESIDENT_TIER_H_
