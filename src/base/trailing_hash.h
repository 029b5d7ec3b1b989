#ifndef HOTLORA_SRC_BASE_TRAILING_HASH_H_
#define HOTLORA_SRC_BASE_TRAILING_HASH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"
#include "src/base/sha256.h"

namespace hotlora {

// The SHA-256 of memory that is being filled. A thread of its own computes it while the caller fills the memory and
// goes on to use it. If there are fewer bytes than kLeastForThread, or if no thread can be started, the caller's thread
// hashes them in AddUpTo.
//
// Threads  AddUpTo: one; HexDigest: any
class TrailingHash {
 public:
  // A thread costs some ten microseconds, as much as the hash of some ten KiB.
  static constexpr uint64_t kLeastForThread = uint64_t{512} << 10;

  // Hashes `size` bytes.
  TrailingHash(std::shared_ptr<const std::byte> bytes, uint64_t size);
  ~TrailingHash();  // gives up what is not hashed yet

  // The first `filled` bytes are there and stay as they are; at least as many as the last time.
  void AddUpTo(uint64_t filled);

  // The digest as 64 lower-case hex digits. Waits until it is computed. REQUIRES: AddUpTo was called with all bytes.
  std::string HexDigest() const;

 private:
  void Run();
  void Hash(uint64_t end);  // on the thread that hashes

  const std::shared_ptr<const std::byte> bytes_;
  const uint64_t size_;
  uint64_t hashed_ = 0;  // of the thread that hashes, as is the next
  Sha256 hash_;

  mutable Mutex mu_;
  mutable CondVar changed_;
  uint64_t filled_ ABSL_GUARDED_BY(mu_) = 0;
  std::string digest_ ABSL_GUARDED_BY(mu_);  // empty: not known yet
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_TRAILING_HASH_H_
