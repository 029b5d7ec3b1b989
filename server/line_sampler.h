#ifndef HOTLORA_SERVER_LINE_SAMPLER_H_
#define HOTLORA_SERVER_LINE_SAMPLER_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"

namespace hotlora {

// Which of many lines of one kind are logged: at most so many in each period. Thread-safe.
class LineSampler {
 public:
  static constexpr int kPerSecond = 10;

  explicit LineSampler(int most = kPerSecond, absl::Duration period = absl::Seconds(1))
      : most_(most), period_(period) {}

  // Nullopt if the line that comes at `now` is left out, else how many were left out since the last one that was not.
  std::optional<uint64_t> Take(absl::Time now) {
    MutexLock lock(&mu_);
    if (now >= begin_ + period_ || now < begin_) {  // a clock may be set back
      begin_ = now;
      taken_ = 0;
    }
    if (taken_ >= most_) {
      ++left_out_;
      return std::nullopt;
    }
    ++taken_;
    const uint64_t before = left_out_;
    left_out_ = 0;
    return before;
  }

 private:
  const int most_;
  const absl::Duration period_;
  Mutex mu_;
  absl::Time begin_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // of the period
  int taken_ ABSL_GUARDED_BY(mu_) = 0;                            // in it
  uint64_t left_out_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_LINE_SAMPLER_H_
