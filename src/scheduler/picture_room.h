#ifndef HOTLORA_SRC_SCHEDULER_PICTURE_ROOM_H_
#define HOTLORA_SRC_SCHEDULER_PICTURE_ROOM_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"

namespace hotlora {

// Bounds the host memory of pictures that are decoded and wait. Thread-safe. Held by shared_ptr alone.
class PictureRoom : public std::enable_shared_from_this<PictureRoom> {
 public:
  explicit PictureRoom(int64_t bytes) : bytes_(bytes) {}

  // Waits until so many bytes fit beside those that are taken, or none are taken. They are free again when the result
  // is destroyed; null if `bytes` is 0, for which it never waits.
  std::shared_ptr<const void> Take(int64_t bytes);

  int64_t taken() const;

 private:
  const int64_t bytes_;
  mutable Mutex mu_;
  CondVar changed_;
  int64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_PICTURE_ROOM_H_
