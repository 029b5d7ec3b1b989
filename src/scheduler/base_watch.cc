#include "src/scheduler/base_watch.h"

#include <algorithm>
#include <utility>

#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/steady_time.h"
#include "src/request/unavailable.h"

namespace hotlora {
namespace {

// Between steps, while no caller waits for a report.
constexpr absl::Duration kBusyInterval = absl::Seconds(5);

}  // namespace

BaseWatch::BaseWatch(Pipeline* pipeline, Metrics* metrics, std::function<void(bool)> on_state)
    : pipeline_(pipeline),
      metrics_(metrics),
      on_state_(std::move(on_state)),
      corrupt_(pipeline->module_count(), false),
      last_check_(SteadyNow()) {}

void BaseWatch::Report(Done done) {
  {
    MutexLock lock(&mu_);
    if (!closed_) {
      rounds_.push_back({{}, std::move(done)});
      return;
    }
  }
  done(DrainingError());
}

BaseReport BaseWatch::total() const {
  MutexLock lock(&mu_);
  return total_;
}

bool BaseWatch::IsDue() const {
  MutexLock lock(&mu_);
  return !rounds_.empty() || SteadyNow() - last_check_ >= kBusyInterval;
}

absl::Status BaseWatch::CheckNext() {
  const absl::StatusOr<BaseReport> check = pipeline_->VerifyNextModule();
  std::vector<Round> finished;
  bool was_intact = true, is_intact = true;
  {
    MutexLock lock(&mu_);
    last_check_ = SteadyNow();
    if (!check.ok()) {
      finished.swap(rounds_);
    } else {
      was_intact = total_.intact;
      corrupt_[next_] = !check->intact;
      next_ = (next_ + 1) % corrupt_.size();
      is_intact = std::find(corrupt_.begin(), corrupt_.end(), true) == corrupt_.end();
      const auto add = [&](BaseReport& report) {
        report.modules_checked += check->modules_checked;
        report.mismatches += check->mismatches;
        report.repaired += check->repaired;
        report.intact = is_intact;
      };
      add(total_);
      for (Round& round : rounds_) {
        add(round.report);
      }
      finished = TakeFinished();
    }
  }
  if (check.ok()) {
    for (uint64_t i = 0; i < check->mismatches; ++i) {
      metrics_->CountBaseRestoreMismatch();
    }
    if (was_intact != is_intact && on_state_) {
      LogError(is_intact ? "the base weights are sound again" : "the base weights are damaged and cannot be restored");
      on_state_(is_intact);
    }
  }
  for (const Round& round : finished) {
    round.done(check.ok() ? absl::StatusOr<BaseReport>(round.report) : check.status());
  }
  return check.status();
}

std::vector<BaseWatch::Round> BaseWatch::TakeFinished() {
  std::vector<Round> finished, left;
  for (Round& round : rounds_) {
    (round.report.modules_checked >= corrupt_.size() ? finished : left).push_back(std::move(round));
  }
  rounds_ = std::move(left);
  return finished;
}

void BaseWatch::Close() {
  std::vector<Round> ended;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    ended.swap(rounds_);
  }
  for (const Round& round : ended) {
    round.done(DrainingError());
  }
}

}  // namespace hotlora
