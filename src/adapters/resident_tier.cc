#include "src/adapters/resident_tier.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"

namespace hotlora {

std::shared_ptr<const ResidentAdapter> ResidentTier::Use(absl::string_view name, const AdapterVersion* version) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || (version != nullptr && entry->second.adapter->version != *version)) {
    return nullptr;
  }
  order_.splice(order_.end(), order_, entry->second.place);
  return entry->second.adapter;
}

std::optional<AdapterInfo> ResidentTier::Describe(absl::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return std::nullopt;
  }
  AdapterInfo info = entry->second.adapter->info;
  info.pinned = entry->second.pinned;
  return info;
}

std::vector<const ResidentTier::Entry*> ResidentTier::Candidates(absl::string_view replacing) const {
  std::vector<const Entry*> candidates;
  for (const bool replaced : {false, true}) {
    for (const std::string& name : order_) {
      const Entry& entry = entries_.find(name)->second;
      if ((name == replacing) == replaced && IsIdle(entry)) {
        candidates.push_back(&entry);
      }
    }
  }
  return candidates;
}

absl::StatusOr<TierReservation> ResidentTier::Reserve(absl::string_view replacing, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  // Only this function takes bytes, under the mutex; others may give some back meanwhile.
  const std::vector<const Entry*> candidates = Candidates(replacing);
  std::vector<TierRange> freed;
  size_t count = 0;  // of the first candidates that make enough room together
  bool fits = ledger_->Fits(bytes, freed);
  for (; !fits && count < candidates.size(); ++count) {
    freed.push_back(candidates[count]->adapter->room.range());
    fits = ledger_->Fits(bytes, freed);
  }
  if (!fits) {
    uint64_t idle = 0;
    for (const TierRange& range : freed) {
      idle += range.bytes;
    }
    const uint64_t capacity = ledger_->capacity(), used = ledger_->bytes() - idle;
    return MakeError(
        absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET",
        absl::StrCat("adapter needs ", bytes, " bytes of ", label_ == TierLabel::kHost ? "host" : "device",
                     " memory; of ", capacity, " are ", capacity - std::min(used, capacity), " free or free to evict"));
  }
  // The last one completed the room; of those before it some may not be needed for that, the most recently used first.
  std::vector<std::string> victims;
  for (size_t i = count; i-- > 0;) {
    std::vector<TierRange> others = freed;
    others.erase(others.begin() + static_cast<ptrdiff_t>(i));
    if (ledger_->Fits(bytes, others)) {
      freed = std::move(others);
    } else {
      victims.push_back(candidates[i]->adapter->info.name);
    }
  }
  for (const std::string& name : victims) {
    Erase(name, EvictionReason::kCapacity);
  }
  return TierReservation(ledger_, *ledger_->Take(bytes));
}

void ResidentTier::Insert(std::shared_ptr<const ResidentAdapter> adapter) {
  absl::MutexLock lock(&mutex_);
  const std::string name = adapter->info.name;
  bool pinned = false;
  if (const auto old = entries_.find(name); old != entries_.end()) {
    pinned = old->second.pinned;
    Erase(name, EvictionReason::kReplaced);
  }
  pinned_bytes_ += pinned ? adapter->room.bytes() : 0;
  Entry entry{std::move(adapter), pinned, order_.insert(order_.end(), name)};
  entries_.emplace(name, std::move(entry));
  Publish();
}

void ResidentTier::Remove(absl::string_view name, EvictionReason reason) {
  absl::MutexLock lock(&mutex_);
  if (entries_.contains(name)) {
    Erase(name, reason);
  }
}

bool ResidentTier::Pin(absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return false;
  }
  if (!std::exchange(entry->second.pinned, true)) {
    pinned_bytes_ += entry->second.adapter->room.bytes();
    Publish();
  }
  return true;
}

TierStatistics ResidentTier::Statistics() const {
  absl::MutexLock lock(&mutex_);
  TierStatistics statistics;
  statistics.tier = label_ == TierLabel::kDevice ? AdapterTier::kDevice : AdapterTier::kHost;
  statistics.capacity_bytes = ledger_->capacity();
  statistics.bytes = ledger_->bytes();
  statistics.entries = entries_.size();
  statistics.evictions = evictions_;
  statistics.pinned_bytes = pinned_bytes_;
  return statistics;
}

void ResidentTier::Erase(absl::string_view name, EvictionReason reason) {
  const auto entry = entries_.find(name);
  pinned_bytes_ -= entry->second.pinned ? entry->second.adapter->room.bytes() : 0;
  order_.erase(entry->second.place);
  entries_.erase(entry);
  Publish();
  ++evictions_;
  if (metrics_ != nullptr) {
    metrics_->CountEviction(label_, reason);
  }
}

void ResidentTier::Publish() { ledger_->SetEntries(entries_.size(), pinned_bytes_); }

}  // namespace hotlora
