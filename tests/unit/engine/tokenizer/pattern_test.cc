// Each hand-written scanner against PCRE2, and what the translation for PCRE2 refuses.
#include "engine/tokenizer/pattern.h"

#include <random>
#include <vector>

#include "engine/tokenizer/unicode.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using testing::IsError;

std::vector<std::string> Pieces(const Pattern& pattern, const std::string& text) {
  std::vector<std::string> pieces;
  PatternMatch match;
  for (size_t from = 0; from < text.size() && pattern.Find(text, from, &match); from = match.end) {
    pieces.push_back(text.substr(match.begin, match.end - match.begin));
    if (match.end == match.begin) break;
  }
  return pieces;
}

struct KnownPattern {
  const char* name;
  const char* regex;
};

class KnownPatternTest : public ::testing::TestWithParam<KnownPattern> {};

// PCRE2 here knows Unicode 14, so the text has no younger characters.
TEST_P(KnownPatternTest, ScannerAndPcre2FindTheSameMatches) {
  const std::unique_ptr<Pattern> scanner = MakeKnownPattern(GetParam().regex);
  ASSERT_NE(scanner, nullptr);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Pattern> pcre2, CompileRegex(GetParam().regex));
  const std::vector<std::string> pieces = {
      "'s",     "'S",         "'ll",    "'lL",    "'re",      "'VE",  "'\u017F",
      "'",      "'x",         " ",      "  ",     "   ",      "\n",   "\r\n",
      "\r",     "\t",         "a",      "Zz",     "é",        "日",   "ー",
      "゛",     "1",          "23",     "٣",      "½",        "!",    "?!",
      "$",      "+",          "_",      "(",      "\u0301",   "😀",    "\u00A0",
      "\u3000", "\u2028",     "\u0085", "\u200B", "\u180E",   "\x01", "\u0930\u094D",
      ".a",     "/b/",        " !\n\n", "\n a",   "\n\n  \n", "がぎ", "Ⅷ",
      "ﬁ",      "\U0001D400", "\u061C"};
  std::mt19937 random(20);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (size_t n = random() % 12; n-- > 0;) text += pieces[random() % pieces.size()];
    ASSERT_EQ(Pieces(*scanner, text), Pieces(*pcre2, text)) << GetParam().name << ": " << text;
  }
}

TEST_P(KnownPatternTest, LongRunsTakeLinearTime) {
  const std::unique_ptr<Pattern> scanner = MakeKnownPattern(GetParam().regex);
  for (const std::string unit : {" ", "\n", "a", "1", "!", "'", " \n", "a1", "\u0301", "日"}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    size_t covered = 0;
    for (const std::string& piece : Pieces(*scanner, text)) covered += piece.size();
    EXPECT_LE(covered, text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, KnownPatternTest,
                         ::testing::Values(KnownPattern{"gpt2", known_patterns::kGpt2},
                                           KnownPattern{"qwen2", known_patterns::kQwen2},
                                           KnownPattern{"llama3", known_patterns::kLlama3},
                                           KnownPattern{"digits", known_patterns::kDigitTriples},
                                           KnownPattern{"kana", known_patterns::kChineseAndKana},
                                           KnownPattern{"deepseek", known_patterns::kDeepSeekV3}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(CompileRegexTest, ServesTheUsualConstructs) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Pattern> pattern,
                       CompileRegex(R"((?<=a)b|\p{Lu}{2,3}|[^\s\p{L}]+(?!x)|(?i:the)|\S\s)"));
  EXPECT_EQ(Pieces(*pattern, "abAB12THE z"), (std::vector<std::string>{"b", "AB", "12", "THE"}));
}

// U+180E is a space for PCRE2's own \s, and none for the reference.
TEST(CompileRegexTest, SpaceIsThePropertyWhiteSpace) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Pattern> pattern, CompileRegex(R"(\s+|[\S]+)"));
  EXPECT_EQ(Pieces(*pattern, "a\u180Eb \u0085c"),
            (std::vector<std::string>{"a\u180Eb", " \u0085", "c"}));
}

TEST(CompileRegexTest, RefusesWhatPcre2ReadsDifferently) {
  for (const char* const regex :
       {R"(\h+)", R"(^a)", R"(a$)", R"([a-z&&[^b]])", R"([[:alpha:]])", R"(\w)", R"(\bx)",
        R"((?m)a)", R"((a)\1)", R"((?<n>a))", R"(\x80)", R"(a{,3})", R"(a{1,2}+)", R"([]a])",
        R"((?i:straße))", R"((?i:ss))", R"(\pL)", R"((*UCP)a)", "a\\"}) {
    EXPECT_THAT(CompileRegex(regex), IsError(absl::StatusCode::kInvalidArgument, "not supported"))
        << regex;
  }
  EXPECT_THAT(CompileRegex("(a"), IsError(absl::StatusCode::kInvalidArgument, "parenthes"));
  EXPECT_THAT(CompileRegex(std::string(20'000, 'a')),
              IsError(absl::StatusCode::kInvalidArgument, "limit"));
}

TEST(CompileRegexTest, ACatastrophicPatternEnds) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Pattern> pattern, CompileRegex("(?:a+)+b"));
  PatternMatch match;
  EXPECT_FALSE(pattern->Find(std::string(200, 'a'), 0, &match));
}

}  // namespace
}  // namespace assay::engine
