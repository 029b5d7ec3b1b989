#include "src/base/printable.h"

#include <string>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(PrintableTest, CutsBetweenCharacters) {
  EXPECT_EQ(Shortened("caf\u00e9", 5), "caf\u00e9");
  EXPECT_EQ(Shortened("caf\u00e9", 4), "caf");
  EXPECT_EQ(Shortened("x\U0001F600", 4), "x");
  EXPECT_EQ(Shortened("", 4), "");
  EXPECT_EQ(Shortened("abc", 0), "");
  EXPECT_EQ(Shortened(std::string(10, '\x80'), 8).size(), 5u);  // not UTF-8
}

TEST(PrintableTest, NamesAreQuotedEscapedAndCut) {
  EXPECT_EQ(PrintableName("caf\u00e9 \"x\"\\\xff"), "\"caf\u00e9 \\\"x\\\"\\\\\\xff\"");
  EXPECT_EQ(PrintableName(std::string(160, 'x')), "\"" + std::string(160, 'x') + "\"");
  EXPECT_EQ(PrintableName(std::string(159, 'x') + "\u00e9"), "\"" + std::string(159, 'x') + "...\"");
  EXPECT_LT(PrintableName(std::string(1'000'000, 'x')).size(), 200u);
}

TEST(PrintableTest, ShapesAreLists) {
  EXPECT_EQ(ShapeText({320, 4, 3, 3}), "[320, 4, 3, 3]");
  EXPECT_EQ(ShapeText({}), "[]");
}

TEST(PrintableTest, SampleHasEightNamesThenACount) {
  NameSample sample;
  EXPECT_TRUE(sample.empty());
  for (int i = 0; i < 11; ++i) {
    sample.Add(absl::StrCat("key\n", i));
  }
  EXPECT_EQ(sample.count(), 11u);
  EXPECT_THAT(sample.ToString(), testing::StartsWith("\"key\\x0a0\", "));
  EXPECT_THAT(sample.ToString(), testing::EndsWith("\"key\\x0a7\" and 3 more"));
}

}  // namespace
}  // namespace hotlora
