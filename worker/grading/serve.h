// The two ways in which assay-grader is used.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

namespace assay::worker {

// Answers GradeRequest frames on `in_fd` with GradeResponse frames on `out_fd` until the stream
// ends. Returns the exit code. The agent bounds the time of each request by killing the process.
int ServeGrades(int in_fd, int out_fd);

// Grades JSON lines: {"gold"|"answer", "prediction"|"response", ...} in, one object a line out with
// "correct", "verdict", "extracted", "detail" and, when the line has them, its "id" and "expected".
// A summary goes to `log`. Stops at the first bad line and names it: exit code 65.
int GradeJsonLines(const std::string& grader_name, std::istream& in, std::ostream& out,
                   std::ostream& log);

// Limits of the process: memory, and no core dumps. Nothing that a response says may
// cost the machine more than this.
void LimitProcess(int64_t memory_bytes);

}  // namespace assay::worker
