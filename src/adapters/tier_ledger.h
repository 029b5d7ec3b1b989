#ifndef HOTLORA_SRC_ADAPTERS_TIER_LEDGER_H_
#define HOTLORA_SRC_ADAPTERS_TIER_LEDGER_H_

// The bytes of a tier: how many are taken, and where. No LibTorch here.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "src/metrics/metrics.h"

namespace hotlora {

enum class TierPlacement {
  kAnywhere,   // each block is an allocation of its own: bytes are counted
  kContiguous  // blocks are ranges of one storage: a block needs a hole that is large enough
};

struct TierRange {
  uint64_t offset = 0, bytes = 0;
};

// A version that left the tier while requests still hold it counts until the last of them lets go, because its memory
// is there until then. Keeps the cache gauges up to date. Thread-safe.
class TierLedger {
 public:
  TierLedger(TierLabel label, uint64_t capacity, TierPlacement placement, Metrics* metrics);

  uint64_t capacity() const { return capacity_; }
  uint64_t bytes() const;

  // Whether Take(bytes) would do if `freed` were given back first.
  bool Fits(uint64_t bytes, absl::Span<const TierRange> freed) const;

  // Nothing where there is no room. Takes the smallest hole that will do.
  std::optional<TierRange> Take(uint64_t bytes);
  void Give(const TierRange& range);

  // How many adapters there are, and the bytes of those that are pinned.
  void SetEntries(uint64_t entries, uint64_t pinned_bytes);

 private:
  using Holes = std::map<uint64_t, uint64_t>;  // size by offset; neighbours are joined

  static void AddHole(Holes& holes, const TierRange& range);
  static Holes::const_iterator SmallestThatFits(const Holes& holes, uint64_t bytes);
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TierLabel label_;
  const uint64_t capacity_;
  const TierPlacement placement_;
  Metrics* const metrics_;
  mutable absl::Mutex mutex_;  // held alone or last
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t entries_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t pinned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Holes holes_ ABSL_GUARDED_BY(mutex_);  // kContiguous only
};

// A range of the tier; given back when this dies. Movable.
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
