#include "server/guess_delay.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <grpcpp/alarm.h>

#include "server/alarm_time.h"

namespace hotlora {

bool GuessDelay::Note(const std::string& peer, absl::Time now) {
  std::lock_guard<std::mutex> lock(mu_);
  if (now >= period_end_ || now < period_end_ - limits_.period) {  // a clock may be set back
    before_.clear();
    if (now < period_end_ + limits_.period) {
      before_.swap(now_);
    }
    now_.clear();
    period_end_ = now + limits_.period;
  }
  const bool own = now_.size() < limits_.peers || now_.count(peer) > 0;
  int& count = now_[own ? peer : ""];
  const auto earlier = before_.find(peer);
  count = std::min(count + 1, limits_.free_guesses + 1);
  return count + (earlier == before_.end() ? 0 : earlier->second) > limits_.free_guesses;
}

void GuessDelay::AnswerLate(const std::string& peer, std::function<void()> answer) {
  struct Late {
    std::function<void()> answer;
    std::unique_ptr<CallerPlaces::Place> place;
    std::mutex mu;
    std::optional<grpc::Alarm> alarm;  // guarded by mu
  };
  auto late = std::make_shared<Late>();
  late->place = late_answers_.Enter(peer);
  if (late->place == nullptr) {
    answer();
    return;
  }
  late->answer = std::move(answer);
  std::lock_guard<std::mutex> lock(late->mu);
  late->alarm.emplace();
  late->alarm->Set(AlarmTime(SteadyNow() + limits_.delay), [late](bool) {
    {
      std::lock_guard<std::mutex> set(late->mu);
      late->alarm.reset();  // which holds this function
    }
    late->place = nullptr;  // before the answer, after which the server may end
    late->answer();
  });
}

}  // namespace hotlora
