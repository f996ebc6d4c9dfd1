#include "engine/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

namespace assay::engine {
namespace {

AddedToken Token(int32_t id, const std::string& content) {
  AddedToken token;
  token.id = id;
  token.content = content;
  return token;
}

// Segments as "text" or "#id:text".
std::vector<std::string> Split(const AddedTokenMatcher& matcher, std::string_view text) {
  std::vector<AddedTokenMatcher::Segment> segments;
  matcher.Split(text, &segments);
  std::vector<std::string> shown;
  for (const AddedTokenMatcher::Segment& segment : segments) {
    const std::string piece(segment.text);
    shown.push_back(segment.id < 0 ? piece : "#" + std::to_string(segment.id) + ":" + piece);
  }
  return shown;
}

using Shown = std::vector<std::string>;

TEST(AddedTokensTest, LongestOfTheLeftmostWins) {
  const AddedTokenMatcher matcher({Token(1, "<a>"), Token(2, "<a><b>"), Token(3, "a><b>")});
  EXPECT_EQ(Split(matcher, "x<a><b>y"), (Shown{"x", "#2:<a><b>", "y"}));
  EXPECT_EQ(Split(matcher, "<a><c>"), (Shown{"#1:<a>", "<c>"}));
  EXPECT_EQ(Split(matcher, "za><b>"), (Shown{"z", "#3:a><b>"}));
  EXPECT_EQ(Split(matcher, ""), (Shown{}));
  EXPECT_EQ(Split(matcher, "<a"), (Shown{"<a"}));
}

TEST(AddedTokensTest, StrippingTakesTheSpacesAround) {
  AddedToken left = Token(1, "[L]");
  left.lstrip = true;
  AddedToken right = Token(2, "[R]");
  right.rstrip = true;
  const AddedTokenMatcher matcher({left, right});
  EXPECT_EQ(Split(matcher, "a \u3000[L] b"), (Shown{"a", "#1: \u3000[L]", " b"}));
  EXPECT_EQ(Split(matcher, "a [R] \n b"), (Shown{"a ", "#2:[R] \n ", "b"}));
  // What the token before took is not taken again.
  EXPECT_EQ(Split(matcher, "[R]  [L]"), (Shown{"#2:[R]  ", "#1:[L]"}));
}

TEST(AddedTokensTest, SingleWordStandsAlone) {
  AddedToken word = Token(1, "max");
  word.single_word = true;
  const AddedTokenMatcher matcher({word});
  EXPECT_EQ(Split(matcher, "max"), (Shown{"#1:max"}));
  EXPECT_EQ(Split(matcher, "a max."), (Shown{"a ", "#1:max", "."}));
  EXPECT_EQ(Split(matcher, "maxi émax _max max\u0301 max1"),
            (Shown{"maxi émax _max max\u0301 max1"}));
}

TEST(AddedTokensTest, AnEmptyMatcherPassesTextThrough) {
  EXPECT_EQ(Split(AddedTokenMatcher({}), "abc"), (Shown{"abc"}));
}

}  // namespace
}  // namespace assay::engine
