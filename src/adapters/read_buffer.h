#ifndef HOTLORA_SRC_ADAPTERS_READ_BUFFER_H_
#define HOTLORA_SRC_ADAPTERS_READ_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"

namespace hotlora {

// Memory for files that are read one after the other. It is kept, because pages that are touched for the first time
// cost more than the reading: 5 of 12 ms for 11 MiB. Thread-safe; what is lent may outlive it.
class ReadBuffer {
 public:
  // What is larger is not kept.
  static constexpr uint64_t kMostKept = uint64_t{256} << 20;

  // Room for so many bytes, aligned for every number: the kept buffer, if it is free.
  std::shared_ptr<std::byte> Take(uint64_t bytes) {
    MutexLock lock(&kept_->mu);
    if (kept_->lent || bytes > kMostKept) {
      return {new std::byte[bytes], std::default_delete<std::byte[]>()};
    }
    if (kept_->size < bytes) {
      kept_->bytes = nullptr;
      kept_->size = 0;
      kept_->bytes.reset(new std::byte[bytes]);
      kept_->size = bytes;
    }
    kept_->lent = true;
    return {kept_->bytes.get(), [kept = kept_](std::byte*) {
              MutexLock return_lock(&kept->mu);
              kept->lent = false;
            }};
  }

 private:
  struct Kept {
    Mutex mu;
    std::unique_ptr<std::byte[]> bytes ABSL_GUARDED_BY(mu);
    uint64_t size ABSL_GUARDED_BY(mu) = 0;
    bool lent ABSL_GUARDED_BY(mu) = false;
  };

  const std::shared_ptr<Kept> kept_ = std::make_shared<Kept>();
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_READ_BUFFER_H_
