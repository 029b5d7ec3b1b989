#include "src/metrics/step_drift.h"

#include <algorithm>
#include <utility>

namespace hotlora {
namespace {

// REQUIRES: not empty.
template <typename Values>
double Median(const Values& values) {
  std::vector<double> sorted(values.begin(), values.end());
  const size_t half = sorted.size() / 2;
  std::nth_element(sorted.begin(), sorted.begin() + half, sorted.end());
  if (sorted.size() % 2 == 1) {
    return sorted[half];
  }
  return 0.5 * (sorted[half] + *std::max_element(sorted.begin(), sorted.begin() + half));
}

template <typename Value>
void PushBounded(std::deque<Value>& values, const Value& value, size_t most) {
  values.push_back(value);
  if (values.size() > most) {
    values.pop_front();
  }
}

}  // namespace

StepDrift::History& StepDrift::Use(const StepShape& shape, Change& change) {
  const auto found = std::find_if(histories_.begin(), histories_.end(),
                                  [&shape](const History& history) { return history.shape == shape; });
  if (found != histories_.end()) {
    histories_.splice(histories_.begin(), histories_, found);
    return histories_.front();
  }
  if (histories_.size() == kShapes) {
    change.dropped = histories_.back().shape;
    histories_.pop_back();
  }
  histories_.push_front({shape, std::nullopt, {}, false, {}});
  return histories_.front();
}

StepDrift::Change StepDrift::SetWarmUp(const StepShape& shape, double seconds) {
  Change change;
  History& history = Use(shape, change);
  if (!history.settled) {
    history.baseline = change.baseline = seconds;
  }
  return change;
}

StepDrift::Change StepDrift::Add(const StepShape& shape, double seconds) {
  Change change;
  History& history = Use(shape, change);
  PushBounded(history.recent, seconds, kRecentSteps);
  PushBounded(window_, shape, kWindowSteps);
  if (!history.settled) {
    history.first.push_back(seconds);
    if (history.first.size() == kBaselineSteps) {
      history.baseline = change.baseline = Median(std::exchange(history.first, {}));
      history.settled = true;
    }
  }
  return change;
}

std::optional<double> StepDrift::ratio() const {
  double sum = 0.0, weights = 0.0;
  for (const History& history : histories_) {
    const auto weight = static_cast<double>(std::count(window_.begin(), window_.end(), history.shape));
    if (weight > 0.0 && history.baseline.value_or(0.0) > 0.0) {
      sum += weight * Median(history.recent) / *history.baseline;
      weights += weight;
    }
  }
  return weights > 0.0 ? std::optional<double>(sum / weights) : std::nullopt;
}

}  // namespace hotlora
