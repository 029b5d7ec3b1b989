#include "tests/golden_path.h"

#include "absl/strings/str_cat.h"

namespace hotlora {

std::string GoldenPath(absl::string_view relative) { return absl::StrCat(HOTLORA_GOLDEN_DIR, "/", relative); }

std::string SingleFilePath() { return HOTLORA_SINGLE_FILE; }

}  // namespace hotlora
