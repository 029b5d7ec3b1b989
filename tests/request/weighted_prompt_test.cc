#include "src/request/weighted_prompt.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Pieces as text: each "text|weight", the weight with six digits, a BREAK "BREAK".
std::vector<std::string> Pieces(absl::string_view text, bool breaks = true) {
  const auto pieces = ParseEmphasis(text, breaks);
  if (!pieces.ok()) {
    return {std::string(pieces.status().message())};
  }
  std::vector<std::string> shown;
  for (const PromptPiece& piece : *pieces) {
    shown.push_back(piece.is_break ? "BREAK" : absl::StrCat(piece.text, "|", piece.weight));
  }
  return shown;
}

// What AUTOMATIC1111's parser makes of each text.
TEST(ParseEmphasisTest, EachTextHasItsPieces) {
  const std::string digits(400, '9');
  const struct {
    std::string text;
    std::vector<std::string> pieces;
  } cases[] = {
      {"", {}},
      {"a cat", {"a cat|1"}},
      {"a (red) cat", {"a |1", "red|1.1", " cat|1"}},
      {"a (red:1.3) cat", {"a |1", "red|1.3", " cat|1"}},
      {"[red]", {"red|0.909091"}},
      {"(red:-0.5)", {"red|-0.5"}},
      // nested
      {"((a))", {"a|1.21"}},
      {"(a [b] c:2)", {"a |2", "b|1.81818", " c|2"}},
      {"(a (b:3):2)", {"a |2", "b|6"}},
      {"((a:2):3)", {"a|6"}},
      {"([a])", {"a|1"}},
      {"x([a])y", {"xay|1"}},
      {"()", {}},
      {"(:2)", {}},
      {"(((((", {}},
      // crossed: round brackets do not care about square ones
      {"( [ ) ]", {" |1.1", " |1", " |0.909091"}},
      {"(a [b) c]", {"a |1.1", "b|1", " c|0.909091"}},
      {"[a (b] c)", {"a |0.909091", "b|1", " c|1.1"}},
      {"[a (b] c:2)", {"a |0.909091", "b|1.81818", " c|2"}},
      {"(a [b:2) c]", {"a |2", "b|1.81818", " c|0.909091"}},
      {"(a] b)", {"a] b|1.1"}},
      {"[a) b]", {"a) b|0.909091"}},
      // open to the end, and closed without being open
      {"a (b", {"a |1", "b|1.1"}},
      {"a [b", {"a |1", "b|0.909091"}},
      {"a (b [c", {"a |1", "b |1.1", "c|1"}},
      {"a) b]", {"a) b]|1"}},
      {")(", {")|1"}},
      {"a:1.3)", {"a:1.3)|1"}},
      {"a:1.2.3)", {"a:1.2.3)|1"}},
      {"[a:1.3)]", {"a:1.3)|0.909091"}},
      // backslashes
      {"\\(a\\) \\[b\\] \\\\", {"(a) [b] \\|1"}},
      {"\\x", {"x|1"}},
      {"a\\", {"a|1"}},
      {"\\", {}},
      {"\\\\(a)", {"\\|1", "a|1.1"}},
      {"\\\\\\(a\\)", {"\\(a)|1"}},
      {"(a\\)", {"a)|1.1"}},
      {"(a\\:2)", {"a|2"}},
      {"(a:2\\)", {"a:2)|1.1"}},
      {"a\\ b \\n", {"a b n|1"}},
      {"(a:\\2)", {"a:2|1.1"}},
      // weights
      {"(a:2)", {"a|2"}},
      {"(a:+2)", {"a|2"}},
      {"(a:.5)", {"a|0.5"}},
      {"(a:-.5)", {"a|-0.5"}},
      {"(a:+.5)", {"a|0.5"}},
      {"(a:5.)", {"a|5"}},
      {"(a:007)", {"a|7"}},
      {"(a:0)", {"a|0"}},
      {"(a: 1.5 )", {"a|1.5"}},
      {"(a:\n1.5\t)", {"a|1.5"}},
      {"(a:\u00a01.5\u3000)", {"a|1.5"}},
      {"(a :1.5)", {"a |1.5"}},
      {"(a:b:1.5)", {"a:b|1.5"}},
      {"(a:1:2)", {"a:1|2"}},
      {"(a::2)", {"a:|2"}},
      {"(a:\uff11.\uff15)", {"a|1.5"}},
      {"(a:\u0662)", {"a|2"}},
      {"(a:\U0001D7D9\U0001D7FF)", {"a|19"}},
      // no weights: text
      {"(a:1e3)", {"a:1e3|1.1"}},
      {"(a:1E-3)", {"a:1E-3|1.1"}},
      {"(a:b)", {"a:b|1.1"}},
      {"(a:nan)", {"a:nan|1.1"}},
      {"(a:inf)", {"a:inf|1.1"}},
      {"(a:0x10)", {"a:0x10|1.1"}},
      {"(a:1,5)", {"a:1,5|1.1"}},
      {"(a:1_0)", {"a:1_0|1.1"}},
      {"(a:- 2)", {"a:- 2|1.1"}},
      {"(a:--2)", {"a:--2|1.1"}},
      {"(a:1 2)", {"a:1 2|1.1"}},
      {"(a:)", {"a:|1.1"}},
      {"(a:+)", {"a:+|1.1"}},
      {"(a:1.5 b)", {"a:1.5 b|1.1"}},
      {"(a:1.5]", {"a:1.5]|1.1"}},
      {"(a:\u00bd)", {"a:\u00bd|1.1"}},
      {"a:1.3", {"a:1.3|1"}},
      {"(a:1.5", {"a:1.5|1.1"}},
      // where the parser fails
      {"(a:1.2.3)", {"has the weight \"1.2.3\", which is not a number"}},
      {"(a:.)", {"has the weight \".\", which is not a number"}},
      {"(a:..)", {"has the weight \"..\", which is not a number"}},
      {"(a:-.)", {"has the weight \"-.\", which is not a number"}},
      {"x (a [b: +1..5 ) c]", {"has the weight \"+1..5\", which is not a number"}},
      {"(a:\uff11..\uff15)", {"has the weight \"1..5\", which is not a number"}},
      // beyond what is allowed, with the brackets around it
      {"(a:100)", {"a|100"}},
      {"(a:-100)", {"a|-100"}},
      {"(:1000)", {}},
      {"(a:100.5)", {"has text of the weight 100.5; allowed are -100 to 100"}},
      {"(a:" + digits + ")", {"has text of the weight inf; allowed are -100 to 100"}},
      {"(a (b:-20):20)", {"has text of the weight -400; allowed are -100 to 100"}},
      {"((a:" + digits + "):0)", {"has text of the weight nan; allowed are -100 to 100"}},
      // BREAK
      {"a BREAK b", {"a|1", "BREAK", "b|1"}},
      {"a BREAK BREAK", {"a|1", "BREAK", "BREAK"}},
      {"(a BREAK b:1.5)", {"a|1.5", "BREAK", "b|1.5"}},
      {"(x:1)BREAK", {"x|1", "BREAK"}},
      {"x\\BREAK", {"x|1", "BREAK"}},
      {"x:BREAK:y", {"x:|1", "BREAK", ":y|1"}},
      {"xBREAK y", {"xBREAK y|1"}},
  };
  for (const auto& [text, pieces] : cases) {
    EXPECT_EQ(Pieces(text), pieces) << text;
  }
  EXPECT_THAT(Pieces("(a BREAK b)", /*breaks=*/false), ElementsAre("a BREAK b|1.1"));
}

TEST(ParseEmphasisTest, TheLongestPromptTakesLittleTime) {
  std::string text;
  while (text.size() < (16 << 10)) {
    text += "(a";
  }
  EXPECT_THAT(ParseEmphasis(text, true).status().message(), testing::HasSubstr("has text of the weight"));
  EXPECT_EQ(ParseEmphasis(std::string(1 << 20, '('), true)->size(), 0u);
  EXPECT_FALSE(ParseEmphasis(std::string(1 << 20, '(') + "a" + std::string(1 << 20, ')'), true).ok());
  EXPECT_EQ(ParseEmphasis(std::string(16 << 10, ':'), true)->size(), 1u);
  EXPECT_EQ(ParseEmphasis("(:" + std::string(16 << 10, ' '), true)->size(), 1u);
}

TEST(SplitAtWordsTest, AWordIsNoPartOfALongerOne) {
  const auto text = [](const char* part) { return WordPiece{part, std::nullopt}; };
  EXPECT_THAT(SplitAtWords("", {"ink"}), IsEmpty());
  EXPECT_THAT(SplitAtWords("a cat", {}), ElementsAre(text("a cat")));
  EXPECT_THAT(SplitAtWords("Ink, inks INK", {"ink"}),
              ElementsAre(WordPiece{"ink", 0}, text(", inks "), WordPiece{"ink", 0}));
  EXPECT_THAT(SplitAtWords("drink ink_1 \u00e9ink", {"ink"}), ElementsAre(text("drink ink_1 \u00e9ink")));
  EXPECT_THAT(SplitAtWords("a<s0><s0>b", {"<s0>"}),
              ElementsAre(text("a"), WordPiece{"<s0>", 0}, WordPiece{"<s0>", 0}, text("b")));
  EXPECT_THAT(SplitAtWords("x-ray x", {"x", "x-ray"}),
              ElementsAre(WordPiece{"x-ray", 1}, text(" "), WordPiece{"x", 0}));
}

TEST(SplitAtBreaksTest, BreakIsAWordInCapitals) {
  EXPECT_THAT(SplitAtBreaks(""), ElementsAre(""));
  EXPECT_THAT(SplitAtBreaks(" a cat "), ElementsAre(" a cat "));
  EXPECT_THAT(SplitAtBreaks("a BREAK b\nBREAK\nc"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(SplitAtBreaks("a,BREAK,b"), ElementsAre("a,", ",b"));
  EXPECT_THAT(SplitAtBreaks("a break BREAKFAST OUTBREAK BREAK_ BREAK\u00e9"),
              ElementsAre("a break BREAKFAST OUTBREAK BREAK_ BREAK\u00e9"));
  EXPECT_THAT(SplitAtBreaks("BREAK a BREAK BREAK"), ElementsAre("", "a", "", ""));
}

TEST(SplitAtBreaksTest, WordsAndSpacesAreUnicodes) {
  EXPECT_THAT(SplitAtBreaks("a\uff0cBREAK\uff0cb"), ElementsAre("a\uff0c", "\uff0cb"));
  EXPECT_THAT(SplitAtBreaks("a\u3000BREAK\u00a0b"), ElementsAre("a", "b"));
  EXPECT_THAT(SplitAtBreaks("\u732bBREAK"), ElementsAre("\u732bBREAK"));
  EXPECT_THAT(SplitAtWords("ink\uff0c\u732b", {"ink"}).size(), 2u);
}

}  // namespace
}  // namespace hotlora
