#ifndef HOTLORA_SERVER_TOKENS_H_
#define HOTLORA_SERVER_TOKENS_H_

// Callers' tokens and what each may do.
//
// The file has a line for each token; `#` begins a comment:
//
//   # app backend
//   Zr8jW0r2kXq5vT1m   generate,adapters.read
//   kQ3nB7sLw9dYc4Hx   admin
//
// A token is 16 to 512 printable ASCII characters without spaces. `admin` implies the other scopes.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/base/mutex.h"

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

  // OK if `authorization`, the value of that metadata key ("" if it is absent), is "Bearer TOKEN", or HTTP's "Basic"
  // with the token as the password and any user's name, and the token has `scope`. Unauthenticated or PermissionDenied
  // tell nothing else. Takes the same time for every token.
  absl::Status Check(absl::string_view authorization, Scope scope) const;

  // A name for the caller who sends `authorization`, the same for every way to write it; not the token.
  static std::string CallerOf(absl::string_view authorization);

 private:
  struct Entry {
    std::string digest;
    uint32_t scopes = 0;
  };
  std::vector<Entry> entries_;
};

// The tokens in the file of --tokens-file. InvalidArgument, which names the flag, also if the file cannot be read or
// can be written by every user of the machine. A warning in the log if every user can read it.
absl::StatusOr<Tokens> ReadTokens(const std::string& path);

// The tokens in force, which can be replaced while calls come. Thread-safe.
class TokenStore {
 public:
  explicit TokenStore(Tokens tokens) { Replace(std::move(tokens)); }

  std::shared_ptr<const Tokens> current() const {
    MutexLock lock(&mu_);
    return tokens_;
  }
  // For the calls that come from now on.
  void Replace(Tokens tokens) {
    auto fresh = std::make_shared<const Tokens>(std::move(tokens));
    MutexLock lock(&mu_);
    tokens_ = std::move(fresh);
  }

 private:
  mutable Mutex mu_;
  std::shared_ptr<const Tokens> tokens_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_TOKENS_H_
