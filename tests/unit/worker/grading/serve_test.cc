#include "worker/grading/serve.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <sstream>
#include <thread>

#include "assay/v1/runner.pb.h"
#include "base/exit_codes.h"
#include "tests/testing/status_matchers.h"
#include "worker/wire/frame.h"

namespace assay::worker {
namespace {

TEST(ServeGradesTest, EachRequestIsAnsweredUnderItsId) {
  int requests[2], answers[2];
  ASSERT_EQ(::pipe(requests), 0);
  ASSERT_EQ(::pipe(answers), 0);
  int exit_code = -1;
  std::thread server([&] { exit_code = ServeGrades(requests[0], answers[1]); });
  v1::GradeRequest request;
  request.set_request_id(11);
  request.set_grader("boxed_number");
  request.set_gold("7");
  request.set_response("\\boxed{7}");
  ASSERT_OK(WriteFrame(requests[1], request));
  v1::GradeResponse response;
  ASSERT_OK(ReadFrame(answers[0], &response));
  EXPECT_EQ(response.request_id(), 11);
  EXPECT_EQ(response.grade().verdict(), v1::Grade::VERDICT_CORRECT);
  EXPECT_EQ(response.grade().grader_version(), "1");

  request.set_grader("no_such_grader");
  ASSERT_OK(WriteFrame(requests[1], request));
  ASSERT_OK(ReadFrame(answers[0], &response));
  EXPECT_EQ(response.grade().verdict(), v1::Grade::VERDICT_GRADER_ERROR);

  ::close(requests[1]);
  server.join();
  EXPECT_EQ(exit_code, kExitOk);
  for (int fd : {requests[0], answers[0], answers[1]}) ::close(fd);
}

TEST(GradeJsonLinesTest, EveryLineGetsAVerdictAndTheSummaryCounts) {
  std::istringstream in(
      "{\"id\":\"a\",\"gold\":\"5\",\"prediction\":\"\\\\boxed{5}\",\"expected\":true}\n"
      "\n"
      "{\"answer\":6,\"response\":\"\\\\boxed{5}\"}\n");
  std::ostringstream out, log;
  EXPECT_EQ(GradeJsonLines("boxed_number", in, out, log), kExitOk);
  EXPECT_NE(out.str().find("\"correct\":true"), std::string::npos);
  EXPECT_NE(out.str().find("\"correct\":false"), std::string::npos);
  EXPECT_NE(log.str().find("2 graded, 1 correct"), std::string::npos) << log.str();
  EXPECT_NE(log.str().find("on 1 of 1"), std::string::npos) << log.str();
}

TEST(GradeJsonLinesTest, ABadLineIsNamedAndEndsTheRun) {
  const struct {
    const char* line;
    const char* message;
  } kCases[] = {
      {"{", "line 2: not JSON"},
      {"[1]", "line 2: not a JSON object"},
      {"{\"gold\":\"5\"}", "line 2: the field \"prediction\" or \"response\" is missing"},
      {"{\"gold\":[],\"prediction\":\"\"}", "line 2: \"gold\" must be a string, not array"},
  };
  for (const auto& c : kCases) {
    std::istringstream in(std::string("{\"gold\":\"5\",\"prediction\":\"\"}\n") + c.line + "\n");
    std::ostringstream out, log;
    EXPECT_EQ(GradeJsonLines("boxed_number", in, out, log), kExitBadInput);
    EXPECT_NE(log.str().find(c.message), std::string::npos) << log.str();
  }
}

}  // namespace
}  // namespace assay::worker
