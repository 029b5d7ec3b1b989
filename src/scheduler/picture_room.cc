#include "src/scheduler/picture_room.h"

namespace hotlora {

std::shared_ptr<const void> PictureRoom::Take(int64_t bytes) {
  if (bytes == 0) {
    return nullptr;
  }
  {
    MutexLock lock(&mu_);
    while (taken_ > 0 && taken_ + bytes > bytes_) {
      changed_.Wait(&mu_);
    }
    taken_ += bytes;
  }
  return std::shared_ptr<const void>(this, [room = shared_from_this(), bytes](const void*) {
    MutexLock lock(&room->mu_);
    room->taken_ -= bytes;
    room->changed_.SignalAll();
  });
}

int64_t PictureRoom::taken() const {
  MutexLock lock(&mu_);
  return taken_;
}

}  // namespace hotlora
