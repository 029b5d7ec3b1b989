#include "server/status_mapping.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

google::rpc::Status Rich(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  return rich;
}

TEST(StatusMappingTest, EveryCodeKeepsItsNumberAndHasAReason) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status = ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "text"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    const google::rpc::Status rich = Rich(status);
    EXPECT_EQ(rich.code(), code);
    ASSERT_EQ(rich.details_size(), 1);
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(rich.details(0).UnpackTo(&info));
    EXPECT_EQ(info.reason(), CodeName(static_cast<absl::StatusCode>(code)));
    EXPECT_EQ(info.domain(), "hotlora");
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(StatusMappingTest, PushbackSaysWhenRetryingHelps) {
  const auto make = [](absl::StatusCode code, std::optional<absl::Duration> delay) {
    return RetryPushback(MakeError(code, "x", ErrorDetails{"X", {}, delay}));
  };
  EXPECT_EQ(make(absl::StatusCode::kUnavailable, absl::Seconds(2)), "2000");
  EXPECT_EQ(make(absl::StatusCode::kUnavailable, absl::InfiniteDuration()), "2147483647");
  EXPECT_EQ(make(absl::StatusCode::kUnavailable, -absl::Seconds(2)), "0");
  EXPECT_EQ(make(absl::StatusCode::kResourceExhausted, std::nullopt), "-1");
  EXPECT_EQ(make(absl::StatusCode::kNotFound, std::nullopt), std::nullopt);
}

// 8 KiB of trailers is what callers take by default.
TEST(StatusMappingTest, WorstCaseFitsIntoTrailers) {
  ErrorDetails details{"INVALID_REQUEST", {}, absl::Seconds(1)};
  for (int i = 0; i < 1000; ++i) {
    details.violations.push_back({std::string(300, 'f'), std::string(5000, 'd')});
  }
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    text += "\xC3\xA9";
  }
  const grpc::Status status = ToGrpcStatus(MakeError(absl::StatusCode::kInvalidArgument, text, details));
  const size_t message_bytes = status.error_message().size() * 3;
  const size_t detail_bytes = absl::Base64Escape(status.error_details()).size();
  EXPECT_LT(message_bytes + detail_bytes, 8192u - 500u);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(Rich(status).details(1).UnpackTo(&bad));
  ASSERT_GT(bad.field_violations_size(), 2);
  const int listed = bad.field_violations_size() - 1;
  EXPECT_EQ(bad.field_violations(listed).description(), absl::StrCat("and ", 1000 - listed, " more"));
}

TEST(StatusMappingTest, CleanTextIsUtf8) {
  struct Case {
    std::string text;
    size_t max;
    std::string clean;
  };
  const Case cases[] = {
      {"plain", 100, "plain"},
      {"\xC3\xA9t\xC3\xA9", 100, "\xC3\xA9t\xC3\xA9"},
      {"\xF0\x9F\x98\x80", 100, "\xF0\x9F\x98\x80"},
      {"a\xFF", 100, "a?"},
      {"\xC3", 100, "?"},
      {"\xE2\x82", 100, "??"},
      {"\xC0\xAF", 100, "??"},            // overlong
      {"\xED\xA0\x80", 100, "???"},       // surrogate
      {"\xF4\x90\x80\x80", 100, "????"},  // above U+10FFFF
      {"abcdefgh", 8, "abcdefgh"},
      {"abcdefghi", 8, "abcde..."},
      {"abcd\xC3\xA9zzzz", 8, "abcd..."},  // not through the middle of a character
      {"abcd", 2, ".."},
      {"", 0, ""},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(CleanText(c.text, c.max), c.clean) << absl::CEscape(c.text);
  }
}

}  // namespace
}  // namespace hotlora
