#include "src/scheduler/work_watch.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/enum_size.h"
#include "src/base/mutex.h"

namespace hotlora {
namespace {

// A longer pause between two checks means that the process stood still.
constexpr absl::Duration kLongestPause = absl::Seconds(5);
constexpr double kLimitsBeforeGivingUp = 5.0;

constexpr const char* kKindTexts[] = {"applying adapters", "an encoding", "a step", "a decode",
                                      "a check of base weights"};
static_assert(std::size(kKindTexts) == kEnumSize<WorkKind>);

bool Same(const Work& a, const Work& b) { return a.kind == b.kind && a.shape == b.shape; }

absl::Duration Seconds(absl::Duration duration) { return absl::Trunc(duration, absl::Seconds(1)); }

// `usual`: nullopt if such work has not ended yet.
std::string StuckText(const Work& work, absl::Duration age, std::optional<absl::Duration> usual) {
  std::string text = kKindTexts[static_cast<size_t>(work.kind)];
  if (work.shape.width > 0 && work.shape.height > 0) {
    absl::StrAppend(&text, " of ", work.shape.width, "x", work.shape.height);
  }
  if (work.kind == WorkKind::kStep && work.shape.rows > 0) {
    absl::StrAppend(&text, " (rows: ", work.shape.rows, ")");
  }
  absl::StrAppend(&text, " has taken ", absl::FormatDuration(Seconds(age)), "; it usually takes ",
                  usual.has_value() ? absl::FormatDuration(absl::Trunc(*usual, absl::Milliseconds(1))) : "(not known)");
  return text;
}

}  // namespace

WorkWatch::WorkWatch(WorkLimits limits, Clock clock) : limits_(limits), clock_(std::move(clock)), start_(clock_()) {}

WorkWatch::Mark::Mark(WorkWatch* watch, const Work& work) : watch_(watch), work_(work) {
  MutexLock lock(&watch_->mu_);
  begin_ = watch_->Now();
  entry_ = watch_->marks_.insert(watch_->marks_.end(), this);
}

WorkWatch::Mark::~Mark() {
  MutexLock lock(&watch_->mu_);
  watch_->marks_.erase(entry_);
  if (counts_) {
    watch_->Note(work_, watch_->Now() - begin_);
  }
}

absl::Duration WorkWatch::Now() const { return absl::FromChrono(clock_() - start_) - stood_still_; }

std::vector<StuckWork> WorkWatch::Check() {
  MutexLock lock(&mu_);
  stood_still_ += std::max(absl::ZeroDuration(), Now() - last_check_ - kLongestPause);
  const absl::Duration now = last_check_ = Now();
  std::vector<StuckWork> stuck;
  for (const Mark* mark : marks_) {
    const absl::Duration age = now - mark->begin_;
    const std::optional<absl::Duration> usual = Usual(mark->work_);
    const absl::Duration limit =
        usual.has_value() ? std::max(limits_.least, limits_.times_usual * *usual) : limits_.unknown;
    if (age >= limit) {
      const bool hopeless = age >= limit + std::max(limits_.before_giving_up, kLimitsBeforeGivingUp * limit);
      stuck.push_back({mark->work_, hopeless, StuckText(mark->work_, age, usual)});
    }
  }
  return stuck;
}

std::optional<absl::Duration> WorkWatch::Usual(const Work& work) const {
  for (const History& history : histories_) {
    if (Same(history.work, work)) {
      std::vector<absl::Duration> durations(history.last.begin(), history.last.end());
      const auto median = durations.begin() + static_cast<std::ptrdiff_t>(durations.size() / 2);
      std::nth_element(durations.begin(), median, durations.end());
      return *median;
    }
  }
  return std::nullopt;
}

void WorkWatch::Note(const Work& work, absl::Duration duration) {
  const auto found =
      std::find_if(histories_.begin(), histories_.end(), [&](const History& h) { return Same(h.work, work); });
  if (found != histories_.end()) {
    histories_.splice(histories_.begin(), histories_, found);
  } else {
    histories_.push_front({work, {}});
    if (histories_.size() > kShapes) {
      histories_.pop_back();
    }
  }
  std::deque<absl::Duration>& last = histories_.front().last;
  last.push_back(duration);
  if (last.size() > kDurations) {
    last.pop_front();
  }
}

}  // namespace hotlora
