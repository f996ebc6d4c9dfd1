#include "worker/grading/answer.h"

#include <gtest/gtest.h>

namespace assay::worker {
namespace {

std::string Answer(std::string_view response) {
  const std::optional<FinalAnswer> answer = FindFinalAnswer(response);
  return answer.has_value() ? answer->text : "<none>";
}

TEST(FinalAnswerTest, TheLastBalancedBoxIsTheAnswer) {
  const struct {
    const char* response;
    const char* answer;
  } kCases[] = {
      {"\\boxed{1} then \\boxed{2}", "2"},
      {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
      {"\\boxed{\\boxed{202}}", "202"},
      {"\\fbox{ 3 }", "3"},
      {"$\\boxed 850$", "850"},
      {"\\boxed{7} and then \\boxed{8", "7"},  // the last one was cut
      {"a stray { and \\boxed{9}", "9"},
      {"a stray } and \\boxed{9}", "9"},
      {"\\boxed{\\{1\\}}", "\\{1\\}"},     // escaped braces are not counted
      {"\\boxedness{4} \\boxed{5}", "5"},  // another command
      {"\\boxed{}", ""},
      {"The answer is 4, so \\boxed{5}.", "5"},  // a box beats a statement
  };
  for (const auto& c : kCases) EXPECT_EQ(Answer(c.response), c.answer) << c.response;
}

TEST(FinalAnswerTest, ThinkingCountsOnlyWhenNothingFollowsIt) {
  EXPECT_EQ(Answer("maybe \\boxed{1}\n</think>\n\nIt is \\boxed{2}."), "2");
  EXPECT_EQ(Answer("maybe \\boxed{1}\n</think>\n\nThe answer is 2."), "2.");
  EXPECT_EQ(Answer("maybe \\boxed{1}\n</think>\n\n"), "1");
  EXPECT_EQ(Answer("maybe \\boxed{1}\n</think>\n\nI cannot tell."), "1");
  EXPECT_EQ(Answer("cut while thinking: \\boxed{1}, wait"), "1");
}

TEST(FinalAnswerTest, WithoutABoxAnExplicitStatementCounts) {
  const struct {
    const char* response;
    const char* answer;
  } kCases[] = {
      {"The answer is 59 dollars.", "59 dollars."},
      {"The answer is 4. No: the answer is 5", "5"},
      {"**Answer:** 7", "7"},
      {"### Final Answer\n\n31", "31"},
      {"so 3 + 4\n#### 7", "7"},
      {"some work\nA: 32", "32"},
      {"{\"answer\": 360}", "360}"},
      {"3 + 4 = 7", "<none>"},
      {"I will answer later", "<none>"},
      {"", "<none>"},
  };
  for (const auto& c : kCases) EXPECT_EQ(Answer(c.response), c.answer) << c.response;
}

// Quadratic scans of such texts would take minutes.
TEST(FinalAnswerTest, AMillionOpenBoxesAreScannedInOnePass) {
  std::string hostile;
  for (int i = 0; i < 1'000'000; ++i) hostile += "\\boxed{";
  EXPECT_EQ(Answer(hostile), "<none>");
  std::string statements;
  for (int i = 0; i < 1'000'000; ++i) statements += "answer ";
  EXPECT_EQ(Answer(statements), "<none>");
}

TEST(MarkupTest, WhatDoesNotChangeTheMeaningIsRemoved) {
  EXPECT_EQ(StripMarkup("$ \\textbf{12}\\, $."), "12");
  EXPECT_EQ(StripMarkup("{{200}}"), "200");
  EXPECT_EQ(StripMarkup("1{,}234"), "1,234");
  EXPECT_EQ(NormalizeText("\\text{June 20}"), NormalizeText("june 20."));
  EXPECT_EQ(NormalizeText("\\dfrac{1}{2}"), NormalizeText("\\frac{1}{2}"));
}

}  // namespace
}  // namespace assay::worker
