#include "src/metrics/adapter_usage.h"

#include <algorithm>
#include <utility>

#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

namespace hotlora {
namespace {

constexpr char kNone[] = "_none";
constexpr char kOther[] = "_other";

}  // namespace

void AdapterUsage::Count(const std::vector<std::string>& names, double now) {
  MutexLock lock(&mu_);
  if (names.empty()) {
    none_ = {none_.requests + 1, now};
  }
  for (const std::string& name : names) {
    CountOne(name, now);
  }
}

void AdapterUsage::CountOne(const std::string& name, double now) {
  if (name == kNone || name == kOther) {
    other_ = {other_.requests + 1, now};
    return;
  }
  const uint64_t uses = ++uses_[name];
  auto series = labelled_.find(name);
  if (series == labelled_.end() && labelled_.size() == kMaxNames) {
    const auto least = std::min_element(labelled_.begin(), labelled_.end(), [this](const auto& a, const auto& b) {
      mu_.AssertHeld();
      return uses_.at(a.first) < uses_.at(b.first);
    });
    if (uses_.at(least->first) >= uses) {
      other_ = {other_.requests + 1, now};
      return;
    }
    labelled_.erase(least);
  }
  if (series == labelled_.end()) {
    series = labelled_.try_emplace(name).first;
  }
  series->second = {series->second.requests + 1, now};
}

std::vector<prometheus::MetricFamily> AdapterUsage::Collect() const {
  using prometheus::MetricType;
  prometheus::MetricFamily requests{
      "hotlora_adapter_requests_total",
      "Requests that ran with an adapter: the most used by name, the rest as _other, the base model as _none",
      MetricType::Counter,
      {}};
  prometheus::MetricFamily last_used{"hotlora_adapter_last_used_timestamp_seconds",
                                     "When an adapter was last used, in seconds since the Unix epoch",
                                     MetricType::Gauge,
                                     {}};
  const auto add = [&](const std::string& name, const Series& series) {
    prometheus::ClientMetric metric;
    metric.label = {{"adapter", name}};
    metric.counter.value = series.requests;
    requests.metric.push_back(metric);
    if (series.last_used > 0) {
      metric.gauge.value = series.last_used;
      last_used.metric.push_back(std::move(metric));
    }
  };
  MutexLock lock(&mu_);
  add(kNone, none_);
  add(kOther, other_);
  for (const auto& [name, series] : labelled_) {
    add(name, series);
  }
  return last_used.metric.empty() ? std::vector{requests} : std::vector{requests, last_used};
}

}  // namespace hotlora
