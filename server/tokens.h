#ifndef HOTLORA_SERVER_TOKENS_H_
#define HOTLORA_SERVER_TOKENS_H_

// Bearer tokens and what each may do.
//
// The file has a line for each token; `#` begins a comment:
//
//   # app backend
//   Zr8jW0r2kXq5vT1m   generate,adapters.read
//   kQ3nB7sLw9dYc4Hx   admin
//
// A token is 16 to 512 printable ASCII characters without spaces. `admin` implies the other scopes.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

enum class Scope : uint32_t {
  kAny = 0,  // any known token will do
  kGenerate = 1,
  kAdaptersRead = 2,
  kAdaptersWrite = 4,
  kAdmin = 8,
};

// Immutable, so thread-safe. Keeps digests, not the tokens.
class Tokens {
 public:
  // InvalidArgument names the line, never the token.
  static absl::StatusOr<Tokens> Parse(absl::string_view text);
  static absl::StatusOr<Tokens> ReadFile(const std::string& path);

  // OK where `authorization`, the value of that metadata key ("" where there is none), is "Bearer
  // TOKEN" and the token has `scope`. Unauthenticated or PermissionDenied tell nothing else. Takes
  // the same time for every token.
  absl::Status Check(absl::string_view authorization, Scope scope) const;

 private:
  struct Entry {
    std::string digest;
    uint32_t scopes = 0;
  };
  std::vector<Entry> entries_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_TOKENS_H_
