#ifndef HOTLORA_SRC_ADAPTERS_HOST_TIER_H_
#define HOTLORA_SRC_ADAPTERS_HOST_TIER_H_

// The host tier: adapters in memory under a byte budget, least recently used first out. No LibTorch
// here.

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/metrics/metrics.h"

namespace hotlora {

struct AdapterWeights;

// The tier's bytes. A version that left the tier while requests still hold it counts until the last
// of them lets go, because its memory is there until then. Keeps the cache gauges up to date.
// Thread-safe.
class HostLedger {
 public:
  HostLedger(uint64_t capacity, Metrics* metrics);

  uint64_t capacity() const { return capacity_; }
  uint64_t bytes() const;

  void Add(uint64_t bytes);
  void Subtract(uint64_t bytes);
  void SetEntries(uint64_t entries);

 private:
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t capacity_;
  Metrics* const metrics_;
  mutable absl::Mutex mutex_;  // held alone or last
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t entries_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Bytes set aside in the tier; given back when this dies.
class HostReservation {
 public:
  HostReservation(std::shared_ptr<HostLedger> ledger, uint64_t bytes) : ledger_(std::move(ledger)), bytes_(bytes) {}
  HostReservation(HostReservation&& other) noexcept
      : ledger_(std::move(other.ledger_)), bytes_(std::exchange(other.bytes_, 0)) {}
  HostReservation& operator=(HostReservation&&) = delete;
  ~HostReservation();

  uint64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<HostLedger> ledger_;
  uint64_t bytes_;
};

// One version of one adapter in memory. Immutable; shared by the tier and everybody who uses it.
struct HostedAdapter {
  HostedAdapter(AdapterInfo info, AdapterVersion version, HostReservation room,
                std::shared_ptr<const AdapterWeights> weights)
      : info(std::move(info)), version(std::move(version)), room(std::move(room)), weights(std::move(weights)) {}

  const AdapterInfo info;
  const AdapterVersion version;
  // Before the tensors, so that they are freed before their bytes are given back.
  const HostReservation room;
  const std::shared_ptr<const AdapterWeights> weights;
};

// Thread-safe. No call waits for a file.
class HostTier {
 public:
  explicit HostTier(uint64_t capacity, Metrics* metrics)
      : metrics_(metrics), ledger_(std::make_shared<HostLedger>(capacity, metrics)) {
    ledger_->SetEntries(0);  // so that the capacity shows from the start
  }

  // The adapter, now the most recently used; nullptr where that version, or with nullptr any
  // version, is not here.
  std::shared_ptr<const HostedAdapter> Use(absl::string_view name, const AdapterVersion* version);

  // What is known of it, with `pinned` as it is now; nothing where it is not here. Holds nothing.
  std::optional<AdapterInfo> Describe(absl::string_view name) const;

  // Sets `bytes` aside, evicting what nobody uses and nobody pinned: the least recently used first,
  // `replacing` (the version of the same adapter that goes on serving until the new one is here)
  // last of all. ResourceExhausted (ADAPTER_BUDGET) where even that would not do; nothing is
  // evicted then.
  absl::StatusOr<HostReservation> Reserve(absl::string_view replacing, uint64_t bytes);

  // Puts the adapter in, in the place of its earlier version, whose pin it takes over.
  void Insert(std::shared_ptr<const HostedAdapter> adapter);

  // Nothing happens where it is not here.
  void Remove(absl::string_view name, EvictionReason reason);

  // Keeps it from being evicted until it is removed; false where it is not here.
  bool Pin(absl::string_view name);

  uint64_t bytes() const { return ledger_->bytes(); }

 private:
  struct Entry {
    std::shared_ptr<const HostedAdapter> adapter;
    bool pinned = false;
    std::list<std::string>::iterator place;  // in order_
  };

  // Nobody but the tier holds it. Exact enough: others can only get it from the tier, under its
  // mutex.
  static bool IsIdle(const Entry& entry) { return !entry.pinned && entry.adapter.use_count() == 1; }

  void Erase(absl::string_view name, EvictionReason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Metrics* const metrics_;
  const std::shared_ptr<HostLedger> ledger_;  // outlives the tier with the leases
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> order_ ABSL_GUARDED_BY(mutex_);  // least recently used first
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_HOST_TIER_H_
