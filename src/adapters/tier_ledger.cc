#include "src/adapters/tier_ledger.h"

#include <iterator>

#include "src/base/mutex.h"

namespace hotlora {

std::optional<TierRange> TierHoles::Take(uint64_t bytes) {
  if (bytes == 0) {
    return TierRange{};
  }
  auto best = sizes_.end();
  for (auto hole = sizes_.begin(); hole != sizes_.end(); ++hole) {
    if (hole->second >= bytes && (best == sizes_.end() || hole->second < best->second)) {
      best = hole;
    }
  }
  if (best == sizes_.end()) {
    return std::nullopt;
  }
  const auto [offset, size] = *best;
  sizes_.erase(best);
  if (size > bytes) {
    sizes_[offset + bytes] = size - bytes;
  }
  return TierRange{offset, bytes};
}

TierRange TierHoles::Add(const TierRange& range) {
  if (range.bytes == 0) {
    return range;
  }
  auto hole = sizes_.emplace(range.offset, range.bytes).first;
  if (const auto next = std::next(hole); next != sizes_.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    sizes_.erase(next);
  }
  if (hole != sizes_.begin()) {
    if (const auto before = std::prev(hole); before->first + before->second == hole->first) {
      before->second += hole->second;
      sizes_.erase(hole);
      hole = before;
    }
  }
  return {hole->first, hole->second};
}

TierLedger::TierLedger(AdapterTier label, uint64_t capacity, StoreMetrics* metrics)
    : label_(label), capacity_(capacity), metrics_(metrics), holes_(capacity) {
  MutexLock lock(&mu_);
  Publish();  // the capacity is known before anything is held
}

uint64_t TierLedger::bytes() const {
  MutexLock lock(&mu_);
  return bytes_;
}

TierHoles TierLedger::holes() const {
  MutexLock lock(&mu_);
  return holes_;
}

std::optional<TierRange> TierLedger::Take(uint64_t bytes) {
  MutexLock lock(&mu_);
  const std::optional<TierRange> range = holes_.Take(bytes);
  if (range.has_value()) {
    bytes_ += bytes;
    Publish();
  }
  return range;
}

void TierLedger::Give(const TierRange& range) {
  MutexLock lock(&mu_);
  bytes_ -= range.bytes;
  holes_.Add(range);
  Publish();
}

void TierLedger::SetEntries(uint64_t entries, uint64_t pinned_bytes) {
  MutexLock lock(&mu_);
  entries_ = entries;
  pinned_bytes_ = pinned_bytes;
  Publish();
}

void TierLedger::Publish() { metrics_->SetCache(label_, {bytes_, capacity_, pinned_bytes_, entries_}); }

}  // namespace hotlora
