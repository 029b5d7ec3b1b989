#include "src/request/request_id.h"

#include <algorithm>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace hotlora {

std::string RequestIdFault(absl::string_view id) {
  if (id.size() > kMaxRequestIdBytes) {
    return absl::StrCat("has ", id.size(), " bytes; allowed are at most ", kMaxRequestIdBytes);
  }
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return absl::ascii_isprint(static_cast<unsigned char>(c)); });
  return printable ? "" : "has a character that is not printable ASCII";
}

std::string MakeRequestId() {
  thread_local absl::BitGen random;
  return absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16),
                      absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
}

}  // namespace hotlora
