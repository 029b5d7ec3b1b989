#ifndef HOTLORA_SRC_BASE_NAME_TABLE_H_
#define HOTLORA_SRC_BASE_NAME_TABLE_H_

#include <cstddef>
#include <utility>

#include "absl/strings/string_view.h"

namespace hotlora {

// What a short table of names in one convention and in another has for `name`; "" if it has nothing.
template <size_t n>
absl::string_view Translate(const std::pair<absl::string_view, absl::string_view> (&table)[n], absl::string_view name) {
  for (const auto& [from, to] : table) {
    if (from == name) {
      return to;
    }
  }
  return "";
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_NAME_TABLE_H_
