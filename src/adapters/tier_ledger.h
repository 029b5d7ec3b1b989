#ifndef HOTLORA_SRC_ADAPTERS_TIER_LEDGER_H_
#define HOTLORA_SRC_ADAPTERS_TIER_LEDGER_H_

// The bytes of a tier: how many are taken, and where. No LibTorch here.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

struct TierRange {
  uint64_t offset = 0, bytes = 0;

  uint64_t end() const { return offset + bytes; }
};

// The free list of a storage; adjacent holes are coalesced. Not thread-safe.
class TierHoles {
 public:
  explicit TierHoles(uint64_t capacity) { Add({0, capacity}); }

  // Best fit: from the smallest hole that is large enough, the first of equal ones. Nothing if there is none. O(holes).
  std::optional<TierRange> Take(uint64_t bytes);

  // Frees the range. Returns the hole that it is in now. O(log holes).
  TierRange Add(const TierRange& range);

 private:
  std::map<uint64_t, uint64_t> sizes_;  // by offset
};

// The bytes of a tier: blocks are ranges of one storage, so a block needs a hole that is large enough. The bytes of a
// version that left the tier count as taken until the last request releases it, because its memory exists until then.
// Keeps the cache gauges up to date. Thread-safe; `metrics` outlives it.
class TierLedger {
 public:
  TierLedger(AdapterTier label, uint64_t capacity, StoreMetrics* metrics);

  uint64_t capacity() const { return capacity_; }
  uint64_t bytes() const;
  TierHoles holes() const;

  // Nothing if no hole is large enough.
  std::optional<TierRange> Take(uint64_t bytes);
  void Give(const TierRange& range);

  // How many adapters there are, and the bytes of those that are pinned.
  void SetEntries(uint64_t entries, uint64_t pinned_bytes);

 private:
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AdapterTier label_;
  const uint64_t capacity_;
  StoreMetrics* const metrics_;
  mutable Mutex mu_;  // held alone or last
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t entries_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t pinned_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  TierHoles holes_ ABSL_GUARDED_BY(mu_);
};

// A range of the tier, freed by the destructor. Movable.
class TierReservation {
 public:
  TierReservation(std::shared_ptr<TierLedger> ledger, TierRange range) : ledger_(std::move(ledger)), range_(range) {}
  TierReservation(TierReservation&& other) noexcept : ledger_(std::move(other.ledger_)), range_(other.range_) {}
  TierReservation& operator=(TierReservation&&) = delete;
  ~TierReservation() {
    if (ledger_ != nullptr) {
      ledger_->Give(range_);
    }
  }

  uint64_t bytes() const { return range_.bytes; }
  const TierRange& range() const { return range_; }

 private:
  std::shared_ptr<TierLedger> ledger_;
  TierRange range_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_TIER_LEDGER_H_
