// How the verbs end: one line on stderr, and an exit code.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <string>

namespace assay::worker {

// Prints "PROGRAM: MESSAGE" in one line, by the name that people called; returns the exit code of
// `status`.
int FailVerb(const absl::Status& status);

// A bad line of input: "PROGRAM: line 3: MESSAGE"; 65.
int FailLine(int64_t line_number, const std::string& message);

// NOT_FOUND unless `model_dir` is a folder with `file` in it.
absl::Status CheckModelFolder(const std::string& model_dir, const char* file);

}  // namespace assay::worker
