#include "server/tokens.h"

#include <string>

#include "absl/strings/escaping.h"
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

constexpr char kFile[] =
    "# app backend\n"
    "generate-token-1   generate,adapters.read\r\n"
    "\n"
    "\twriter-token-001 adapters.write # behind a tab\n"
    "administrator-01 admin\n";

TEST(TokensTest, AllowsWhatTheScopesSay) {
  const auto tokens = Tokens::Parse(kFile);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  struct Case {
    const char* authorization;
    Scope scope;
    absl::StatusCode code;
  };
  const Case cases[] = {
      {"Bearer generate-token-1", Scope::kGenerate, absl::StatusCode::kOk},
      {"bearer  generate-token-1", Scope::kAdaptersRead, absl::StatusCode::kOk},
      {"Bearer generate-token-1", Scope::kAdaptersWrite, absl::StatusCode::kPermissionDenied},
      {"Bearer generate-token-1", Scope::kAdmin, absl::StatusCode::kPermissionDenied},
      {"Bearer generate-token-1", Scope::kAny, absl::StatusCode::kOk},
      {"Bearer writer-token-001", Scope::kGenerate, absl::StatusCode::kPermissionDenied},
      {"Bearer administrator-01", Scope::kGenerate, absl::StatusCode::kOk},
      {"Bearer administrator-01", Scope::kAdmin, absl::StatusCode::kOk},
      {"Bearer generate-token-2", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Bearer generate-token-", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Bearer ", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"generate-token-1", Scope::kGenerate, absl::StatusCode::kUnauthenticated},
      {"Basic generate-token-1", Scope::kGenerate, absl::StatusCode::kUnauthenticated},
      {"", Scope::kAny, absl::StatusCode::kUnauthenticated},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(tokens->Check(c.authorization, c.scope).code(), c.code) << c.authorization;
  }
}

std::string Basic(absl::string_view user_and_password) { return "Basic " + absl::Base64Escape(user_and_password); }

TEST(TokensTest, TakesTheTokenAsThePasswordOfBasic) {
  const auto tokens = Tokens::Parse(std::string(kFile) + "with:colon:token-1 generate\n");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  struct Case {
    std::string authorization;
    Scope scope;
    absl::StatusCode code;
  };
  const std::string good = absl::Base64Escape("me:generate-token-1");
  const Case cases[] = {
      {Basic("me:generate-token-1"), Scope::kGenerate, absl::StatusCode::kOk},
      {Basic(":generate-token-1"), Scope::kGenerate, absl::StatusCode::kOk},
      {Basic("me:with:colon:token-1"), Scope::kGenerate, absl::StatusCode::kOk},
      {"basic " + good, Scope::kGenerate, absl::StatusCode::kOk},
      {"BASIC  " + good, Scope::kGenerate, absl::StatusCode::kOk},
      {Basic("me:generate-token-1"), Scope::kAdmin, absl::StatusCode::kPermissionDenied},
      {Basic("me:generate-token-2"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic("generate-token-1:me"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic("generate-token-1"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic("me:"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic(":"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic(""), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic("me: generate-token-1"), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic(absl::string_view("me:generate-token-1\0", 20)), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic("me:" + std::string(12'000, 'a')), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {Basic(std::string(12'000, ':')), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic me:generate-token-1", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic " + good + "!", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic " + good.substr(0, good.size() - 3), Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic " + good + " " + good, Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic" + good, Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Basic", Scope::kAny, absl::StatusCode::kUnauthenticated},
      {"Bearer " + good, Scope::kAny, absl::StatusCode::kUnauthenticated},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(tokens->Check(c.authorization, c.scope).code(), c.code) << c.authorization.substr(0, 80);
  }
}

TEST(TokensTest, NamesACallerAlikeForEveryWayToWriteTheToken) {
  const std::string caller = Tokens::CallerOf("Bearer generate-token-1");
  EXPECT_EQ(Tokens::CallerOf("bearer  generate-token-1 "), caller);
  EXPECT_EQ(Tokens::CallerOf(Basic("me:generate-token-1")), caller);
  EXPECT_EQ(Tokens::CallerOf(Basic("another:generate-token-1")), caller);
  EXPECT_NE(Tokens::CallerOf(Basic("me:generate-token-2")), caller);
}

TEST(TokensTest, RefusesFilesWithMistakesAndKeepsTheTokenToItself) {
  struct Case {
    const char* text;
    const char* says;
  };
  const Case cases[] = {
      {"", "no token"},
      {"# nothing\n", "no token"},
      {"secret-secret-secret\n", "line 1"},
      {"\nsecret-secret-secret paint\n", "line 2"},
      {"secret-secret-secret generate,\n", "line 1"},
      {"secret-secret-secret generate read\n", "line 1"},
      {"secret generate\n", "line 1"},
      {"secret-secret-secret admin\nsecret-secret-secret generate\n", "line 2"},
  };
  for (const Case& c : cases) {
    const auto tokens = Tokens::Parse(c.text);
    ASSERT_FALSE(tokens.ok()) << c.text;
    const std::string message(tokens.status().message());
    EXPECT_NE(message.find(c.says), std::string::npos) << message;
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace hotlora
