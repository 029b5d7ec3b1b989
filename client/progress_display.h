#ifndef HOTLORA_CLIENT_PROGRESS_DISPLAY_H_
#define HOTLORA_CLIENT_PROGRESS_DISPLAY_H_

#include <cstdint>
#include <cstdio>
#include <string>

#include "hotlora/v1/images.pb.h"

namespace hotlora {

// Shows the progress of a generation: one line that is overwritten, or plain lines if the stream is not a terminal.
class ProgressDisplay {
 public:
  enum class Style { kQuiet, kLines, kBar };

  ProgressDisplay(Style style, std::FILE* stream) : style_(style), stream_(stream) {}
  ~ProgressDisplay();  // ends the line

  void Show(const v1::GenerateImagesEvent& event);

  // What an event is in words; empty for those that are not shown.
  static std::string Describe(const v1::GenerateImagesEvent& event);

  // "[#####     ]": `step` of `total` steps.
  static std::string Bar(uint32_t step, uint32_t total);

 private:
  const Style style_;
  std::FILE* const stream_;
  bool line_open_ = false;
  uint32_t shown_image_ = 0;
  bool shown_image_done_ = false;
  uint32_t last_tenth_ = 0;
  std::string last_words_;
};

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_PROGRESS_DISPLAY_H_
