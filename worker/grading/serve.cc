#include "worker/grading/serve.h"

#include <sys/resource.h>

#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "assay/v1/runner.pb.h"
#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/log.h"
#include "base/status.h"
#include "worker/grading/grader.h"
#include "worker/wire/frame.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

using nlohmann::json;

v1::Grade::Verdict ToProto(Verdict verdict) {
  switch (verdict) {
    case Verdict::kCorrect:
      return v1::Grade::VERDICT_CORRECT;
    case Verdict::kWrong:
      return v1::Grade::VERDICT_WRONG;
    case Verdict::kNoAnswer:
      return v1::Grade::VERDICT_NO_ANSWER;
  }
  return v1::Grade::VERDICT_UNSPECIFIED;
}

std::string ToString(Verdict verdict) {
  switch (verdict) {
    case Verdict::kCorrect:
      return "correct";
    case Verdict::kWrong:
      return "wrong";
    case Verdict::kNoAnswer:
      return "no_answer";
  }
  return "";
}

v1::Grade GradeOne(const v1::GradeRequest& request) {
  v1::Grade grade;
  grade.set_grader(request.grader());
  const absl::StatusOr<const Grader*> grader = FindGrader(request.grader());
  if (!grader.ok()) {
    grade.set_verdict(v1::Grade::VERDICT_GRADER_ERROR);
    grade.set_detail(Message(grader.status()));
    return grade;
  }
  const absl::Duration start = RealClock::Get()->Monotonic();
  const GradeOutcome outcome = (*grader)->Grade(request.gold(), request.response());
  grade.set_grader_version((*grader)->version());
  grade.set_verdict(ToProto(outcome.verdict));
  grade.set_extracted(ValidUtf8(outcome.extracted));
  grade.set_detail(ValidUtf8(outcome.detail));
  grade.set_duration_us(absl::ToInt64Microseconds(RealClock::Get()->Monotonic() - start));
  return grade;
}

// The first of `keys` that `object` holds, as text; numbers are taken as written.
absl::StatusOr<std::string> TextField(const json& object, std::initializer_list<const char*> keys) {
  std::string names;
  for (const char* key : keys) {
    if (!names.empty()) names += " or ";
    names += fmt::format("\"{}\"", key);
    const auto field = object.find(key);
    if (field == object.end()) continue;
    if (field->is_string()) return field->get<std::string>();
    if (field->is_number()) return field->dump();
    return InvalidArgument("\"{}\" must be a string, not {}", key, field->type_name());
  }
  return InvalidArgument("the field {} is missing", names);
}

struct Tally {
  int64_t graded = 0;
  int64_t correct = 0;
  int64_t no_answer = 0;
  int64_t expected = 0;  // lines that say what the verdict should be
  int64_t agreed = 0;
};

absl::StatusOr<json> GradeLine(const Grader& grader, const std::string& line, Tally* tally) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return InvalidArgument("not JSON");
  if (!object.is_object()) return InvalidArgument("not a JSON object");
  ASSAY_ASSIGN_OR_RETURN(const std::string gold, TextField(object, {"gold", "answer"}));
  ASSAY_ASSIGN_OR_RETURN(const std::string response, TextField(object, {"prediction", "response"}));
  const GradeOutcome outcome = grader.Grade(gold, response);
  const bool correct = outcome.verdict == Verdict::kCorrect;
  ++tally->graded;
  tally->correct += correct ? 1 : 0;
  tally->no_answer += outcome.verdict == Verdict::kNoAnswer ? 1 : 0;
  json result = json::object();
  if (object.contains("id")) result["id"] = object["id"];
  result["correct"] = correct;
  result["verdict"] = ToString(outcome.verdict);
  result["extracted"] = ValidUtf8(outcome.extracted);
  result["detail"] = outcome.detail;
  if (const auto expected = object.find("expected");
      expected != object.end() && expected->is_boolean()) {
    result["expected"] = *expected;
    ++tally->expected;
    tally->agreed += expected->get<bool>() == correct ? 1 : 0;
  }
  return result;
}

}  // namespace

int ServeGrades(int in_fd, int out_fd) {
  while (true) {
    v1::GradeRequest request;
    const absl::StatusOr<bool> received = ReadFrame(in_fd, &request);
    if (!received.ok()) {
      spdlog::error("cannot read a request: {}", Message(received.status()));
      return kExitBadInput;
    }
    if (!*received) return kExitOk;
    v1::GradeResponse response;
    response.set_request_id(request.request_id());
    *response.mutable_grade() = GradeOne(request);
    const absl::Status sent = WriteFrame(out_fd, response);
    if (!sent.ok()) {
      spdlog::error("cannot answer: {}", Message(sent));
      return kExitFailure;
    }
  }
}

int GradeJsonLines(const std::string& grader_name, std::istream& in, std::ostream& out,
                   std::ostream& log) {
  const absl::StatusOr<const Grader*> grader = FindGrader(grader_name);
  if (!grader.ok()) {
    log << Message(grader.status()) << "\n";
    return kExitUsage;
  }
  Tally tally;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const absl::StatusOr<json> result = GradeLine(**grader, line, &tally);
    if (!result.ok()) {
      out.flush();
      log << fmt::format("line {}: {}\n", number, Message(result.status()));
      return kExitBadInput;
    }
    out << result->dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  }
  out.flush();
  log << fmt::format("{} {}: {} graded, {} correct, {} without an answer\n", (*grader)->name(),
                     (*grader)->version(), tally.graded, tally.correct, tally.no_answer);
  if (tally.expected > 0) {
    log << fmt::format(
        "agrees with \"expected\" on {} of {} ({:.2f} %)\n", tally.agreed, tally.expected,
        100.0 * static_cast<double>(tally.agreed) / static_cast<double>(tally.expected));
  }
  return kExitOk;
}

void LimitProcess(int64_t memory_bytes) {
  const struct rlimit none = {0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
#ifndef ASSAY_SANITIZED  // sanitizers map terabytes of shadow memory
  const auto bytes = static_cast<rlim_t>(memory_bytes);
  const struct rlimit memory = {bytes, bytes};
  ::setrlimit(RLIMIT_AS, &memory);
#else
  (void)memory_bytes;
#endif
}

}  // namespace assay::worker
