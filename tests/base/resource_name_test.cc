#include "src/base/resource_name.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using testing::HasSubstr;

std::string Parts(int count) {
  std::string name = "p";
  for (int i = 1; i < count; ++i) {
    name += "/p";
  }
  return name;
}

TEST(NormalizeNameTest, TakesWhatPeopleCallTheirFiles) {
  const std::string names[] = {"neon",
                               "styles/neon",
                               "v1.5_x-2",
                               "0",
                               "Pony Style (v2)",
                               "te,st1",
                               "trailing ",
                               " leading",
                               "\u6c34\u5f69\u98ce",
                               "caf\u00e9",
                               "a+b",
                               "style@0.8",
                               "[char] miku",
                               "-dash",
                               "_pony",
                               "_none",
                               "ends in a dot.",
                               "50% grey",
                               "a\u00a0b",
                               "it's \"new\" & = {x} #1; ~$^!?*|`",
                               "\u0645\u0631\u062d\u0628\u0627",
                               "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
                               "\U0001F469\u200d\U0001F3A8",
                               "full\u3000width",
                               std::string(kMaxNameBytes, 'a'),
                               Parts(kMaxNameParts)};
  for (const std::string& name : names) {
    const auto normal = NormalizeName(name);
    ASSERT_TRUE(normal.ok()) << name << ": " << normal.status();
    EXPECT_EQ(*normal, name);
    EXPECT_EQ(EscapeName(name), name);
  }
}

TEST(NormalizeNameTest, GivesFormC) {
  EXPECT_EQ(NormalizeName("cafe\u0301").value(), "caf\u00e9");
  EXPECT_EQ(NormalizeName("\u1112\u1161\u11ab").value(), "\ud55c");
  EXPECT_EQ(NormalizeName("\u212a/\u212b").value(), "K/\u00c5");
  EXPECT_EQ(NormalizeName("q\u0307\u0323").value(), "q\u0323\u0307");
}

TEST(NormalizeNameTest, RefusesTheRestAndSaysWhy) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "has 0 bytes; allowed are 1 to 255"},
      {std::string(256, 'a'), "has 256 bytes"},
      {".", "begins with \".\""},
      {"..", "begins with \".\""},
      {"../neon", "begins with \".\""},
      {"styles/../neon", "begins with \".\""},
      {".hidden", "begins with \".\""},
      {"a/.hidden", "begins with \".\""},
      {"..%2fa", "begins with \".\""},
      {"/etc/passwd", "empty part"},
      {"a//b", "empty part"},
      {"a/", "empty part"},
      {Parts(9), "has 9 parts; allowed are at most 8"},
      {"a\\b", "backslash"},
      {"C:x", "\":\", which stands between a name and its weight"},
      {"a<b", "\"<\""},
      {"a>b", "\">\""},
      {std::string("a\0b", 3), "control character U+0000"},
      {"a\nb", "control character U+000A"},
      {"a\x7f", "control character U+007F"},
      {"a\u0085", "control character U+0085"},
      {"a\u2028", "control character U+2028"},
      {"a\u2029", "control character U+2029"},
      {"a\u061c", "U+061C, which changes the direction"},
      {"a\u200e", "U+200E, which changes the direction"},
      {"a\u202egnp", "U+202E, which changes the direction"},
      {"a\u2069", "U+2069, which changes the direction"},
      {"na\xefve", "not valid UTF-8"},
      {"\xc0\xaf", "not valid UTF-8"},
      {"\xed\xa0\x80", "not valid UTF-8"},
      {"\xf4\x90\x80\x80", "not valid UTF-8"},
      {"caf\xc3", "not valid UTF-8"},
  };
  for (const auto& [name, why] : cases) {
    const auto normal = NormalizeName(name);
    ASSERT_FALSE(normal.ok()) << EscapeName(name);
    EXPECT_EQ(normal.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(normal.status().message()), HasSubstr(why)) << EscapeName(name);
  }
}

TEST(EscapeNameTest, ShowsWhatCannotBeShown) {
  EXPECT_EQ(EscapeName("a\nb\x7f"), "a\\x0ab\\x7f");
  EXPECT_EQ(EscapeName("a\\b"), "a\\\\b");
  EXPECT_EQ(EscapeName("na\xefve \u202egnp"), "na\\xefve \\xe2\\x80\\xaegnp");
  EXPECT_EQ(EscapeName(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(EscapeName("a:b"), "a:b");
}

TEST(EncodeNameTest, ListsHoldAnyName) {
  const std::pair<std::string, std::string> cases[] = {
      {"styles/neon-v1.5_x~", "styles/neon-v1.5_x~"}, {"te,st1", "te%2Cst1"}, {"a+b", "a%2Bb"},
      {"caf\u00e9 (v2)", "caf%C3%A9%20%28v2%29"},     {"50%", "50%25"},       {"\u6c34", "%E6%B0%B4"},
  };
  for (const auto& [name, item] : cases) {
    EXPECT_EQ(EncodeName(name), item);
    EXPECT_EQ(DecodeName(item).value(), name);
  }
  EXPECT_EQ(DecodeName("a+b %c3%A9").value(), "a+b \u00e9");
  for (const char* const bad : {"%", "a%2", "%zz", "50% grey"}) {
    EXPECT_FALSE(DecodeName(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace hotlora
