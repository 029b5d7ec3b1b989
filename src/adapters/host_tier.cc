#include "src/adapters/host_tier.h"

#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"

namespace hotlora {

HostLedger::HostLedger(uint64_t capacity, Metrics* metrics) : capacity_(capacity), metrics_(metrics) {
  absl::MutexLock lock(&mutex_);
  Publish();  // the capacity is known before anything is held
}

uint64_t HostLedger::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

void HostLedger::Add(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  bytes_ += bytes;
  Publish();
}

void HostLedger::Subtract(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  bytes_ -= bytes;
  Publish();
}

void HostLedger::SetEntries(uint64_t entries) {
  absl::MutexLock lock(&mutex_);
  entries_ = entries;
  Publish();
}

void HostLedger::Publish() {
  if (metrics_ != nullptr) {
    metrics_->SetCache(TierLabel::kHost, bytes_, capacity_, entries_);
  }
}

HostReservation::~HostReservation() {
  if (ledger_ != nullptr && bytes_ > 0) {
    ledger_->Subtract(bytes_);
  }
}

std::shared_ptr<const HostedAdapter> HostTier::Use(absl::string_view name, const AdapterVersion* version) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || (version != nullptr && entry->second.adapter->version != *version)) {
    return nullptr;
  }
  order_.splice(order_.end(), order_, entry->second.place);
  return entry->second.adapter;
}

std::optional<AdapterInfo> HostTier::Describe(absl::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return std::nullopt;
  }
  AdapterInfo info = entry->second.adapter->info;
  info.pinned = entry->second.pinned;
  return info;
}

absl::StatusOr<HostReservation> HostTier::Reserve(absl::string_view replacing, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  const uint64_t capacity = ledger_->capacity();
  // Only this function adds bytes, under the mutex; others may give some back meanwhile, never more
  // than asked here.
  const uint64_t used = ledger_->bytes();
  uint64_t room = used < capacity ? capacity - used : 0;
  std::vector<std::string> victims;
  const auto choose = [&](bool replaced) {
    for (auto name = order_.begin(); name != order_.end() && room < bytes; ++name) {
      const Entry& entry = entries_.find(*name)->second;
      if ((*name == replacing) == replaced && IsIdle(entry)) {
        victims.push_back(*name);
        room += entry.adapter->room.bytes();
      }
    }
  };
  choose(/*replaced=*/false);
  choose(/*replaced=*/true);
  if (room < bytes) {
    return MakeError(absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET",
                     absl::StrCat("adapter needs ", bytes, " bytes of host memory; of ", capacity, " are ", room,
                                  " free or free to evict"));
  }
  for (const std::string& name : victims) {
    Erase(name, EvictionReason::kCapacity);
  }
  ledger_->Add(bytes);
  return HostReservation(ledger_, bytes);
}

void HostTier::Insert(std::shared_ptr<const HostedAdapter> adapter) {
  absl::MutexLock lock(&mutex_);
  const std::string name = adapter->info.name;
  bool pinned = false;
  if (const auto old = entries_.find(name); old != entries_.end()) {
    pinned = old->second.pinned;
    Erase(name, EvictionReason::kReplaced);
  }
  Entry entry{std::move(adapter), pinned, order_.insert(order_.end(), name)};
  entries_.emplace(name, std::move(entry));
  ledger_->SetEntries(entries_.size());
}

void HostTier::Remove(absl::string_view name, EvictionReason reason) {
  absl::MutexLock lock(&mutex_);
  if (entries_.contains(name)) {
    Erase(name, reason);
  }
}

bool HostTier::Pin(absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return false;
  }
  entry->second.pinned = true;
  return true;
}

void HostTier::Erase(absl::string_view name, EvictionReason reason) {
  const auto entry = entries_.find(name);
  order_.erase(entry->second.place);
  entries_.erase(entry);
  ledger_->SetEntries(entries_.size());
  if (metrics_ != nullptr) {
    metrics_->CountEviction(TierLabel::kHost, reason);
  }
}

}  // namespace hotlora
