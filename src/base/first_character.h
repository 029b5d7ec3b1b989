#ifndef HOTLORA_SRC_BASE_FIRST_CHARACTER_H_
#define HOTLORA_SRC_BASE_FIRST_CHARACTER_H_

#include <utf8proc.h>

#include "absl/strings/string_view.h"

namespace hotlora {

// The first character of UTF-8 text, and how many bytes it has; 0 or fewer if it is not UTF-8, or if `text` is empty.
inline utf8proc_ssize_t FirstCharacter(absl::string_view text, utf8proc_int32_t* character) {
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                          static_cast<utf8proc_ssize_t>(text.size()), character);
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_FIRST_CHARACTER_H_
