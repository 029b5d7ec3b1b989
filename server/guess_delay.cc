#include "server/guess_delay.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <grpcpp/alarm.h>

#include "server/alarm_time.h"

namespace hotlora {

bool GuessDelay::Note(const std::string& peer, absl::Time now) {
  MutexLock lock(&mu_);
  if (now >= period_end_ || now < period_end_ - limits_.period) {  // a clock may be set back
    before_.Clear();
    if (now < period_end_ + limits_.period) {
      std::swap(before_, now_);
    }
    now_.Clear();
    period_end_ = now + limits_.period;
  }
  int& count = now_.Of(peer);
  count = std::min(count + 1, limits_.free_guesses + 1);
  const int* const earlier = before_.Find(peer);
  return count + (earlier == nullptr ? 0 : *earlier) > limits_.free_guesses;
}

void GuessDelay::AnswerLate(const std::string& peer, std::function<void()> answer) {
  struct Late {
    std::function<void()> answer;
    std::unique_ptr<CallerLimiter::Permit> permit;
    Mutex mu;
    std::optional<grpc::Alarm> alarm ABSL_GUARDED_BY(mu);
  };
  auto late = std::make_shared<Late>();
  late->permit = late_answers_.TryAcquire(peer);
  if (late->permit == nullptr) {
    answer();
    return;
  }
  late->answer = std::move(answer);
  MutexLock lock(&late->mu);
  late->alarm.emplace();
  late->alarm->Set(AlarmTime(SteadyNow() + limits_.delay), [late](bool) {
    {
      MutexLock set(&late->mu);
      late->alarm.reset();  // which holds this function
    }
    late->permit = nullptr;  // before the answer, after which the server may end
    late->answer();
  });
}

}  // namespace hotlora
