#include "server/readiness.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/logging.h"

namespace hotlora {
namespace {

NotReadyReason ReasonOf(WorkKind kind) {
  switch (kind) {
    case WorkKind::kApply:
      return NotReadyReason::kStuckApply;
    case WorkKind::kEncode:
      return NotReadyReason::kStuckEncode;
    case WorkKind::kStep:
      return NotReadyReason::kStuckStep;
    case WorkKind::kDecode:
      return NotReadyReason::kStuckDecode;
    case WorkKind::kCheck:
      return NotReadyReason::kStuckCheck;
  }
  return NotReadyReason::kStuckStep;
}

// What an operator sets off is not worth a warning.
LogLevel LevelOf(NotReadyReason reason) {
  return reason == NotReadyReason::kStarting || reason == NotReadyReason::kDraining ? LogLevel::kInfo
                                                                                    : LogLevel::kWarning;
}

}  // namespace

Readiness::Readiness(CallMetrics* metrics, std::function<void(bool)> on_change)
    : metrics_(metrics), on_change_(std::move(on_change)) {
  reasons_.set(static_cast<size_t>(NotReadyReason::kStarting));
  metrics_->SetNotReady(NotReadyReason::kStarting, true);
}

void Readiness::Set(NotReadyReason reason, bool in_force, absl::string_view detail) {
  MutexLock lock(&mu_);
  const auto bit = static_cast<size_t>(reason);
  if (reasons_.test(bit) == in_force) {
    return;
  }
  const bool was_ready = reasons_.none();
  reasons_.set(bit, in_force);
  metrics_->SetNotReady(reason, in_force);
  if (const ServerState state = State(); std::exchange(state_, state) != state) {
    metrics_->SetState(state);
  }
  if (was_ready != reasons_.none()) {
    on_change_(reasons_.none());
  }
  if (in_force) {
    Log(LevelOf(reason), absl::StrCat("not ready: ", NotReadyLabel(reason), detail.empty() ? "" : ": ", detail));
  } else {
    Log(LevelOf(reason), absl::StrCat("no longer ", NotReadyLabel(reason), ": ",
                                      reasons_.none() ? "ready" : absl::StrCat("still not ready: ", Labels(reasons_))));
  }
}

void Readiness::SetStuckWork(absl::Span<const StuckWork> stuck) {
  for (const WorkKind kind :
       {WorkKind::kApply, WorkKind::kEncode, WorkKind::kStep, WorkKind::kDecode, WorkKind::kCheck}) {
    const auto found =
        std::find_if(stuck.begin(), stuck.end(), [kind](const StuckWork& work) { return work.work.kind == kind; });
    Set(ReasonOf(kind), found != stuck.end(), found != stuck.end() ? found->text : "");
  }
}

bool Readiness::ready() const {
  MutexLock lock(&mu_);
  return reasons_.none();
}

std::string Readiness::WhyNot() const {
  MutexLock lock(&mu_);
  return Labels(reasons_);
}

std::string Readiness::Labels(const Reasons& reasons) {
  std::string labels;
  for (size_t bit = 0; bit < reasons.size(); ++bit) {
    if (reasons.test(bit)) {
      absl::StrAppend(&labels, labels.empty() ? "" : ", ", NotReadyLabel(static_cast<NotReadyReason>(bit)));
    }
  }
  return labels;
}

ServerState Readiness::State() const {
  const auto in_force = [this](NotReadyReason reason) {
    mu_.AssertHeld();
    return reasons_.test(static_cast<size_t>(reason));
  };
  return in_force(NotReadyReason::kDeviceFailed) ? ServerState::kFailed
         : in_force(NotReadyReason::kDraining)   ? ServerState::kDraining
         : in_force(NotReadyReason::kStarting)   ? ServerState::kStarting
         : reasons_.none()                       ? ServerState::kReady
                                                 : ServerState::kNotReady;
}

}  // namespace hotlora
