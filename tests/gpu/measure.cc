#include "tests/gpu/measure.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "src/base/stopwatch.h"
#include "src/tensor/device.h"

namespace hotlora {
namespace {

constexpr double kMilliseconds = 1e3;

// A pair of events round the work of one repeat; on the CPU nothing.
class DeviceTimer {
 public:
  explicit DeviceTimer(c10::Device device) {
    if (!device.is_cpu()) {
      stream_ = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
      begin_.emplace(device.type(), c10::EventFlag::BACKEND_DEFAULT);
      end_.emplace(device.type(), c10::EventFlag::BACKEND_DEFAULT);
    }
  }
  void Begin() {
    if (stream_.has_value()) {
      begin_->record(*stream_);
    }
  }
  void End() {
    if (stream_.has_value()) {
      end_->record(*stream_);
    }
  }
  // REQUIRES: both are done.
  void AddTo(std::vector<double>* milliseconds) const {
    if (stream_.has_value()) {
      milliseconds->push_back(begin_->elapsedTime(*end_));
    }
  }

 private:
  std::optional<c10::Stream> stream_;
  std::optional<c10::Event> begin_, end_;
};

}  // namespace

bool HasTime(Probe& probe, absl::string_view part) {
  if (probe.SecondsLeft() > 0) {
    probe.SetDoing(absl::StrCat("it measured ", part));
    return true;
  }
  probe.LeaveOut(part, "the time limit");
  return false;
}

Times Measure(const Probe& probe, const Repeats& repeats, absl::FunctionRef<void()> body) {
  for (int i = 0; i < repeats.warm_up; ++i) {
    body();
  }
  Synchronize(probe.device());
  Times times;
  DeviceTimer timer(probe.device());
  const Stopwatch all;
  do {
    const Stopwatch one;
    timer.Begin();
    body();
    timer.End();
    times.enqueue.push_back(one.Seconds() * kMilliseconds);
    Synchronize(probe.device());
    times.wall.push_back(one.Seconds() * kMilliseconds);
    timer.AddTo(&times.device);
  } while (times.wall.size() < static_cast<size_t>(repeats.most) && all.Seconds() < repeats.seconds &&
           probe.SecondsLeft() > 0);
  return times;
}

void AddTimes(Probe& probe, absl::string_view name, const Times& times) {
  probe.AddFigure(absl::StrCat(name, ".wall"), "ms", times.wall);
  probe.AddFigure(absl::StrCat(name, ".enqueue"), "ms", times.enqueue);
  if (!times.device.empty()) {
    probe.AddFigure(absl::StrCat(name, ".device"), "ms", times.device);
  }
}

std::vector<double> PerSecond(double amount, const std::vector<double>& milliseconds) {
  std::vector<double> rates;
  rates.reserve(milliseconds.size());
  for (const double time : milliseconds) {
    rates.push_back(amount / time * kMilliseconds);
  }
  return rates;
}

}  // namespace hotlora
