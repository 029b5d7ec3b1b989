#ifndef HOTLORA_TESTS_GOLDEN_PATH_H_
#define HOTLORA_TESTS_GOLDEN_PATH_H_

#include <string>

#include "absl/strings/string_view.h"

namespace hotlora {

// Only these functions' source knows the checkout's place, so that a compiler cache serves several checkouts.

// Where a file or folder of tests/golden lies: in the checkout that HOTLORA_TEST_SOURCE names, else in the one that was
// built.
std::string GoldenPath(absl::string_view relative);

// The bytes of such a file; empty if it cannot be read.
std::string GoldenFile(absl::string_view relative);

// The weights of golden/pipeline in one checkpoint under SGM names. The build makes it by golden/make/single_file.py.
std::string SingleFilePath();

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GOLDEN_PATH_H_
