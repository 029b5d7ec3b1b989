#ifndef HOTLORA_SRC_BASE_INVALID_ARGUMENT_H_
#define HOTLORA_SRC_BASE_INVALID_ARGUMENT_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hotlora {

// INVALID_ARGUMENT whose message is `parts`, one after the other, as absl::StrCat writes them.
template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_INVALID_ARGUMENT_H_
