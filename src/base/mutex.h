#ifndef HOTLORA_SRC_BASE_MUTEX_H_
#define HOTLORA_SRC_BASE_MUTEX_H_

// The one kind of lock. Members that it guards are marked ABSL_GUARDED_BY, functions that need it
// ABSL_EXCLUSIVE_LOCKS_REQUIRED; Clang refuses code that breaks these marks (.ci/check_thread_safety).
// docs/decisions/0004-one-kind-of-lock.md says why it is not absl::Mutex.

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace hotlora {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mu_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }

  // Does nothing. For a lambda that runs under the lock: the analysis does not see that its caller has it.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}

 private:
  friend class CondVar;
  std::mutex mu_;
};

// Holds a mutex as long as it lives.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

// A change that threads wait for. A wait releases `mu` meanwhile, and may end early, so it stands in a loop:
//
//   while (!done_ && changed_.WaitUntil(&mu_, deadline)) {
//   }
class CondVar {
 public:
  void Wait(Mutex* mu) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    changed_.wait(lock);
    lock.release();
  }

  // False once `deadline`, which is as SteadyNow or infinite, has passed.
  bool WaitUntil(Mutex* mu, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (deadline == absl::InfiniteFuture()) {
      Wait(mu);
      return true;
    }
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    const std::chrono::steady_clock::time_point end(absl::ToChronoNanoseconds(deadline - absl::UnixEpoch()));
    const std::cv_status status = changed_.wait_until(lock, end);
    lock.release();
    return status == std::cv_status::no_timeout;
  }

  void SignalAll() { changed_.notify_all(); }

 private:
  std::condition_variable changed_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_MUTEX_H_
