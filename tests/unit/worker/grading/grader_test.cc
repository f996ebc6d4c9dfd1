#include "worker/grading/grader.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::worker {
namespace {

using testing::IsError;
using testing::kNoShared;
using testing::SharedPath;

struct Case {
  const char* gold;
  const char* response;
  Verdict verdict;
  const char* extracted;
};

void Check(const char* name, const std::vector<Case>& cases) {
  ASSERT_OK_AND_ASSIGN(const Grader* grader, FindGrader(name));
  for (const Case& c : cases) {
    const GradeOutcome outcome = grader->Grade(c.gold, c.response);
    EXPECT_EQ(outcome.verdict, c.verdict) << c.response << ": " << outcome.detail;
    EXPECT_EQ(outcome.extracted, c.extracted) << c.response;
  }
}

TEST(GraderTest, BoxedNumberComparesNumbers) {
  Check(
      "boxed_number",
      {
          {"531", "531.\n</think>\n\nThe answer is \\boxed{531}.", Verdict::kCorrect, "531"},
          {"531", "\\boxed{532}", Verdict::kWrong, "532"},
          {"18", "She makes \\boxed{\\$18.00}.", Verdict::kCorrect, "\\$18.00"},
          {"073", "\\boxed{73}", Verdict::kCorrect, "73"},
          {"5", "The answer is $5 a day, for 6 days.", Verdict::kCorrect, "$5 a day, for 6 days."},
          {"5", "The answer is undefined.", Verdict::kNoAnswer, ""},
          {"5", "\\boxed{ANSWER}", Verdict::kWrong, "ANSWER"},
          {"5", "\\boxed{}", Verdict::kNoAnswer, ""},
          {"5", "2 + 3 = 5, so", Verdict::kNoAnswer, ""},  // it broke off: no answer was given
          {"5", "", Verdict::kNoAnswer, ""},
          {"north", "\\boxed{North}", Verdict::kCorrect, "North"},  // a gold that is no number
      });
}

TEST(GraderTest, BoxedTextComparesTextsAndNumbers) {
  Check("boxed_text",
        {
            {"June 20", "\\boxed{\\text{june 20}}", Verdict::kCorrect, "\\text{june 20}"},
            {"0.5", "\\boxed{\\frac12}", Verdict::kCorrect, "\\frac12"},
            {"\\frac{\\pi}{2}", "\\boxed{\\dfrac{\\pi}{2}}", Verdict::kCorrect, "\\dfrac{\\pi}{2}"},
            {"x+1", "\\boxed{x+2}", Verdict::kWrong, "x+2"},
            {"x+1", "no idea", Verdict::kNoAnswer, ""},
        });
}

TEST(GraderTest, AnUnknownGraderIsNamedWithTheNearestOne) {
  EXPECT_THAT(FindGrader("boxed_numbr"),
              IsError(absl::StatusCode::kNotFound, "did you mean 'boxed_number'"));
}

// The reference cases with numbers whose responses box their answer. Those without a box are left
// to graders that read prose.
TEST(GraderTest, BoxedNumbersOfTheReferenceCasesAreJudgedAsACarefulReaderWould) {
  const std::string path = SharedPath("data/grading/cases.jsonl");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  ASSERT_OK_AND_ASSIGN(const Grader* grader, FindGrader("boxed_number"));
  std::ifstream file(path);
  int num_cases = 0;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json c = nlohmann::json::parse(line);
    const std::string response = c["prediction"];
    if (c["kind"] != "expr" || c.contains("contested")) continue;
    if (response.find("\\boxed") == std::string::npos) continue;
    ++num_cases;
    const GradeOutcome outcome = grader->Grade(c["gold"].get<std::string>(), response);
    EXPECT_EQ(outcome.verdict == Verdict::kCorrect, c["expected"].get<bool>())
        << c["id"] << " gold " << c["gold"] << " extracted " << outcome.extracted;
  }
  EXPECT_GT(num_cases, 300);
}

}  // namespace
}  // namespace assay::worker
