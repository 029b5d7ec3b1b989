#include "client/progress_display.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hotlora {
namespace {

constexpr uint32_t kBarCells = 24;

}  // namespace

ProgressDisplay::~ProgressDisplay() {
  if (line_open_) {
    std::fputs("\n", stream_);
  }
}

std::string ProgressDisplay::Describe(const v1::GenerateImagesEvent& event) {
  if (event.has_waiting()) {
    const v1::Waiting& waiting = event.waiting();
    std::string words = waiting.stage() == "adapter"
                            ? "loading adapters"
                            : absl::StrCat("waiting, ", waiting.queue_position(), " before this one");
    if (waiting.estimated_seconds() > 0) {
      absl::StrAppendFormat(&words, ", about %.0f s", waiting.estimated_seconds());
    }
    return words;
  }
  if (event.has_progress()) {
    const v1::Progress& progress = event.progress();
    return absl::StrFormat("image %d  step %d/%d  %.2f s/step", progress.image_index(), progress.step(),
                           progress.total_steps(), progress.step_seconds());
  }
  return "";
}

std::string ProgressDisplay::Bar(uint32_t step, uint32_t total) {
  const uint32_t full = total == 0 ? 0 : static_cast<uint32_t>(uint64_t{kBarCells} * std::min(step, total) / total);
  return absl::StrCat("[", std::string(full, '#'), std::string(kBarCells - full, ' '), "]");
}

void ProgressDisplay::Show(const v1::GenerateImagesEvent& event) {
  const std::string words = Describe(event);
  if (style_ == Style::kQuiet || words.empty()) {
    return;
  }
  const v1::Progress& progress = event.progress();
  if (event.has_progress()) {
    // Images of one batch advance together: follow one until it is done.
    if (progress.image_index() != shown_image_ && !shown_image_done_) {
      return;
    }
    shown_image_ = progress.image_index();
    shown_image_done_ = progress.step() == progress.total_steps();
  }
  if (style_ == Style::kBar) {
    const std::string bar = event.has_progress() ? Bar(progress.step(), progress.total_steps()) + " " : "";
    std::fprintf(stream_, "\r\x1b[K%s%s", bar.c_str(),
                 words.c_str());  // ESC[K: clear to the end of the line
    line_open_ = true;
  } else {
    const uint32_t tenth = progress.total_steps() == 0 ? 0 : progress.step() * 10 / progress.total_steps();
    const bool first_step = progress.step() == 1;
    if (event.has_progress() && tenth == last_tenth_ && !first_step) {
      return;  // a line for each tenth is enough for a log
    }
    if (words == last_words_) {
      return;
    }
    last_tenth_ = tenth;
    last_words_ = words;
    std::fprintf(stream_, "%s\n", words.c_str());
  }
  std::fflush(stream_);
}

}  // namespace hotlora
