#ifndef HOTLORA_SERVER_CALLER_LIMITER_H_
#define HOTLORA_SERVER_CALLER_LIMITER_H_

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"

namespace hotlora {

// Limits work of one kind that runs at a time: at most `most` in all, and `most_of_one` of one caller. Thread-safe.
class CallerLimiter {
 public:
  CallerLimiter(int most, int most_of_one) : most_(most), most_of_one_(most_of_one) {}

  // Counts as work under way until it is destroyed. It must not outlive the limiter.
  class Permit {
   public:
    Permit(CallerLimiter* limiter, std::string caller) : limiter_(limiter), caller_(std::move(caller)) {}
    ~Permit() { limiter_->Release(caller_); }
    Permit(const Permit&) = delete;
    Permit& operator=(const Permit&) = delete;

   private:
    CallerLimiter* const limiter_;
    const std::string caller_;
  };

  int most() const { return most_; }
  int most_of_one() const { return most_of_one_; }

  // Null if as much as may be is under way, in all or of the caller.
  std::unique_ptr<Permit> TryAcquire(const std::string& caller) {
    MutexLock lock(&mu_);
    const auto own = permits_of_.try_emplace(caller, 0).first;
    if (permits_ >= most_ || own->second >= most_of_one_) {
      if (own->second == 0) {
        permits_of_.erase(own);
      }
      return nullptr;
    }
    ++own->second;
    ++permits_;
    return std::make_unique<Permit>(this, caller);
  }

 private:
  void Release(const std::string& caller) {
    MutexLock lock(&mu_);
    --permits_;
    const auto own = permits_of_.find(caller);
    if (--own->second == 0) {
      permits_of_.erase(own);
    }
  }

  const int most_;
  const int most_of_one_;
  Mutex mu_;
  int permits_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, int> permits_of_ ABSL_GUARDED_BY(mu_);  // callers without a permit are not in it
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CALLER_LIMITER_H_
