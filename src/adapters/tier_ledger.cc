#include "src/adapters/tier_ledger.h"

#include <iterator>

namespace hotlora {

TierLedger::TierLedger(TierLabel label, uint64_t capacity, TierPlacement placement, Metrics* metrics)
    : label_(label), capacity_(capacity), placement_(placement), metrics_(metrics) {
  absl::MutexLock lock(&mutex_);
  if (placement_ == TierPlacement::kContiguous && capacity_ > 0) {
    holes_[0] = capacity_;
  }
  Publish();  // the capacity is known before anything is held
}

uint64_t TierLedger::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

bool TierLedger::Fits(uint64_t bytes, absl::Span<const TierRange> freed) const {
  absl::MutexLock lock(&mutex_);
  uint64_t taken = bytes_;
  Holes holes = holes_;
  for (const TierRange& range : freed) {
    taken -= range.bytes;
    AddHole(holes, range);
  }
  return taken <= capacity_ && bytes <= capacity_ - taken &&
         (placement_ == TierPlacement::kAnywhere || bytes == 0 || SmallestThatFits(holes, bytes) != holes.end());
}

std::optional<TierRange> TierLedger::Take(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  if (bytes_ > capacity_ || bytes > capacity_ - bytes_) {
    return std::nullopt;
  }
  TierRange range{0, bytes};
  if (placement_ == TierPlacement::kContiguous && bytes > 0) {
    const auto hole = SmallestThatFits(holes_, bytes);
    if (hole == holes_.end()) {
      return std::nullopt;
    }
    const auto [offset, size] = *hole;
    range.offset = offset;
    holes_.erase(hole);
    if (size > bytes) {
      holes_[offset + bytes] = size - bytes;
    }
  }
  bytes_ += bytes;
  Publish();
  return range;
}

void TierLedger::Give(const TierRange& range) {
  absl::MutexLock lock(&mutex_);
  bytes_ -= range.bytes;
  if (placement_ == TierPlacement::kContiguous) {
    AddHole(holes_, range);
  }
  Publish();
}

void TierLedger::SetEntries(uint64_t entries, uint64_t pinned_bytes) {
  absl::MutexLock lock(&mutex_);
  entries_ = entries;
  pinned_bytes_ = pinned_bytes;
  Publish();
}

void TierLedger::AddHole(Holes& holes, const TierRange& range) {
  if (range.bytes == 0) {
    return;
  }
  auto hole = holes.emplace(range.offset, range.bytes).first;
  if (const auto next = std::next(hole); next != holes.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    holes.erase(next);
  }
  if (hole != holes.begin()) {
    if (const auto before = std::prev(hole); before->first + before->second == hole->first) {
      before->second += hole->second;
      holes.erase(hole);
    }
  }
}

TierLedger::Holes::const_iterator TierLedger::SmallestThatFits(const Holes& holes, uint64_t bytes) {
  auto best = holes.end();
  for (auto hole = holes.begin(); hole != holes.end(); ++hole) {
    if (hole->second >= bytes && (best == holes.end() || hole->second < best->second)) {
      best = hole;
    }
  }
  return best;
}

void TierLedger::Publish() {
  if (metrics_ != nullptr) {
    metrics_->SetCache(label_, {bytes_, capacity_, pinned_bytes_, entries_});
  }
}

}  // namespace hotlora
