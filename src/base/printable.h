#ifndef HOTLORA_SRC_BASE_PRINTABLE_H_
#define HOTLORA_SRC_BASE_PRINTABLE_H_

// Text from untrusted files and requests in messages, log lines and answers: escaped and of limited length.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace hotlora {

// The first `most` bytes of UTF-8 text, or up to 3 fewer: the cut is never inside a character.
std::string Shortened(absl::string_view text, size_t most);

// `name` quoted, with quotes and what cannot be printed escaped (EscapeName); cut at 160 bytes, with "..." then.
std::string PrintableName(absl::string_view name);

// "[320, 4, 3, 3]"
std::string ShapeText(absl::Span<const int64_t> shape);

// The first names of many: at most 8, then a count.
class NameSample {
 public:
  // Adds PrintableName(name).
  void Add(absl::string_view name);
  // For text that is already printable, such as a name with a remark.
  void AddPrintable(std::string text);

  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  std::string ToString() const;

 private:
  std::vector<std::string> first_;
  size_t count_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_PRINTABLE_H_
