#include "src/base/trailing_hash.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "src/base/logging.h"
#include "src/base/named_thread.h"

namespace hotlora {
namespace {

constexpr uint64_t kPiece = uint64_t{256} << 10;  // hashed before the thread looks whether it is still wanted

}  // namespace

TrailingHash::TrailingHash(std::shared_ptr<const std::byte> bytes, uint64_t size)
    : bytes_(std::move(bytes)), size_(size) {
  if (size < kLeastForThread) {
    return;
  }
  try {
    thread_ = StartNamedThread("hash", [this] { Run(); });
  } catch (const std::system_error& error) {
    LogWarning("no thread to hash a file beside its reading: ", error.what());
  }
}

TrailingHash::~TrailingHash() {
  if (!thread_.joinable()) {
    return;
  }
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void TrailingHash::AddUpTo(uint64_t filled) {
  if (!thread_.joinable()) {
    Hash(filled);
    return;
  }
  MutexLock lock(&mu_);
  filled_ = filled;
  changed_.SignalAll();
}

std::string TrailingHash::HexDigest() const {
  MutexLock lock(&mu_);
  while (digest_.empty()) {
    changed_.Wait(&mu_);
  }
  return digest_;
}

void TrailingHash::Run() {
  while (hashed_ < size_) {
    uint64_t end;
    {
      MutexLock lock(&mu_);
      while (filled_ == hashed_ && !stopping_) {
        changed_.Wait(&mu_);
      }
      if (stopping_) {
        return;
      }
      end = std::min(filled_, hashed_ + kPiece);
    }
    Hash(end);
  }
}

void TrailingHash::Hash(uint64_t end) {
  hash_.Update(bytes_.get() + hashed_, end - hashed_);
  hashed_ = end;
  if (hashed_ == size_) {
    std::string digest = hash_.HexDigest();
    MutexLock lock(&mu_);
    digest_ = std::move(digest);
    changed_.SignalAll();
  }
}

}  // namespace hotlora
