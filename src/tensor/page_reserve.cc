#include "src/tensor/page_reserve.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace hotlora {
namespace {

// At a time, so that the end of this object need not be waited for.
constexpr int64_t kPiece = int64_t{4} << 20;

// Leaves what is there as it is, also if others write to it now. False if the kernel cannot.
bool BringIn(char* begin, int64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;  // whole pages of the area
  const uintptr_t end = (reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes)) / page * page;
  return end <= first || madvise(reinterpret_cast<void*>(first), end - first, MADV_POPULATE_WRITE) == 0;
#else
  return false;
#endif
}

}  // namespace

PageReserve::PageReserve(const std::vector<Area>& areas) {
  for (const Area& area : areas) {
    states_.push_back({area, 0, std::min(kLeastAhead, area.bytes)});
  }
  thread_ = std::thread([this] { Run(); });
}

PageReserve::~PageReserve() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  changed_.SignalAll();
  thread_.join();
}

void PageReserve::Use(size_t area, int64_t offset, int64_t bytes) {
  const int64_t ahead = std::max(kLeastAhead, 2 * bytes);
  {
    MutexLock lock(&mu_);
    State& state = states_[area];
    const int64_t wanted = std::min(offset + bytes + ahead, state.area.bytes);
    if (wanted <= state.wanted) {
      return;
    }
    state.wanted = wanted;
  }
  changed_.SignalAll();
}

PageReserve::Area PageReserve::AwaitPiece() {
  MutexLock lock(&mu_);
  while (!stopping_) {
    const auto next =
        std::find_if(states_.begin(), states_.end(), [](const State& state) { return state.brought < state.wanted; });
    if (next != states_.end()) {
      const Area piece{next->area.begin + next->brought, std::min(kPiece, next->wanted - next->brought)};
      next->brought += piece.bytes;
      return piece;
    }
    changed_.Wait(&mu_);
  }
  return {nullptr, 0};
}

void PageReserve::Run() {
  for (Area piece = AwaitPiece(); piece.bytes > 0; piece = AwaitPiece()) {
    if (!BringIn(piece.begin, piece.bytes)) {
      return;
    }
  }
}

}  // namespace hotlora
