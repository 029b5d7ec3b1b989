#include "src/adapters/resident_tier.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/mutex.h"

namespace hotlora {

absl::Status InUseError(const StoredKind& kind, absl::string_view message) {
  return MakeError(absl::StatusCode::kResourceExhausted, kind.in_use, message);
}

std::shared_ptr<const ResidentAdapter> ResidentTier::Use(absl::string_view name, const AdapterVersion* version) {
  MutexLock lock(&mu_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || (version != nullptr && entry->second.adapter->version != *version)) {
    return nullptr;
  }
  order_.splice(order_.end(), order_, entry->second.position);
  return entry->second.adapter;
}

std::optional<AdapterInfo> ResidentTier::Describe(absl::string_view name) const {
  MutexLock lock(&mu_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return std::nullopt;
  }
  AdapterInfo info = entry->second.adapter->info;
  info.pinned = entry->second.pinned;
  return info;
}

// A block needs one hole of `bytes`, so it is not enough to evict the least recently used adapters: those that are
// evicted must also be neighbours.
//
//   1. Idle adapters are freed, in a copy of the free list, the least recently used first and `replacing` last, until a
//      hole is large enough. Only the hole that the last one joined can have become so, and only that one is looked at.
//   2. Adapters outside this hole do not help and stay. Inside it everything is free or one of the candidates, so these
//      are a row of neighbours, and any part of the row leaves one hole.
//   3. The row is shortened at its ends as long as the rest is enough. If either end may stay, the one that was used
//      more recently does.
//
// Invariant of step 3: [begin, end) holds no adapters but those from `first` to `last` of the row, and has `bytes`. It
// never loses the candidate that completed the hole, because no hole was large enough without it. (If one was, because
// a request has returned bytes since, the loop keeps the last of the row.) Takes O(n log n) in resident adapters.
std::optional<std::vector<const ResidentTier::Entry*>> ResidentTier::Victims(absl::string_view replacing,
                                                                             uint64_t bytes) const {
  TierHoles holes = ledger_->holes();
  std::vector<const Entry*> candidates;  // the least recently used first
  TierRange hole;
  const auto try_without = [&](const Entry& entry) {
    if (IsIdle(entry)) {
      candidates.push_back(&entry);
      hole = holes.Add(entry.adapter->room.range());
    }
    return hole.bytes >= bytes;
  };
  const Entry* replaced = nullptr;
  for (auto name = order_.begin(); name != order_.end() && hole.bytes < bytes; ++name) {
    const Entry& entry = entries_.find(*name)->second;
    if (*name == replacing) {
      replaced = &entry;
    } else {
      try_without(entry);
    }
  }
  if (hole.bytes < bytes && (replaced == nullptr || !try_without(*replaced))) {
    return std::nullopt;
  }
  const auto range_of = [&](size_t i) { return candidates[i]->adapter->room.range(); };
  std::vector<size_t> inside;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (range_of(i).offset >= hole.offset && range_of(i).end() <= hole.end()) {
      inside.push_back(i);
    }
  }
  std::sort(inside.begin(), inside.end(), [&](size_t a, size_t b) { return range_of(a).offset < range_of(b).offset; });
  size_t first = 0, last = inside.size() - 1;
  uint64_t begin = hole.offset, end = hole.end();
  while (first < last) {
    const bool first_may_stay = end - range_of(inside[first]).end() >= bytes;
    const bool last_may_stay = range_of(inside[last]).offset - begin >= bytes;
    if (first_may_stay && (!last_may_stay || inside[first] > inside[last])) {
      begin = range_of(inside[first++]).end();
    } else if (last_may_stay) {
      end = range_of(inside[last--]).offset;
    } else {
      break;
    }
  }
  std::vector<const Entry*> victims;
  for (size_t i = first; i <= last; ++i) {
    victims.push_back(candidates[inside[i]]);
  }
  return victims;
}

absl::Status ResidentTier::BudgetError(uint64_t bytes) const {
  uint64_t idle = 0;
  for (const auto& [name, entry] : entries_) {
    idle += IsIdle(entry) ? entry.adapter->room.bytes() : 0;
  }
  const uint64_t capacity = ledger_->capacity(), used = ledger_->bytes() - idle;
  return MakeError(absl::StatusCode::kResourceExhausted, kind_.budget,
                   absl::StrCat("needs ", bytes, " bytes of ", TierName(), " memory; of ", capacity, " are ",
                                capacity - std::min(used, capacity), " free or free to evict"));
}

absl::StatusOr<TierReservation> ResidentTier::Reserve(absl::string_view replacing, uint64_t bytes) {
  MutexLock lock(&mu_);
  // Only this function takes bytes, under mu_; others may give some back meanwhile.
  std::optional<TierRange> range = ledger_->Take(bytes);
  if (!range.has_value()) {
    const std::optional<std::vector<const Entry*>> victims = Victims(replacing, bytes);
    if (!victims.has_value()) {
      return BudgetError(bytes);
    }
    for (const Entry* const victim : *victims) {
      Erase(std::string(victim->adapter->info.name), EvictionReason::kCapacity);
    }
    range = ledger_->Take(bytes);
  }
  return TierReservation(ledger_, *range);
}

absl::Status ResidentTier::CheckRoom(absl::Span<const std::string> names, uint64_t bytes) const {
  MutexLock lock(&mu_);
  uint64_t pinned = 0, free = 0;  // by others than these; now or when it is needed
  for (const auto& [name, entry] : entries_) {
    const uint64_t block = entry.adapter->room.bytes();
    if (std::find(names.begin(), names.end(), name) != names.end() || IsIdle(entry)) {
      free += block;
    } else if (entry.pinned) {
      pinned += block;
    }
  }
  const uint64_t most = capacity() - pinned;
  if (bytes > most) {
    return MakeError(absl::StatusCode::kResourceExhausted, kind_.budget,
                     absl::StrCat(kind_.plural, " need ", bytes, " bytes together; of the ", TierName(), " tier's ",
                                  capacity(), ", ", most, " are not pinned"));
  }
  // Versions that left the tier are in use too.
  const uint64_t used = ledger_->bytes(), in_use = used - std::min(used, free + pinned);
  if (bytes <= most - std::min(most, in_use)) {
    return absl::OkStatus();
  }
  return InUseError(kind_, absl::StrCat(kind_.plural, " need ", bytes, " bytes together; other requests use ", in_use,
                                        " of the ", TierName(), " tier's ", capacity()));
}

void ResidentTier::Insert(std::shared_ptr<const ResidentAdapter> adapter) {
  MutexLock lock(&mu_);
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
  MutexLock lock(&mu_);
  if (entries_.contains(name)) {
    Erase(name, reason);
  }
}

bool ResidentTier::Pin(absl::string_view name) {
  MutexLock lock(&mu_);
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

void ResidentTier::CountLookup(bool hit) {
  metrics_->CountCacheRequest(label_, hit);
  MutexLock lock(&mu_);
  if (hit) {
    ++hits_;
  } else {
    ++misses_;
  }
}

TierStatistics ResidentTier::Statistics() const {
  MutexLock lock(&mu_);
  TierStatistics statistics;
  statistics.tier = label_;
  statistics.capacity_bytes = ledger_->capacity();
  statistics.bytes = ledger_->bytes();
  statistics.entries = entries_.size();
  statistics.hits = hits_;
  statistics.misses = misses_;
  statistics.evictions = evictions_;
  statistics.pinned_bytes = pinned_bytes_;
  return statistics;
}

void ResidentTier::Erase(absl::string_view name, EvictionReason reason) {
  const auto entry = entries_.find(name);
  pinned_bytes_ -= entry->second.pinned ? entry->second.adapter->room.bytes() : 0;
  order_.erase(entry->second.position);
  entries_.erase(entry);
  Publish();
  ++evictions_;
  metrics_->CountEviction(label_, reason);
}

void ResidentTier::Publish() { ledger_->SetEntries(entries_.size(), pinned_bytes_); }

}  // namespace hotlora
