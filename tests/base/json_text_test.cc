#include "src/base/json_text.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::HasSubstr;

std::string Repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) {
    result += text;
  }
  return result;
}

std::string MessageOf(const std::string& text) {
  const auto json = ParseJsonObject(text);
  return json.ok() ? "" : std::string(json.status().message());
}

TEST(JsonTextTest, ReadsNumbersThatPythonWritesAndJsonDoesNotHave) {
  const auto json = ParseJsonObject(R"({"a": NaN, "b": Infinity, "c": [-Infinity, -1.5], "d": "NaN \" -Infinity"})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"], "NaN");
  EXPECT_EQ((*json)["b"], "Infinity");
  EXPECT_EQ((*json)["c"][0], "-Infinity");
  EXPECT_EQ((*json)["c"][1], -1.5);
  EXPECT_EQ((*json)["d"], "NaN \" -Infinity");
}

TEST(JsonTextTest, ReadsAByteOrderMarkAndIntegersBeyond64Bits) {
  const auto json = ParseJsonObject("\xEF\xBB\xBF{\"seed\": 123456789012345678901234567890}");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_DOUBLE_EQ((*json)["seed"].get<double>(), 123456789012345678901234567890.0);
}

TEST(JsonTextTest, KeepsTheOrderOfKeysWhereItIsAskedFor) {
  const auto json = ParseOrderedJsonObject(R"({"b": {"z": NaN, "a": 2}, "a": 3})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), R"({"b":{"z":"NaN","a":2},"a":3})");
  EXPECT_FALSE(ParseOrderedJsonObject("{\"a\":" + Repeated("[", 1'000'000)).ok());
  const std::string keys = Repeated("\"a:b\":1,", kMaxOrderedJsonKeys - 1);
  EXPECT_TRUE(ParseOrderedJsonObject("{" + keys + "\"b\":2}").ok());
  EXPECT_THAT(std::string(ParseOrderedJsonObject("{" + keys + "\"b\":2,\"c\":3}").status().message()),
              HasSubstr("has more than 10000 keys"));
}

TEST(JsonTextTest, NumbersBeyondADoubleAreInfinite) {
  const std::string long_integer = "1" + Repeated("0", 400);
  const auto json = ParseJsonObject("{\"a\": 1e999, \"b\": [-" + long_integer + "," + long_integer + "], \"c\": 1" +
                                    Repeated("0", 305) + ", \"d\": 2e-3}");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"], "Infinity");
  EXPECT_EQ((*json)["b"][0], "-Infinity");
  EXPECT_EQ((*json)["b"][1], "Infinity");
  EXPECT_EQ((*json)["c"], 1e305);
  EXPECT_EQ((*json)["d"], 2e-3);
  EXPECT_TRUE(IsPythonNumber((*json)["a"]));
  EXPECT_FALSE(IsPythonNumber((*json)["d"]));
  EXPECT_FALSE(IsPythonNumber("Infinity, NaN"));
}

// json.dumps(os.fsdecode(b"\xff")), as of a path in `_name_or_path`.
TEST(JsonTextTest, ReadsHalvesOfSurrogatePairs) {
  const auto json =
      ParseJsonObject(R"({"a": "\udcff", "b": "\ud83d\ude00", "c": "\ud83d x", "d": "\\ud83d", "\ud83d": 1})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"], "\xEF\xBF\xBD");
  EXPECT_EQ((*json)["b"], "\xF0\x9F\x98\x80");
  EXPECT_EQ((*json)["c"], "\xEF\xBF\xBD x");
  EXPECT_EQ((*json)["d"], "\\ud83d");
  EXPECT_EQ((*json)["\xEF\xBF\xBD"], 1);
}

TEST(JsonTextTest, ExcerptIsOneLineOfAHundredBytes) {
  EXPECT_EQ(JsonExcerpt(nlohmann::json{{"a", {1, "b\n"}}}), R"({"a":[1,"b\n"]})");
  EXPECT_EQ(JsonExcerpt(Repeated("x", 98)), "\"" + Repeated("x", 98) + "\"");
  EXPECT_EQ(JsonExcerpt(Repeated("x", 99)), "\"" + Repeated("x", 99) + "...");
  EXPECT_EQ(JsonExcerpt("\xFF"), "\"\xEF\xBF\xBD\"");
}

TEST(JsonTextTest, SaysWhatIsWrong) {
  EXPECT_THAT(MessageOf("[1]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(MessageOf(""), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": 1"), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": xNaN}"), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": \"\xFF\"}"), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": 1e}"), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": 1-2}"), HasSubstr("is not JSON"));
  EXPECT_THAT(MessageOf("{\"a\": \"\\"), HasSubstr("is not JSON"));
}

TEST(JsonTextTest, RefusesDeepNestingBeforeItBuildsAnything) {
  EXPECT_EQ(MessageOf("{\"a\":" + Repeated("[", kMaxJsonDepth - 1) + Repeated("]", kMaxJsonDepth - 1) + "}"), "");
  for (const std::string open : {"[", "{\"a\":"}) {
    EXPECT_THAT(MessageOf("{\"a\":" + Repeated(open, 1'000'000)), HasSubstr("more than 64 deep"));
  }
  EXPECT_EQ(MessageOf("{\"a\": \"" + Repeated("[", 1'000'000) + "\"}"), "");
}

}  // namespace
}  // namespace hotlora
