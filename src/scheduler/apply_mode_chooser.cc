#include "src/scheduler/apply_mode_chooser.h"

namespace hotlora {

bool ApplyModeChooser::BeforeRow(absl::Span<const std::string> running, absl::string_view joining,
                                 bool another_is_ready) {
  if (running.empty()) {
    return SwitchTo(another_is_ready ? ApplyMode::kSide : ApplyMode::kMerged);
  }
  return Choose(running.size() > 1 || running.front() != joining);
}

bool ApplyModeChooser::BeforeStep(absl::Span<const std::string> running, uint32_t steps_before_merging) {
  steps_before_merging_ = steps_before_merging;
  const bool changed = Choose(running.size() > 1);
  if (mode_ == ApplyMode::kSide && running.size() == 1) {
    ++steps_of_one_set_;
  }
  return changed;
}

bool ApplyModeChooser::Choose(bool mixed) {
  if (mixed) {
    steps_of_one_set_ = 0;
    return SwitchTo(ApplyMode::kSide);
  }
  return steps_of_one_set_ >= steps_before_merging_ && SwitchTo(ApplyMode::kMerged);
}

bool ApplyModeChooser::SwitchTo(ApplyMode mode) {
  if (policy_ != ApplyPolicy::kAuto || mode == mode_) {
    return false;
  }
  mode_ = mode;
  steps_of_one_set_ = 0;
  return true;
}

}  // namespace hotlora
