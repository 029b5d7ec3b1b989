#ifndef HOTLORA_TESTS_GOLDEN_PATH_H_
#define HOTLORA_TESTS_GOLDEN_PATH_H_

#include <string>

#include "absl/strings/string_view.h"

namespace hotlora {

// Where a file or folder of tests/golden lies. Only this function's source knows the checkout's place, so that a
// compiler cache serves several checkouts.
std::string GoldenPath(absl::string_view relative);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GOLDEN_PATH_H_
