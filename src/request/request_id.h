#ifndef HOTLORA_SRC_REQUEST_REQUEST_ID_H_
#define HOTLORA_SRC_REQUEST_REQUEST_ID_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace hotlora {

inline constexpr size_t kMaxRequestIdBytes = 64;

// What is wrong with an id that a caller gave, as the description of a bad field; "" if nothing is. An empty id is
// right: the server makes one.
std::string RequestIdFault(absl::string_view id);

// 32 random hexadecimal digits. Thread-safe.
std::string MakeRequestId();

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_REQUEST_ID_H_
