#include "src/request/request_id.h"

#include <set>

#include <gmock/gmock.h>

namespace hotlora {
namespace {

TEST(RequestIdTest, PrintableAsciiOfBoundedLengthIsRight) {
  EXPECT_EQ(RequestIdFault(""), "");
  EXPECT_EQ(RequestIdFault("a job/7 ~"), "");
  EXPECT_EQ(RequestIdFault(std::string(kMaxRequestIdBytes, 'x')), "");
  EXPECT_EQ(RequestIdFault(std::string(kMaxRequestIdBytes + 1, 'x')), "has 65 bytes; allowed are at most 64");
  for (const char* wrong : {"a\nb", "\x7f", "caf\xc3\xa9"}) {
    EXPECT_THAT(RequestIdFault(wrong), testing::HasSubstr("not printable ASCII")) << wrong;
  }
}

TEST(RequestIdTest, MadeIdsAreRightAndDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = MakeRequestId();
    EXPECT_THAT(id, testing::MatchesRegex("[0-9a-f]+"));
    EXPECT_EQ(id.size(), 32u);
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000u);
}

}  // namespace
}  // namespace hotlora
