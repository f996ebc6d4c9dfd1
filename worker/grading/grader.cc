#include "worker/grading/grader.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/names.h"
#include "base/status.h"
#include "worker/grading/answer.h"
#include "worker/grading/number.h"

namespace assay::worker {
namespace {

GradeOutcome NoAnswer(std::string detail) { return {Verdict::kNoAnswer, "", std::move(detail)}; }

GradeOutcome Compared(bool equal, const FinalAnswer& answer, std::string_view how) {
  GradeOutcome outcome;
  outcome.verdict = equal ? Verdict::kCorrect : Verdict::kWrong;
  outcome.extracted = answer.text;
  outcome.detail = std::string(answer.from_box ? "last box, " : "stated answer, ");
  outcome.detail += how;
  return outcome;
}

class BoxedNumber final : public Grader {
 public:
  std::string name() const override { return "boxed_number"; }
  std::string version() const override { return "1"; }

  GradeOutcome Grade(std::string_view gold, std::string_view response) const override {
    const std::optional<FinalAnswer> answer = FindFinalAnswer(response);
    if (!answer.has_value()) return NoAnswer("no box and no stated answer");
    if (answer->text.empty()) return NoAnswer("the last box is empty");
    const std::optional<Number> expected = ParseNumber(gold);
    if (!expected.has_value()) {
      return Compared(NormalizeText(answer->text) == NormalizeText(gold), *answer,
                      "compared as text: the gold answer is no number");
    }
    std::optional<Number> given = ParseNumber(answer->text);
    // A box is the answer and nothing else; a statement may go on ("is 59 dollars, because ...").
    if (!given.has_value() && !answer->from_box) given = FirstNumber(answer->text);
    if (!given.has_value()) {
      if (!answer->from_box) return NoAnswer("the stated answer holds no number");
      return Compared(false, *answer, "not a number");
    }
    return Compared(SameValue(*expected, *given), *answer, "compared as numbers");
  }
};

class BoxedText final : public Grader {
 public:
  std::string name() const override { return "boxed_text"; }
  std::string version() const override { return "1"; }

  GradeOutcome Grade(std::string_view gold, std::string_view response) const override {
    const std::optional<FinalAnswer> answer = FindFinalAnswer(response);
    if (!answer.has_value()) return NoAnswer("no box and no stated answer");
    if (answer->text.empty()) return NoAnswer("the last box is empty");
    const std::optional<Number> expected = ParseNumber(gold);
    const std::optional<Number> given = ParseNumber(answer->text);
    if (expected.has_value() && given.has_value()) {
      return Compared(SameValue(*expected, *given), *answer, "compared as numbers");
    }
    return Compared(NormalizeText(answer->text) == NormalizeText(gold), *answer,
                    "compared as text");
  }
};

const std::array<const Grader*, 2>& Graders() {
  static const BoxedNumber boxed_number;
  static const BoxedText boxed_text;
  static const std::array<const Grader*, 2> graders = {&boxed_number, &boxed_text};
  return graders;
}

}  // namespace

absl::StatusOr<const Grader*> FindGrader(std::string_view name) {
  for (const Grader* grader : Graders()) {
    if (grader->name() == name) return grader;
  }
  const std::vector<std::string> names = GraderNames();
  return NotFound("no grader '{}'{}; there are: {}", name, DidYouMean(name, names),
                  fmt::join(names, ", "));
}

std::vector<std::string> GraderNames() {
  std::vector<std::string> names;
  for (const Grader* grader : Graders()) names.push_back(grader->name());
  return names;
}

}  // namespace assay::worker
