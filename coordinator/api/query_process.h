// SQL of people, each statement in a process of its own.
//
// SQLite looks at the clock between the instructions of its machine, but one instruction can take
// hours: instr() over megabytes, printf() with a width of millions. And a statement may ask for all
// the memory there is. So the coordinator starts its own program again for each query; a timer of
// the kernel ends that process at the deadline, wherever it is, and its heap is bounded.
//
// On stdin comes the request; on stdout go frames (a tag, a size, bytes): the parts of the answer,
// then how it ended. An end of file without that is the timer's work, or a crash.
#pragma once

#include <absl/status/status.h>

#include <functional>
#include <string>

#include "assay/v1/results_service.pb.h"

namespace assay::coordinator {

// argv[1] of such a process; argv[2] is the database.
inline constexpr char kAnswerQueryVerb[] = "answer-query";

// Who waits for an answer.
struct QueryReader {
  std::function<bool(v1::RunQueryResponse part)> take;  // false: no more of it
  std::function<bool()> is_waiting;                     // asked several times a second
};

// Runs `program answer-query database` and hands on the parts of the answer. When nobody waits any
// more it ends the process: CANCELLED. Other errors are those of QueryRunner (query_runner.h);
// RESOURCE_EXHAUSTED where the process died. Waits: not in a gRPC callback.
absl::Status RunQueryProcess(const std::string& program, const std::string& database,
                             const v1::RunQueryRequest& request, const QueryReader& reader);

// The process's whole work: reads the request, answers it, returns the exit status.
int AnswerQuery(const std::string& database);

}  // namespace assay::coordinator
