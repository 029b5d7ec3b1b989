#include "tests/golden_path.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace hotlora {

std::string GoldenPath(absl::string_view relative) {
  const char* const source = std::getenv("HOTLORA_TEST_SOURCE");
  return source == nullptr ? absl::StrCat(HOTLORA_GOLDEN_DIR, "/", relative)
                           : absl::StrCat(source, "/tests/golden/", relative);
}

std::string GoldenFile(absl::string_view relative) {
  std::ifstream stream(GoldenPath(relative), std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string SingleFilePath() { return HOTLORA_SINGLE_FILE; }

}  // namespace hotlora
