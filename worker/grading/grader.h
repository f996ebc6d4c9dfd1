// Graders: pure functions from a gold answer and a model's response to a verdict.
//
// A response is untrusted text. Graders run in the process assay-grader, under limits, and the
// agent kills it when it takes too long; still every grader here is linear in the response and
// bounded in memory. A grader's version goes up when any verdict may change, so that old grades
// stay what they were: grading again never touches samples.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace assay::worker {

enum class Verdict { kCorrect, kWrong, kNoAnswer };

struct GradeOutcome {
  Verdict verdict = Verdict::kNoAnswer;
  std::string extracted;  // what was taken for the answer, as written; at most 1 KiB
  std::string detail;     // why, for a person
};

// Stateless; thread-safe.
class Grader {
 public:
  virtual ~Grader() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;
  virtual GradeOutcome Grade(std::string_view gold, std::string_view response) const = 0;
};

// The grader called `name`, which lives for ever. NOT_FOUND lists the known ones:
//   boxed_number  the final answer as a number: integers, decimals, fractions, mixed numbers,
//                 percent, thousands separators, currency, units (GSM8K, AIME, arith500)
//   boxed_text    the final answer as text: equal after normalization, or equal as numbers
absl::StatusOr<const Grader*> FindGrader(std::string_view name);

std::vector<std::string> GraderNames();

}  // namespace assay::worker
