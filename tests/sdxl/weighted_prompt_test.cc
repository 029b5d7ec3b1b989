#include "src/sdxl/weighted_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

auto Piece(const char* text, double weight) {
  return testing::AllOf(testing::Field(&PromptPiece::text, text),
                        testing::Field(&PromptPiece::weight, DoubleNear(weight, 1e-12)));
}

TEST(ParseEmphasisTest, BracketsChangeTheWeight) {
  EXPECT_THAT(ParseEmphasis(""), IsEmpty());
  EXPECT_THAT(ParseEmphasis("a cat"), ElementsAre(Piece("a cat", 1)));
  EXPECT_THAT(ParseEmphasis("a (red) cat"), ElementsAre(Piece("a ", 1), Piece("red", 1.1), Piece(" cat", 1)));
  EXPECT_THAT(ParseEmphasis("a (red:1.3) cat"), ElementsAre(Piece("a ", 1), Piece("red", 1.3), Piece(" cat", 1)));
  EXPECT_THAT(ParseEmphasis("[red]"), ElementsAre(Piece("red", 1 / 1.1)));
  EXPECT_THAT(ParseEmphasis("(red:-0.5)"), ElementsAre(Piece("red", -0.5)));
}

TEST(ParseEmphasisTest, BracketsNest) {
  EXPECT_THAT(ParseEmphasis("((a))"), ElementsAre(Piece("a", 1.21)));
  EXPECT_THAT(ParseEmphasis("(a [b] c:2)"), ElementsAre(Piece("a ", 2), Piece("b", 2 / 1.1), Piece(" c", 2)));
  EXPECT_THAT(ParseEmphasis("(a (b:3):2)"), ElementsAre(Piece("a ", 2), Piece("b", 6)));
}

TEST(ParseEmphasisTest, OddTextIsText) {
  EXPECT_THAT(ParseEmphasis("\\(a\\) \\\\ \\[b\\] \\x"), ElementsAre(Piece("(a) \\ [b] \\x", 1)));
  EXPECT_THAT(ParseEmphasis("a) b]"), ElementsAre(Piece("a) b]", 1)));
  EXPECT_THAT(ParseEmphasis("(a:b)"), ElementsAre(Piece("a:b", 1.1)));
  EXPECT_THAT(ParseEmphasis("(a:nan)"), ElementsAre(Piece("a:nan", 1.1)));
  EXPECT_THAT(ParseEmphasis("a:1.3"), ElementsAre(Piece("a:1.3", 1)));
  EXPECT_THAT(ParseEmphasis("a (b"), ElementsAre(Piece("a ", 1), Piece("b", 1.1)));
  EXPECT_THAT(ParseEmphasis("(a] b)"), ElementsAre(Piece("a] b", 1.1)));
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

}  // namespace
}  // namespace hotlora
