#ifndef HOTLORA_SRC_SCHEDULER_WORK_WATCH_H_
#define HOTLORA_SRC_SCHEDULER_WORK_WATCH_H_

// Is work on the device stuck? Work is stuck once it has taken far longer than work of the same kind and shape usually
// takes: the median of its last kDurations durations. The first steps of the warm-up count too, so the server knows
// that figure for the size that it warms up at before it serves.

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"
#include "src/scheduler/stuck_work.h"

namespace hotlora {

// Thread-safe. Time in which the process stood still (stopped, or its machine paused) does not count.
class WorkWatch {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;
  static constexpr size_t kDurations = 9;
  static constexpr size_t kShapes = 64;  // of all kinds; the least recently used shape beyond them is forgotten

  explicit WorkWatch(WorkLimits limits = {}, Clock clock = &std::chrono::steady_clock::now);

  // Work under way, until this object ends.
  class Mark {
   public:
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;
    ~Mark();

    // There was nothing to do, or it failed: the duration tells nothing of such work.
    void DoNotCount() { counts_ = false; }

   private:
    friend class WorkWatch;
    Mark(WorkWatch* watch, const Work& work);

    WorkWatch* const watch_;
    const Work work_;
    absl::Duration begin_;                    // in the watch's time
    std::list<const Mark*>::iterator entry_;  // in marks_
    bool counts_ = true;
  };
  [[nodiscard]] Mark Begin(const Work& work) { return Mark(this, work); }

  // What is stuck now. Call it every second or so.
  std::vector<StuckWork> Check();

 private:
  struct History {
    Work work;
    std::deque<absl::Duration> last;
  };

  absl::Duration Now() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<absl::Duration> Usual(const Work& work) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Note(const Work& work, absl::Duration duration) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const WorkLimits limits_;
  const Clock clock_;
  const std::chrono::steady_clock::time_point start_;

  mutable Mutex mu_;
  absl::Duration stood_still_ ABSL_GUARDED_BY(mu_);
  absl::Duration last_check_ ABSL_GUARDED_BY(mu_);
  std::list<const Mark*> marks_ ABSL_GUARDED_BY(mu_);
  std::list<History> histories_ ABSL_GUARDED_BY(mu_);  // most recently used first
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_WORK_WATCH_H_
