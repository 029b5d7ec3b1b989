#include "server/tokens.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <openssl/crypto.h>

#include "server/secret_file.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/sha256.h"

namespace hotlora {
namespace {

constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 512;

std::string Digest(absl::string_view token) {
  Sha256 hash;
  hash.Update(token.data(), token.size());
  return hash.HexDigest();
}

// The token of an authorization header: behind "Bearer", or the password of "Basic" (RFC 7617); empty if it has none.
std::string TokenOf(absl::string_view authorization) {
  constexpr absl::string_view kBearer = "bearer ", kBasic = "basic ";
  if (absl::StartsWithIgnoreCase(authorization, kBearer)) {
    return std::string(absl::StripAsciiWhitespace(authorization.substr(kBearer.size())));
  }
  std::string user_and_password;
  if (!absl::StartsWithIgnoreCase(authorization, kBasic) ||
      !absl::Base64Unescape(authorization.substr(kBasic.size()), &user_and_password)) {
    return "";
  }
  const size_t colon = user_and_password.find(':');  // a user's name has none
  return colon == std::string::npos ? "" : user_and_password.substr(colon + 1);
}

// The scopes' bits, 0 if a name is unknown.
uint32_t ParseScopes(absl::string_view names) {
  static const auto* const known = new std::map<absl::string_view, Scope>{{"generate", Scope::kGenerate},
                                                                          {"adapters.read", Scope::kAdaptersRead},
                                                                          {"adapters.write", Scope::kAdaptersWrite},
                                                                          {"admin", Scope::kAdmin}};
  uint32_t scopes = 0;
  for (absl::string_view name : absl::StrSplit(names, ',')) {
    const auto found = known->find(name);
    if (found == known->end()) {
      return 0;
    }
    scopes |= static_cast<uint32_t>(found->second);
  }
  return scopes;
}

}  // namespace

absl::StatusOr<Tokens> Tokens::Parse(absl::string_view text) {
  Tokens tokens;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) {
      continue;
    }
    const auto fail = [&](absl::string_view what) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", what));
    };
    if (words.size() != 2) {
      return fail("a line is TOKEN SCOPE[,SCOPE]");
    }
    if (words[0].size() < kMinTokenBytes || words[0].size() > kMaxTokenBytes ||
        !std::all_of(words[0].begin(), words[0].end(), absl::ascii_isgraph)) {
      return fail("a token is 16 to 512 printable ASCII characters");
    }
    const uint32_t scopes = ParseScopes(words[1]);
    if (scopes == 0) {
      return fail("scopes are generate, adapters.read, adapters.write and admin, with commas between them");
    }
    Entry entry{Digest(words[0]), scopes};
    for (const Entry& other : tokens.entries_) {
      if (other.digest == entry.digest) {
        return fail("the token stands on an earlier line too");
      }
    }
    tokens.entries_.push_back(std::move(entry));
  }
  if (tokens.entries_.empty()) {
    return absl::InvalidArgumentError("it has no token, so no call could be allowed");
  }
  return tokens;
}

absl::StatusOr<Tokens> ReadTokens(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSecretFile(path);
  absl::StatusOr<Tokens> tokens = text.ok() ? Tokens::Parse(*text) : text.status();
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--tokens-file ", path, ": ", tokens.status().message()));
  }
  WarnIfOthersRead("tokens-file", path);
  return tokens;
}

absl::Status Tokens::Check(absl::string_view authorization, Scope scope) const {
  uint32_t scopes = 0;
  if (const std::string token = TokenOf(authorization); !token.empty()) {
    const std::string digest = Digest(token);
    for (const Entry& entry : entries_) {
      if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) {
        scopes = entry.scopes;
      }
    }
  }
  if (scopes == 0) {
    return MakeError(absl::StatusCode::kUnauthenticated, error_reason::kUnauthenticated,
                     "a valid bearer token is needed");
  }
  const uint32_t needed = static_cast<uint32_t>(scope);
  if ((scopes & static_cast<uint32_t>(Scope::kAdmin)) == 0 && (scopes & needed) != needed) {
    return MakeError(absl::StatusCode::kPermissionDenied, error_reason::kPermissionDenied,
                     "the token does not allow this call");
  }
  return absl::OkStatus();
}

std::string Tokens::CallerOf(absl::string_view authorization) { return Digest(TokenOf(authorization)); }

}  // namespace hotlora
