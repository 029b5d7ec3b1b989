#ifndef HOTLORA_SERVER_GUESS_DELAY_H_
#define HOTLORA_SERVER_GUESS_DELAY_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include <grpcpp/support/status.h>

#include "server/caller_limiter.h"
#include "server/caller_table.h"
#include "src/base/mutex.h"

namespace hotlora {

struct GuessLimits {
  int free_guesses = 10;  // calls without a good token that a peer may make within `period` and be answered at once
  absl::Duration period = absl::Minutes(1);
  absl::Duration delay = absl::Seconds(1);  // of the answer to each further one
  int late_answers = 256;                   // that wait at one time, beyond which calls are answered at once,
  int late_answers_of_one = 32;             // and of one peer
  size_t peers = 10'000;                    // that are told apart within a period; all others count as one peer
};

// Makes guessing tokens slow: answers that refuse a peer which has guessed often are late. It looks at refused calls
// only: a call with a good token is never late. Thread-safe.
class GuessDelay {
 public:
  explicit GuessDelay(const GuessLimits& limits)
      : limits_(limits),
        late_answers_(limits.late_answers, limits.late_answers_of_one),
        before_(limits.peers),
        now_(limits.peers) {}

  // Notes that a call of `peer` had no good token. Whether it was one too many: more than `free_guesses` in this period
  // and the one before.
  bool Note(const std::string& peer, absl::Time now);

  // Runs `answer` after the delay, on a thread of gRPC's, if there are not too many late answers already; else here and
  // now.
  void AnswerLate(const std::string& peer, std::function<void()> answer);

 private:
  const GuessLimits limits_;
  CallerLimiter late_answers_;
  Mutex mu_;
  absl::Time period_end_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  CallerTable<int> before_ ABSL_GUARDED_BY(mu_);  // guesses in the period before this one
  CallerTable<int> now_ ABSL_GUARDED_BY(mu_);     // guesses in this period
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_GUESS_DELAY_H_
